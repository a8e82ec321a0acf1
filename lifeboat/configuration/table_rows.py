"""Statements about rows named by their keys; values travel as JSON, read the same way as in `restore.sql`."""

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from lifeboat.configuration.content import Key, RowsSection
from lifeboat.configuration.index import Target
from lifeboat.configuration.jsontext import Row, render_row
from lifeboat.configuration.restore_sql import source_columns
from lifeboat.configuration.rows import Bounds, read_rows
from lifeboat.configuration.tables import Reference


def json_rows(target: Target, columns: Sequence[str], rows: Iterable[Row]) -> sql.Composable:
    """A subquery of these columns of the rows, typed as the table's columns are now."""
    return sql.SQL(
        "(SELECT {columns} FROM pg_catalog.json_array_elements({rows}::json) AS item(value),"
        " pg_catalog.json_populate_record(NULL::{table}, item.value) AS r)"
    ).format(
        columns=source_columns(target, columns),
        rows=sql.Literal("[" + ",".join(render_row(row) for row in rows) + "]"),
        table=identifier(target),
    )


def identifier(target: Target) -> sql.Identifier:
    """The table's name for a statement."""
    return sql.Identifier(target.schema_name, target.table_name)


def same_key(key_columns: Sequence[str]) -> sql.Composable:
    """`live` and `archived` are the same item."""
    return sql.SQL(" AND ").join(
        sql.SQL("live.{0} = archived.{0}").format(sql.Identifier(name)) for name in key_columns
    )


def as_rows(keys: Iterable[Key], key_columns: Sequence[str]) -> list[Row]:
    """Keys as rows of the key columns alone."""
    return [dict(zip(key_columns, key, strict=True)) for key in keys]


def read_by_key(
    connection: psycopg.Connection[Any], section: RowsSection, target: Target, bounds: Bounds
) -> RowsSection:
    """The table's rows that have the keys of a section's rows; inside a transaction with fixed settings."""
    columns = sql.SQL(", ").join(sql.SQL("live.{}").format(sql.Identifier(name)) for name in target.columns)
    wanted = json_rows(target, section.key_columns, as_rows(section.by_key(), section.key_columns))
    query = sql.SQL("SELECT {} FROM {} AS live JOIN {} AS archived ON {}").format(
        columns, identifier(target), wanted, same_key(section.key_columns)
    )
    return read_rows(
        connection, target.table_name, query, key_columns=section.key_columns, kind=section.kind, bounds=bounds
    )


def count_references(
    connection: psycopg.Connection[Any], target: Target, key_columns: Sequence[str], key: Key, reference: Reference
) -> int:
    """How many rows of another table refer to the row with this key."""
    table = sql.Identifier(reference.schema_name, reference.table_name)
    pairs = zip(reference.columns, reference.referenced, strict=True)
    refers = sql.SQL(" AND ").join(
        sql.SQL("referring.{} = live.{}").format(sql.Identifier(ours), sql.Identifier(theirs)) for ours, theirs in pairs
    )
    query = sql.SQL("SELECT pg_catalog.count(*) FROM {} AS referring JOIN {} AS live ON {} JOIN {} AS archived ON {}")
    wanted = json_rows(target, key_columns, as_rows([key], key_columns))
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = cursor.execute(
            query.format(table, identifier(target), refers, wanted, same_key(key_columns))
        ).fetchone()
    return int(found[0]) if found is not None else 0
