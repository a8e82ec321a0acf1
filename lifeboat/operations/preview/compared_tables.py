"""Tables then and now: which rows and columns a restore brings back, and which it takes away."""

from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.operations.preview.compared_rows import (
    RowDifference,
    compare_large_objects,
    compare_rows,
    table_columns,
)
from lifeboat.storage.manifest import Fingerprint, TableFingerprint, TableKind
from lifeboat.verification.fingerprints import LARGE_OBJECTS

# An unlogged table cannot be read during recovery, and is empty behind it.
_HAS_ROWS = """
SELECT c.relispopulated AND NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())
  FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)
"""
_NOTHING = RowDifference(0, 0, 0)


@dataclass(frozen=True)
class TablePreview:
    """One table then and now. A restore brings `only_then` rows back, takes `only_now` away, and `changed` back.

    `rows_then` is None for a table that was not there, `rows_now` for one that is not; `changed` where no key tells
    rows apart: a changed row is then one of each of the others. `keys` are some of the primary keys, by kind. Rows are
    compared by the columns of both sides: `columns_then` come back, `columns_now` go.
    """

    table: str
    rows_then: int | None
    rows_now: int | None
    only_then: int
    only_now: int
    changed: int | None
    keys: dict[str, list[str]] = field(default_factory=dict)
    columns_then: list[str] = field(default_factory=list)
    columns_now: list[str] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether a restore would change it."""
        differences = (self.only_then, self.only_now, self.changed, self.columns_then, self.columns_now)
        return any(differences) or None in {self.rows_then, self.rows_now}


@dataclass(frozen=True)
class _Sides:
    then: psycopg.Connection[Any]
    now: psycopg.Connection[Any]


def compare_tables(
    then: psycopg.Connection[Any], now: psycopg.Connection[Any], before: Fingerprint, after: Fingerprint
) -> tuple[list[TablePreview], list[str]]:
    """The tables of both fingerprints, and why some could not be compared.

    Both connections are in the fingerprint's transaction. Foreign tables are left out: their rows are elsewhere, and a
    restore does not reach them. Raises psycopg.Error.
    """
    sides = _Sides(then, now)
    old = {(table.schema_name, table.table_name): table for table in before.tables}
    new = {(table.schema_name, table.table_name): table for table in after.tables}
    found, not_compared = [], []
    for name in sorted({*old, *new}):
        pair = (old.get(name), new.get(name))
        if all(table is None or table.kind is TableKind.FOREIGN for table in pair):
            continue
        try:
            with then.transaction(), now.transaction():
                found.append(_table(sides, name, *pair))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ProgramLimitExceeded) as error:
            not_compared.append(f"{_text(name)}: {error.diag.message_primary or error}")
    return found, not_compared


def _table(
    sides: _Sides, name: tuple[str, str], was: TableFingerprint | None, is_now: TableFingerprint | None
) -> TablePreview:
    counts = _count(sides.then, was), _count(sides.now, is_now)
    if was is None or is_now is None:
        return TablePreview(_text(name), *counts, counts[0] or 0, counts[1] or 0, 0)
    if name == LARGE_OBJECTS:
        large = compare_large_objects(sides.then, sides.now)
        return TablePreview(_text(name), *counts, large.only_then, large.only_now, large.changed, large.keys)
    ours, theirs = (table_columns(side, sql.Identifier(*name).as_string()) for side in (sides.then, sides.now))
    difference = _difference(sides, name, (was, is_now), (counts[0] or 0, counts[1] or 0))
    return TablePreview(
        _text(name),
        *counts,
        difference.only_then,
        difference.only_now,
        difference.changed,
        difference.keys,
        [column for column in ours if column not in theirs],
        [column for column in theirs if column not in ours],
    )


def _difference(
    sides: _Sides, name: tuple[str, str], pair: tuple[TableFingerprint, TableFingerprint], counts: tuple[int, int]
) -> RowDifference:
    before, after = ((table.row_count, table.content_hash) for table in pair)
    if before[1] is not None and before == after:
        return _NOTHING
    if 0 in counts:
        return RowDifference(*counts, 0)
    schema, table = name
    return compare_rows(sides.then, sides.now, schema, table)


def _count(session: psycopg.Connection[Any], table: TableFingerprint | None) -> int | None:
    """Its rows; the fingerprint counts neither materialized views, nor unlogged tables, nor those of extensions."""
    if table is None or table.row_count is not None:
        return table.row_count if table is not None else None
    name = sql.Identifier(table.schema_name, table.table_name)
    readable = session.execute(_HAS_ROWS, (name.as_string(),)).fetchone()
    if readable is None or not readable[0] or table.kind is TableKind.FOREIGN:
        return 0
    row = session.execute(sql.SQL("SELECT pg_catalog.count(*) FROM ONLY {}").format(name)).fetchone()
    return int(row[0]) if row is not None else 0


def _text(name: tuple[str, str]) -> str:
    return "large objects" if name == LARGE_OBJECTS else ".".join(name)
