"""Fingerprints: what a restored database must equal, taken under one snapshot (DESIGN 6)."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from lifeboat.errors import PermanentError, TransientError
from lifeboat.postgres.connections import server_version
from lifeboat.settings.drills import FingerprintBudget
from lifeboat.storage.manifest import Fingerprint, TableFingerprint, TableKind
from lifeboat.verification.schema_objects import (
    EXCLUDED_SCHEMAS,
    hash_schema,
    included_schemas,
    read_extensions,
    read_schema_objects,
)

# The sum over all rows of hashtextextended(row as text, seed 0), the columns in the order of their names: a restore may
# put inherited columns elsewhere. A sum does not depend on the order of rows and, unlike XOR, counts equal rows.
CONTENT_ALGORITHM = "hashtextextended-sum-1"
LARGE_OBJECTS = ("pg_catalog", "pg_largeobject_metadata")

# Whatever the role or the database has set, the same value must give the same text.
_OUTPUT_SETTINGS: Mapping[str, str] = {
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    # Many small queries with large estimates: compiling them would take most of the time.
    "jit": "off",
    # Without it a policy would silently hide rows; with it the server refuses to read such a table.
    "row_security": "off",
}
# A count must read the table itself: an index may hold what a damaged table has lost.
SCAN_SETTINGS: Mapping[str, str] = {
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
}

# PostgreSQL has no code of its own for it and does not translate it.
_OVER_1_GB = "invalid memory alloc request size"

_TABLES = """
SELECT n.nspname AS schema, c.relname AS name,
    CASE WHEN c.relkind = 'm' THEN 'materialized' WHEN c.relkind = 'f' THEN 'foreign'
         WHEN c.relpersistence = 'u' THEN 'unlogged' ELSE 'ordinary' END AS kind,
    coalesce(pg_table_size(c.oid), 0) AS size_bytes,
    EXISTS (SELECT FROM pg_depend e
            WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e') AS of_extension,
    ARRAY(SELECT a.attname::text FROM pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          ORDER BY a.attname COLLATE "C") AS columns
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname = ANY (%s)
ORDER BY size_bytes, schema, name
"""


class FingerprintForbidden(PermanentError):
    """The role may not read every row."""


class DatabaseDamaged(PermanentError):
    """A table cannot be read: a bad checksum, a broken page, an input or output error."""


class FingerprintInterrupted(TransientError):
    """The database did not let the fingerprint be finished: a lost connection, a lock, a concurrent DDL."""


@dataclass(frozen=True)
class FingerprintProgress:
    """What is done before `table` is read; sizes in bytes."""

    table: str
    done_tables: int
    total_tables: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    kind: TableKind
    size_bytes: int
    of_extension: bool
    columns: list[str]

    @property
    def has_rows_to_compare(self) -> bool:
        return self.kind is TableKind.ORDINARY and not self.of_extension


def _ignore(progress: FingerprintProgress) -> None:
    del progress


def take_fingerprint(  # noqa: PLR0913 - each option is the caller's to choose
    connection: psycopg.Connection[Any],
    *,
    budget: FingerprintBudget,
    lsn: str | None,
    busy_tables: Sequence[str] = (),
    exclude_schemas: Collection[str] = EXCLUDED_SCHEMAS,
    hashed_like: Fingerprint | None = None,
    on_progress: Callable[[FingerprintProgress], None] | None = None,
) -> Fingerprint:
    """Fingerprint the database inside the caller's open REPEATABLE READ transaction.

    Rows are counted in each ordinary table (a partitioned table's partitions, an inheritance parent without its
    children) and, smallest first within the budget, their content hashed in the same scan. Only definitions of
    materialized views, sequences, unlogged and foreign tables and tables of extensions. Large objects are counted, not
    read. With `hashed_like`, a backup's fingerprint to compare with, the tables hashed there are hashed, whatever the
    budget says: a restored database has other sizes.

    Session settings are changed for the rest of the transaction; locks are kept to its end, so that a dump under the
    same snapshot sees the same. Raises FingerprintForbidden, DatabaseDamaged, FingerprintInterrupted.
    """
    taken_at, began = datetime.now(UTC), time.monotonic()
    with _explained():
        _require_snapshot(connection)
        apply_settings(connection, _OUTPUT_SETTINGS)
        schemas = included_schemas(connection, exclude_schemas)
        objects = read_schema_objects(connection, schemas)
        found, database_bytes = _list_tables(connection, schemas)
        hashed = _choose_hashed(found, budget.limit_bytes(database_bytes), hashed_like)
        # Not before: catalog queries without indexes take minutes where there are thousands of tables.
        apply_settings(connection, SCAN_SETTINGS)
        tables = list(_fingerprint_tables(connection, found, hashed, on_progress or _ignore))
        return Fingerprint(
            database=connection.info.dbname,
            server_version=server_version(connection),
            taken_at=taken_at,
            lsn=lsn,
            duration_seconds=time.monotonic() - began,
            extensions=read_extensions(connection),
            schema_sha256=hash_schema(objects),
            objects=objects,
            tables=sorted(tables, key=lambda table: (table.schema_name, table.table_name)),
            content_algorithm=CONTENT_ALGORITHM,
            busy_tables=sorted(busy_tables),
        )


def apply_settings(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Apply server settings until the end of the transaction."""
    calls = sql.SQL(", ").join(sql.SQL("pg_catalog.set_config(%s, %s, true)") for _ in settings)
    connection.execute(sql.SQL("SELECT {}").format(calls), [word for pair in settings.items() for word in pair])


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise FingerprintForbidden(
            f"the fingerprint cannot read every row: {_first_line(error)}",
            hint="Connect as a superuser, or as a role that is a member of pg_read_all_data and has BYPASSRLS.",
        ) from error
    except (psycopg.OperationalError, psycopg.InternalError) as error:
        raise FingerprintInterrupted(
            f"the fingerprint could not be finished: {_first_line(error)}",
            hint="Run the backup again; if a change of tables runs just now, wait for its end.",
        ) from error


def _first_line(error: psycopg.Error) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _require_snapshot(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("SELECT current_setting('transaction_isolation')").fetchone()
    if row is None or row[0] not in {"repeatable read", "serializable"} or connection.info.transaction_status == 0:
        raise PermanentError(
            "a fingerprint needs an open transaction with one snapshot, REPEATABLE READ",
            hint="This is a fault in Lifeboat: report it with the log of this run.",
        )


def _choose_hashed(tables: Sequence[_Table], limit_bytes: int, like: Fingerprint | None) -> set[tuple[str, str]]:
    if like is not None:
        return {(t.schema_name, t.table_name) for t in like.tables if t.content_hash is not None}
    scanned = [table for table in tables if table.has_rows_to_compare]
    sums = accumulate(table.size_bytes for table in scanned)
    return {(table.schema, table.name) for table, sum_ in zip(scanned, sums, strict=True) if sum_ <= limit_bytes}


def _fingerprint_tables(
    connection: psycopg.Connection[Any],
    tables: Sequence[_Table],
    hashed: set[tuple[str, str]],
    on_progress: Callable[[FingerprintProgress], None],
) -> Iterator[TableFingerprint]:
    scanned = [table for table in tables if table.has_rows_to_compare]
    total = sum(table.size_bytes for table in scanned)
    done = 0
    for index, table in enumerate(scanned):
        on_progress(FingerprintProgress(f"{table.schema}.{table.name}", index, len(scanned), done, total))
        done += table.size_bytes
        count, content = _scan(connection, table, hashed=(table.schema, table.name) in hashed)
        yield _table_fingerprint(table, count, content)
    for table in tables:
        if not table.has_rows_to_compare:
            yield _table_fingerprint(table, None, None)
    yield from _large_objects(connection)


def _list_tables(connection: psycopg.Connection[Any], schemas: Sequence[str]) -> tuple[list[_Table], int]:
    """The tables, smallest first, and the size of the database in bytes."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(_TABLES, [schemas]).fetchall()
        size = cursor.execute("SELECT pg_database_size(current_database())").fetchone()
    tables = [_Table(schema, name, TableKind(kind), *rest) for schema, name, kind, *rest in rows]
    return tables, size[0] if size else 0


def _table_fingerprint(table: _Table, count: int | None, content: str | None) -> TableFingerprint:
    return TableFingerprint(
        schema_name=table.schema,
        table_name=table.name,
        kind=table.kind,
        row_count=count,
        content_hash=content,
        size_bytes=table.size_bytes,
    )


def _scan(connection: psycopg.Connection[Any], table: _Table, *, hashed: bool) -> tuple[int | None, str | None]:
    """Row count and content hash of a table; None for what could not be had."""
    columns = sql.SQL(", ").join(sql.SQL("t.{}").format(sql.Identifier(name)) for name in table.columns)
    content = sql.SQL('sum(hashtextextended((ROW({}))::text COLLATE "C", 0))::text').format(columns)
    query = sql.SQL("SELECT count(*), {} FROM ONLY {} AS t").format(
        content if hashed else sql.SQL("NULL"), sql.Identifier(table.schema, table.name)
    )
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(query).fetchone()
    except psycopg.errors.UndefinedTable:
        # Dropped after the snapshot was taken; nobody can read it any more.
        return None, None
    except (psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted, psycopg.errors.IoError) as error:
        raise DatabaseDamaged(
            f"the table {table.schema}.{table.name} cannot be read: {_first_line(error)}",
            hint="Look at the disk and the server's log; keep all earlier backups until this is understood.",
        ) from error
    except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.InternalError) as error:
        # A row whose text is over 1 GB; whether it can be read is for the drill's full read to find out.
        too_long = isinstance(error, psycopg.errors.ProgramLimitExceeded) or _OVER_1_GB in str(error)
        if not hashed or not too_long:
            raise
        return _scan(connection, table, hashed=False)
    if row is None:
        return None, None
    return row[0], (row[1] or "0") if hashed else None


def _large_objects(connection: psycopg.Connection[Any]) -> Iterator[TableFingerprint]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            "SELECT count(*), pg_table_size('pg_catalog.pg_largeobject') FROM pg_catalog.pg_largeobject_metadata"
        ).fetchone()
    if row is not None and row[0] > 0:
        schema, name = LARGE_OBJECTS
        yield TableFingerprint(
            schema_name=schema,
            table_name=name,
            kind=TableKind.ORDINARY,
            row_count=row[0],
            content_hash=None,
            size_bytes=row[1],
        )
