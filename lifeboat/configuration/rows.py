"""Reads rows so that PostgreSQL itself renders every value to JSON, without loss, in a session of fixed settings.

Integers and booleans become JSON numbers and booleans, json and jsonb stay as they are, dates and times are ISO 8601 in
UTC, bytea is `\\x` and hexadecimal digits, arrays are JSON arrays, and any other type (numeric, uuid, enum, interval,
range, composite …) is its own text. `json_populate_record` reads all of these back, so psql alone can restore them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from lifeboat.configuration.content import RowsSection, in_key_order
from lifeboat.configuration.index import ConfigurationError, Source, Target
from lifeboat.configuration.jsontext import Row

# With row_security off a policy that would hide rows is an error: a part of the rows must not look like all of them.
_SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "lc_monetary": "C",
    "row_security": "off",
    "client_encoding": "UTF8",
}
_TYPES = """
SELECT pg_catalog.format_type(t.oid, c.typmod),
       CASE WHEN t.typelem <> 0 AND t.typcategory = 'A' THEN t.typelem ELSE t.oid END::regtype::text,
       t.typelem <> 0 AND t.typcategory = 'A'
FROM unnest(%s::oid[], %s::int[]) WITH ORDINALITY AS c(oid, typmod, place)
JOIN pg_catalog.pg_type t ON t.oid = c.oid
ORDER BY c.place
"""
_NATIVE = frozenset({"boolean", "smallint", "integer", "bigint"})
_DATES = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})
_JSON = frozenset({"json", "jsonb"})


@dataclass(frozen=True)
class Bounds:
    """What a read may take: most rows, and most bytes of their JSON text."""

    items: int
    bytes: int


@dataclass(frozen=True)
class _ColumnType:
    name: str
    type_name: str
    element: str
    is_array: bool

    @property
    def expression(self) -> sql.Composable:
        """The column `item.<name>` as JSON text."""
        value = sql.SQL("item.{}").format(sql.Identifier(self.name))
        as_is = sql.SQL("pg_catalog.to_json({})::text").format(value)
        as_text = sql.SQL("pg_catalog.to_json({}::text)::text").format(value)
        if not self.is_array:
            if self.element in _JSON:
                return sql.SQL("{}::text").format(value)
            return as_is if self.element in _NATIVE | _DATES else as_text
        # JSON arrays know no lower bounds, and in an array of JSON a null could be either kind: the literal has it all.
        if self.element in _JSON:
            return as_text
        elements = (
            as_is if self.element in _NATIVE | _DATES else sql.SQL("pg_catalog.to_json({}::text[])::text").format(value)
        )
        return sql.SQL(
            "CASE WHEN pg_catalog.cardinality({0}) = 0 THEN '[]'"
            r" WHEN pg_catalog.array_dims({0}) ~ '^(\[1:\d+\])+$' THEN {1} ELSE {2} END"
        ).format(value, elements, as_text)


@contextmanager
def snapshot(
    connection: psycopg.Connection[Any], *, search_path: Sequence[str], statement_timeout_seconds: float
) -> Iterator[None]:
    """One read-only transaction in which everything is seen at one moment."""
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is inside a transaction")
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        fix_session(connection, search_path=search_path, statement_timeout_seconds=statement_timeout_seconds)
        yield


def fix_session(
    connection: psycopg.Connection[Any], *, search_path: Sequence[str], statement_timeout_seconds: float
) -> None:
    """Until the end of the transaction: settings under which values read the same whoever asks, and wherever."""
    settings = _SESSION | {"statement_timeout": f"{round(statement_timeout_seconds * 1000)}ms"}
    path = sql.SQL(", ").join(sql.Identifier(name) for name in search_path).as_string(connection)
    for name, value in {**settings, "search_path": path}.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", [name, value])


def read_rows(  # noqa: PLR0913 - what a section is made of
    connection: psycopg.Connection[Any],
    name: str,
    query: sql.Composable,
    *,
    key_columns: tuple[str, ...],
    kind: str,
    bounds: Bounds,
    source: Source = "query",
    target: Target | None = None,
) -> RowsSection:
    """Read a section of rows inside `snapshot`. Raises ConfigurationError that names the section."""
    try:
        with connection.transaction():
            types = _column_types(connection, name, query)
            rows = list(_rows(connection, query, types, name, bounds))
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).strip() or type(error).__name__
        raise ConfigurationError(
            f"cannot read the section {name}: {said}",
            hint="Run the section's query in psql as the role of the connection, and correct it or the role's rights.",
        ) from error
    missing = [column for column in key_columns if column not in {each.name for each in types}]
    if missing:
        raise ConfigurationError(
            f"the section {name} has no column {missing[0]}, which its key_columns name",
            hint=f"The query gives {', '.join(each.name for each in types)}.",
        )
    ordered = in_key_order(name, rows, key_columns)
    return RowsSection(source, kind, {each.name: each.type_name for each in types}, key_columns, ordered, target)


def _column_types(connection: psycopg.Connection[Any], name: str, query: sql.Composable) -> list[_ColumnType]:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(sql.SQL("SELECT * FROM ({}\n) AS item LIMIT 0").format(query))
        result, described = cursor.pgresult, cursor.description or []
        names = [column.name for column in described]
        oids = [column.type_code for column in described]
        typmods = [result.fmod(at) for at in range(len(names))] if result is not None else []
        if len(set(names)) != len(names):
            raise ConfigurationError(
                f"the section {name} has two columns of one name", hint="Give them names of their own with AS."
            )
        # format_type leaves the schema out where the search path would find the type.
        path = cursor.execute("SELECT pg_catalog.current_setting('search_path')").fetchone()
        cursor.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog', true)")
        types = cursor.execute(_TYPES, [oids, typmods]).fetchall()
        cursor.execute("SELECT pg_catalog.set_config('search_path', %s, true)", path)
    return [_ColumnType(column, *found) for column, found in zip(names, types, strict=True)]


def _rows(
    connection: psycopg.Connection[Any], query: sql.Composable, types: list[_ColumnType], name: str, bounds: Bounds
) -> Iterator[Row]:
    columns = sql.SQL(", ").join(column.expression for column in types)
    statement = sql.SQL("SELECT {} FROM ({}\n) AS item").format(columns, query)
    taken = size_bytes = 0
    with connection.cursor(name="lifeboat_configuration", row_factory=tuple_row) as cursor:
        cursor.itersize = 500
        for values in cursor.execute(statement):
            taken += 1
            size_bytes += sum(len(value) for value in values if value is not None)
            if taken > bounds.items or size_bytes > bounds.bytes:
                raise ConfigurationError(
                    f"the section {name} has more than {bounds.items} items or {bounds.bytes} bytes",
                    hint="This looks like data, not configuration: narrow the query, or raise the limit in settings.",
                )
            yield {each.name: value for each, value in zip(types, values, strict=True) if value is not None}
