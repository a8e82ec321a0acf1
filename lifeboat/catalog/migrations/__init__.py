"""Alembic's scripts; `lifeboat.catalog.migrate` runs them."""
