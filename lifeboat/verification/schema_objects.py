"""The definitions of a database's objects, hashed one by one.

The hashes are the same before and after a dump and restore, and in a physical copy; the text of `pg_dump -s` is not.
Another major version of PostgreSQL prints some definitions differently.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from lifeboat.storage.manifest import SchemaObject
from lifeboat.verification import database_definitions, relation_definitions
from lifeboat.verification.deparsed import canonical

# What Lifeboat itself makes in a database: it changes with each backup and each rescue.
EXCLUDED_SCHEMAS = ("lifeboat", "rescue_%")
_SYSTEM_SCHEMA = re.compile(r"pg_.*|information_schema")


def included_schemas(connection: psycopg.Connection[Any], exclude: Collection[str] = EXCLUDED_SCHEMAS) -> list[str]:
    """The schemas that a fingerprint covers; in `exclude`, `%` stands for any text and nothing else is special."""
    patterns = [re.compile(".*".join(re.escape(part) for part in name.split("%"))) for name in exclude]
    with connection.cursor(row_factory=tuple_row) as cursor:
        names = [str(row[0]) for row in cursor.execute("SELECT nspname FROM pg_catalog.pg_namespace")]
    return sorted(n for n in names if not any(p.fullmatch(n) for p in [_SYSTEM_SCHEMA, *patterns]))


def read_schema_objects(connection: psycopg.Connection[Any], schemas: Sequence[str]) -> list[SchemaObject]:
    """The definition hashes of everything in `schemas`, sorted by kind and name.

    Expects the session settings of `fix_output`: deparsed text depends on search_path and more.
    """
    found: list[SchemaObject] = []
    with connection.cursor(row_factory=tuple_row) as cursor:
        for query in (*relation_definitions.QUERIES, *database_definitions.QUERIES):
            cursor.execute(query, {"schemas": list(schemas)})
            found += (_schema_object(*row) for row in cursor)
    return sorted(found, key=lambda item: (item.kind, item.name, item.sha256))


def read_extensions(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """Name and version of each extension."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute("SELECT extname, extversion FROM pg_catalog.pg_extension").fetchall()
    return {str(name): str(version) for name, version in sorted(rows)}


def hash_schema(objects: Iterable[SchemaObject]) -> str:
    """One SHA-256 over all definitions, independent of their order."""
    lines = sorted(json.dumps([item.kind, item.name, item.sha256]) for item in objects)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _schema_object(kind: str, name: str, facts: str | None, deparsed: list[str | None] | None) -> SchemaObject:
    expressions = [canonical(text) if text is not None else None for text in deparsed or []]
    definition = json.dumps([facts, expressions])
    return SchemaObject(kind=kind, name=name, sha256=hashlib.sha256(definition.encode()).hexdigest())
