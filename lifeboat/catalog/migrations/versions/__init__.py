"""One module per revision of the catalog's tables, never changed once released."""
