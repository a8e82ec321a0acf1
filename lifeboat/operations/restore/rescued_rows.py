"""Rows of one table brought from one server into a table of their own on another, and told apart from the live ones."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.engines.engine import Progress
from lifeboat.operations.preview.compared_rows import primary_key, table_columns
from lifeboat.recovery.targets import TargetUnreadable

_SAMPLES = 20
# A type's name as SQL from anywhere, the search path being fixed, and whether PostgreSQL itself brings it.
_DEFINITIONS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
       t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_WRITABLE = """
SELECT a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
 WHERE c.oid = pg_catalog.to_regclass(%s) AND c.relkind IN ('r', 'p')
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
"""
_IS_THERE = "SELECT pg_catalog.to_regtype(%s) IS NOT NULL"
_SCHEMA_IS_THERE = "SELECT pg_catalog.to_regnamespace(%s) IS NOT NULL"
_TEXT = "text"
NOTHING: dict[str, Any] = {"only_rescued": None, "only_live": None, "different": None}


@dataclass(frozen=True)
class Column:
    """A column as it was: its type as SQL, and whether that is one of the platform's or of an extension."""

    name: str
    type: str
    own_type: bool


@dataclass(frozen=True)
class RescuedRows:
    """Where the rows are now. `as_text` are the columns whose types the live database does not have as they were."""

    schema: str
    name: str
    rows: int
    as_text: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)

    @property
    def table(self) -> sql.Identifier:
        """The table, for SQL."""
        return sql.Identifier(self.schema, self.name)


def parse_table(text: str) -> tuple[str, str]:
    """Schema and name of `schema.table`; with double quotes as in SQL, else as they are. Raises TargetUnreadable."""
    schema, rest = _part(text)
    name, after = _part(rest[1:], last=True)
    if not (schema and rest.startswith(".") and name) or after:
        raise TargetUnreadable(
            f"{text!r} is not SCHEMA.TABLE", hint='For example `public.characters` or `"My schema"."My.table"`.'
        )
    return schema, name


def _part(text: str, *, last: bool = False) -> tuple[str, str]:
    if not text.startswith('"'):
        schema, dot, rest = (text, "", "") if last else text.partition(".")
        return schema, dot + rest
    end = 1
    while (end := text.find('"', end)) >= 0:
        if text[end + 1 : end + 2] != '"':
            return text[1:end].replace('""', '"'), text[end + 1 :]
        end += 2
    return "", text


def columns_of(session: psycopg.Connection[Any], name: str) -> list[Column]:
    """The columns of a table; `name` as to_regclass takes it."""
    return [Column(str(row[0]), str(row[1]), bool(row[2])) for row in session.execute(_DEFINITIONS, (name,)).fetchall()]


def copy_rows(
    then: psycopg.Connection[Any],
    live: psycopg.Connection[Any],
    table: tuple[str, str],
    began: datetime,
    on_amount: Callable[[Progress], None] | None,
) -> RescuedRows:
    """Copy a table into a new schema of the live database and commit; all of it or nothing is there then.

    Types that the live database has no longer, or not as they were, become text: a dropped enumeration or extension
    must not keep the rows away. `then` is rolled back. Raises psycopg.Error.
    """
    columns = columns_of(then, sql.Identifier(*table).as_string())
    own = frozenset(column.name for column in columns if column.own_type)
    missing = frozenset(column.name for column in columns if not _has_type(live, column))
    try:
        return _copy(then, live, table, columns, missing, began, on_amount)
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError):
        if own <= missing:
            raise
    then.rollback()
    return _copy(then, live, table, columns, own, began, on_amount)


def _has_type(live: psycopg.Connection[Any], column: Column) -> bool:
    row = live.execute(_IS_THERE, (column.type,)).fetchone() if column.own_type else (True,)
    return row is not None and bool(row[0])


def _copy(  # noqa: PLR0913 - both sides, what, how, and who is told
    then: psycopg.Connection[Any],
    live: psycopg.Connection[Any],
    table: tuple[str, str],
    columns: list[Column],
    as_text: frozenset[str],
    began: datetime,
    on_amount: Callable[[Progress], None] | None,
) -> RescuedRows:
    live.rollback()
    with live.transaction():
        schema = _new_schema(live, began)
        rescued = sql.Identifier(schema, table[1])
        # Plain columns: no default, generated column, constraint or trigger of the original changes or refuses a value.
        definitions = [
            # The type's name is SQL already, see _DEFINITIONS.
            sql.SQL("{} {}").format(sql.Identifier(each.name), sql.SQL(_TEXT if each.name in as_text else each.type))
            for each in columns
        ]
        live.execute(sql.SQL("CREATE TABLE {} ({})").format(rescued, sql.SQL(", ").join(definitions)))
        rows = _stream(then, live, sql.Identifier(*table), rescued, columns, on_amount)
        notes = [f"column {name} is text: its type is not as it was" for name in sorted(as_text)]
        notes += _add_key(live, rescued, primary_key(then, sql.Identifier(*table).as_string()))
    then.rollback()
    return RescuedRows(schema, table[1], rows, as_text, notes)


def _new_schema(live: psycopg.Connection[Any], began: datetime) -> str:
    wanted, number = f"rescue_{began:%Y%m%d_%H%M%S}", 1
    schema = wanted
    while (row := live.execute(_SCHEMA_IS_THERE, (schema,)).fetchone()) is not None and row[0]:
        number += 1
        schema = f"{wanted}_{number}"
    live.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    return schema


def _stream(  # noqa: PLR0913 - both sides and their tables
    then: psycopg.Connection[Any],
    live: psycopg.Connection[Any],
    source: sql.Identifier,
    rescued: sql.Identifier,
    columns: list[Column],
    on_amount: Callable[[Progress], None] | None,
) -> int:
    """Copy in bounded memory; returns the number of rows."""
    names = sql.SQL(", ").join(sql.Identifier(each.name) for each in columns)
    # A SELECT, so that a parent brings the rows of its partitions and children too.
    read = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(names, source)
    write = sql.SQL("COPY {} ({}) FROM STDIN").format(rescued, names)
    done = 0
    with then.cursor() as reading, live.cursor() as writing:
        with reading.copy(read) as blocks, writing.copy(write) as sink:
            for block in blocks:
                sink.write(block)
                done += len(block)
                if on_amount is not None:
                    on_amount(Progress(done, None))
        return max(writing.rowcount, 0)


def _add_key(live: psycopg.Connection[Any], rescued: sql.Identifier, key: list[str]) -> list[str]:
    if not key:
        return []
    alike = sql.SQL(", ").join(map(sql.Identifier, key))
    try:
        with live.transaction():
            live.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(rescued, alike))
    except psycopg.Error as error:
        # Children of an inheritance parent may repeat its keys.
        return [f"the rescued rows have no primary key: {error.diag.message_primary or error}"]
    return []


def compare(live: psycopg.Connection[Any], table: tuple[str, str], rescued: RescuedRows) -> dict[str, Any]:
    """The counts, samples of keys and notes, by a query in the live database; what cannot be compared is noted."""
    try:
        with live.transaction():
            return _compare(live, sql.Identifier(*table), rescued)
    except psycopg.Error as error:
        return {**NOTHING, "notes": [f"they cannot be compared: {error.diag.message_primary or error}"]}


def _compare(live: psycopg.Connection[Any], original: sql.Identifier, rescued: RescuedRows) -> dict[str, Any]:
    theirs = table_columns(live, original.as_string())
    if not theirs:
        return {**NOTHING, "notes": ["the table is not there any more: every row is only among the rescued"]}
    ours = table_columns(live, rescued.table.as_string())
    shared = [column for column in ours if column in theirs]
    notes = [f"the live table has no column {column}: it was not compared" for column in ours if column not in theirs]
    notes += [
        f"the live table's column {column} is new: it was not compared" for column in theirs if column not in ours
    ]
    key = primary_key(live, rescued.table.as_string())
    if not key or key != primary_key(live, original.as_string()):
        notes.append("without the same primary key on both sides, whole rows were compared")
        return {**_by_rows(live, original, rescued.table, shared), "notes": notes}
    return {**_by_key(live, original, rescued, key, shared), "notes": notes}


def _by_key(
    live: psycopg.Connection[Any], original: sql.Identifier, rescued: RescuedRows, key: list[str], shared: list[str]
) -> dict[str, Any]:
    def of(side: str, columns: list[str]) -> sql.Composed:
        return sql.SQL(", ").join(sql.Identifier(side, column) for column in columns)

    same = [
        sql.SQL("{}::text = {}::text" if name in rescued.as_text else "{} = {}").format(
            sql.Identifier("r", name), sql.Identifier("l", name)
        )
        for name in key
    ]
    # Counted and sampled apart: an array of every key that differs could be larger than the server's memory.
    differing = sql.SQL(
        "(SELECT CASE WHEN {r_first} IS NULL THEN ROW({l_key})::text ELSE ROW({r_key})::text END AS name,"
        " CASE WHEN {l_first} IS NULL THEN 'only_rescued' WHEN {r_first} IS NULL THEN 'only_live'"
        " WHEN ROW({r})::text IS DISTINCT FROM ROW({l})::text THEN 'different' END AS kind"
        " FROM {rescued} r FULL JOIN {live} l ON {same}) d"
    ).format(
        r_first=sql.Identifier("r", key[0]),
        l_first=sql.Identifier("l", key[0]),
        r_key=of("r", key),
        l_key=of("l", key),
        r=of("r", shared),
        l=of("l", shared),
        rescued=rescued.table,
        live=original,
        same=sql.SQL(" AND ").join(same),
    )
    counts: dict[str, Any] = dict.fromkeys(NOTHING, 0)
    keys: dict[str, list[str]] = {}
    counting = sql.SQL("SELECT kind, count(*) FROM {} WHERE kind IS NOT NULL GROUP BY kind").format(differing)
    sampling = sql.SQL("SELECT name FROM {} WHERE kind = {} LIMIT {}")
    for kind, count in live.execute(counting).fetchall():
        counts[kind] = count
        some = sampling.format(differing, sql.Literal(kind), sql.Literal(_SAMPLES))
        keys[kind] = [name for (name,) in live.execute(some).fetchall()]
    return {**counts, "keys": keys}


def _by_rows(
    live: psycopg.Connection[Any], original: sql.Identifier, rescued: sql.Identifier, shared: list[str]
) -> dict[str, Any]:
    """How many rows each side has more often than the other; equal ones cannot be told apart."""
    row = sql.SQL("pg_catalog.md5(ROW({})::text)").format(sql.SQL(", ").join(map(sql.Identifier, shared)))
    query = sql.SQL(
        "SELECT coalesce(sum(greatest(r - l, 0)), 0)::bigint, coalesce(sum(greatest(l - r, 0)), 0)::bigint"
        " FROM (SELECT count(*) FILTER (WHERE rescued) AS r, count(*) FILTER (WHERE NOT rescued) AS l FROM ("
        "SELECT {row} AS value, true AS rescued FROM {ours} UNION ALL SELECT {row}, false FROM {theirs}"
        ") s GROUP BY value) d"
    ).format(row=row, ours=rescued, theirs=original)
    found = live.execute(query).fetchone() or (None, None)
    return {"only_rescued": found[0], "only_live": found[1], "different": None}


def how_to_put_back(live: psycopg.Connection[Any], table: tuple[str, str], rescued: RescuedRows) -> list[str]:
    """The SQL that brings missing rows, or a table that is gone, back into the live database; nothing is run.

    Nothing either where the live table may not be looked at: then it could not be compared, which was noted.
    """
    try:
        return _how_to_put_back(live, table, rescued)
    except psycopg.Error:
        return []
    finally:
        live.rollback()


def _how_to_put_back(live: psycopg.Connection[Any], table: tuple[str, str], rescued: RescuedRows) -> list[str]:
    original = sql.Identifier(*table)
    ours, theirs = columns_of(live, rescued.table.as_string()), columns_of(live, original.as_string())
    writable = {str(row[0]) for row in live.execute(_WRITABLE, (original.as_string(),)).fetchall()}
    if not theirs:
        makes = sql.SQL("{}CREATE TABLE {} (LIKE {} INCLUDING ALL); INSERT INTO {} TABLE {};")
        schema = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}; ").format(sql.Identifier(table[0]))
        words = makes.format(schema, original, rescued.table, original, rescued.table).as_string()
        return [f"Make the table again; only columns, primary key and rows are in it, no defaults or rights: {words}"]
    there = {column.name: column for column in theirs}
    shared = [column for column in ours if column.name in writable]
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in shared)
    values = sql.SQL(", ").join(
        # The type's name is SQL already, see _DEFINITIONS.
        sql.SQL("{}::{}").format(sql.Identifier(column.name), sql.SQL(there[column.name].type))
        if column.name in rescued.as_text
        else sql.Identifier(column.name)
        for column in shared
    )
    key = primary_key(live, original.as_string())
    if not shared:
        return []  # a materialized view
    if not key:
        return ["The live table has no primary key: compare before you insert, or rows come twice"]
    insert = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} ON CONFLICT DO NOTHING;")
    return [
        "Put the missing rows back, and leave those alone whose key is there: "
        + insert.format(original, names, values, rescued.table).as_string()
    ]
