"""Rows of one table in two databases, told apart by key in bounded memory: both sides come sorted, and are merged."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg import sql

_FETCHED_ROWS = 5000
_SAMPLES = 20
_COLUMNS = """
SELECT a.attname FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname
"""
_KEY = """
SELECT a.attname FROM pg_catalog.pg_index i
  CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = pg_catalog.to_regclass(%s) AND i.indisprimary ORDER BY k.place
"""


# A sum over the pages takes no more memory for a large object of terabytes than for a small one.
_LARGE_OBJECTS = """
SELECT m.oid::text COLLATE "C" AS name, pg_catalog.concat_ws(' ', pg_catalog.pg_get_userbyid(m.lomowner), m.lomacl,
    (SELECT pg_catalog.sum(pg_catalog.hashtextextended(p.pageno || ' ' || pg_catalog.md5(p.data), 0))
       FROM pg_catalog.pg_largeobject p WHERE p.loid = m.oid)) AS value
  FROM pg_catalog.pg_largeobject_metadata m ORDER BY 1, 2
"""
Row = tuple[str, str]
Query = sql.SQL | sql.Composed


@dataclass(frozen=True)
class RowDifference:
    """How many rows only one side has, and how many both have with other values; None where there is no key.

    `keys` are some of the primary keys of each kind, as PostgreSQL's text of a row.
    """

    only_then: int
    only_now: int
    changed: int | None
    keys: dict[str, list[str]] = field(default_factory=dict)


def table_columns(session: psycopg.Connection[Any], table: str) -> list[str]:
    """The columns of a table by name; `table` as to_regclass takes it. None where it is not there."""
    return [str(row[0]) for row in session.execute(_COLUMNS, (table,)).fetchall()]


def primary_key(session: psycopg.Connection[Any], table: str) -> list[str]:
    """The primary key's columns, in order."""
    return [str(row[0]) for row in session.execute(_KEY, (table,)).fetchall()]


def compare_rows(
    then: psycopg.Connection[Any], now: psycopg.Connection[Any], schema: str, name: str, *, only: bool = True
) -> RowDifference:
    """Compare a table by its primary key, or by whole rows where both sides do not have the same key.

    Columns of both sides count; where they share none, only how many rows there are. With `only` an inheritance
    parent's children are left out. Both connections are in a transaction. Raises psycopg.Error.
    """
    table = sql.Identifier(schema, name).as_string()
    ours, theirs = table_columns(then, table), table_columns(now, table)
    columns = [column for column in ours if column in theirs]
    key = primary_key(then, table)
    keyed = bool(key) and key == primary_key(now, table)
    query = _rows_query(sql.Identifier(schema, name), key if keyed else [], columns, only=only)
    found = _compare(then, now, query)
    return found if keyed else replace(found, changed=None, keys={})


def compare_large_objects(then: psycopg.Connection[Any], now: psycopg.Connection[Any]) -> RowDifference:
    """Compare large objects by OID: contents, owners and privileges; raises psycopg.Error, InsufficientPrivilege."""
    return _compare(then, now, sql.SQL(_LARGE_OBJECTS))


def _compare(
    then: psycopg.Connection[Any], now: psycopg.Connection[Any], query: sql.SQL | sql.Composed
) -> RowDifference:
    count = {"only_then": 0, "only_now": 0, "changed": 0}
    keys: dict[str, list[str]] = {kind: [] for kind in count}
    # Closed before an error leaves the caller's savepoint: their cursors are gone behind it.
    with closing(_rows(then, query)) as old, closing(_rows(now, query)) as new:
        for kind, text in _merged(old, new):
            count[kind] += 1
            if len(keys[kind]) < _SAMPLES:
                keys[kind].append(text)
    return RowDifference(count["only_then"], count["only_now"], count["changed"], keys)


def _rows_query(table: sql.Identifier, key: Sequence[str], columns: Sequence[str], *, only: bool) -> sql.Composed:
    """Each row's key as text, or a digest of it where there is none, and a digest of its values; sorted by bytes."""
    whole = sql.SQL("pg_catalog.md5(ROW({})::text)").format(sql.SQL(", ").join(map(sql.Identifier, columns)))
    name = sql.SQL("ROW({})::text").format(sql.SQL(", ").join(map(sql.Identifier, key))) if key else whole
    return sql.SQL('SELECT {} COLLATE "C" AS name, {} AS value FROM {} {} ORDER BY 1, 2').format(
        name, whole, sql.SQL("ONLY" if only else ""), table
    )


def _rows(session: psycopg.Connection[Any], query: Query) -> Generator[Row]:
    with session.cursor("lifeboat_compared") as cursor:
        cursor.itersize = _FETCHED_ROWS
        cursor.execute(query)
        for found in cursor:
            yield str(found[0]), str(found[1])


def _merged(then: Iterator[Row], now: Iterator[Row]) -> Iterator[tuple[str, str]]:
    """What differs, of two sides sorted alike: ("only_then" | "only_now" | "changed", key)."""
    old, new = next(then, None), next(now, None)
    while old is not None or new is not None:
        if new is None or (old is not None and _order(old) < _order(new)):
            yield "only_then", old[0] if old is not None else ""
            old = next(then, None)
        elif old is None or _order(new) < _order(old):
            yield "only_now", new[0]
            new = next(now, None)
        else:
            if old[1] != new[1]:
                yield "changed", old[0]
            old, new = next(then, None), next(now, None)


def _order(row: Row) -> bytes:
    # The order of the collation "C" in a UTF-8 database.
    return row[0].encode()
