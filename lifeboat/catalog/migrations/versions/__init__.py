"""One module per revision of the catalog's tables, numbered, only adding, never changed once released.

A new one names the last as its `down_revision`; `REVISION` in lifeboat/catalog/tables.py then names the new one.
"""
