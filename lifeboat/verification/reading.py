"""Read all of a restored database once: every page of every table and what it keeps out of line, and amcheck."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from lifeboat import commands
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import ConnectionInfo, connect

_MAX_PROBLEMS = 100

# TOAST tables are read through their tables, large objects as pg_largeobject. Catalog tables are for superusers only.
_TABLES = """
SELECT n.nspname, c.relname, pg_catalog.pg_table_size(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND (c.relkind = 'r' OR c.relispopulated)
  AND (n.nspname <> 'pg_catalog' OR pg_catalog.current_setting('is_superuser')::bool)
ORDER BY n.nspname, c.relname
"""
_MAY_WRITE_FILES = "SELECT pg_catalog.pg_has_role('pg_write_server_files', 'USAGE')"


@dataclass(frozen=True)
class ReadProblem:
    """A table that could not be read to its end, and the server's words."""

    table: str
    error: str


@dataclass(frozen=True)
class FullRead:
    """What was read: `size_bytes` is the size of the tables, TOAST included, as they lie on disk."""

    tables: int
    size_bytes: int
    problems: tuple[ReadProblem, ...]
    duration_seconds: float

    @property
    def passed(self) -> bool:
        """Whether every table could be read to its end."""
        return not self.problems


@dataclass(frozen=True)
class ReadProgress:
    """What is done before `table` is read; sizes in bytes."""

    table: str
    done_tables: int
    total_tables: int
    done_bytes: int
    total_bytes: int


def read_tables(
    connection: psycopg.Connection[Any], *, on_progress: Callable[[ReadProgress], None] | None = None
) -> FullRead:
    """Read each table and materialized view of the connected database to its end, row by row, with its TOAST.

    COPY makes the server fetch, decompress and print each value, where count(*) leaves TOAST alone. A table that fails
    is a problem, not an exception; after a lost connection the rest is given up. The connection must be outside a
    transaction, whose settings it keeps.
    """
    began = time.monotonic()
    problems: list[ReadProblem] = []
    with connection.cursor(row_factory=tuple_row) as cursor:
        tables = cursor.execute(_TABLES).fetchall()
        (to_null_device,) = cursor.execute(_MAY_WRITE_FILES).fetchone() or (False,)
    if not connection.autocommit:
        connection.rollback()
    total = sum(size or 0 for _, _, size in tables)
    done = 0
    for index, (schema, name, size) in enumerate(tables):
        if on_progress is not None:
            on_progress(ReadProgress(f"{schema}.{name}", index, len(tables), done, total))
        try:
            _read(connection, sql.Identifier(schema, name), to_null_device=to_null_device)
        except psycopg.Error as error:
            problems.append(ReadProblem(f"{schema}.{name}", _said(error)))
            if connection.broken:
                break
        done += size or 0
    return FullRead(len(tables), done, tuple(problems), time.monotonic() - began)


def _said(error: psycopg.Error) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _read(connection: psycopg.Connection[Any], table: sql.Identifier, *, to_null_device: bool) -> None:
    try:
        _copy(connection, table, to_null_device=to_null_device, text_format="binary")
    except psycopg.errors.UndefinedFunction:
        # A type without a send function. Text is the second choice: a large bytea would not fit its 1 GB.
        _copy(connection, table, to_null_device=to_null_device, text_format="text")


def _copy(
    connection: psycopg.Connection[Any], table: sql.Identifier, *, to_null_device: bool, text_format: str
) -> None:
    rows = sql.SQL("COPY (SELECT * FROM ONLY {}) TO {} (FORMAT {})")
    # In the server nothing has to be sent to us; a role that may not write files there has it sent and thrown away.
    where = sql.Literal("/dev/null") if to_null_device else sql.SQL("STDOUT")
    statement = rows.format(table, where, sql.SQL(text_format))
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL row_security = off")
        if to_null_device:
            cursor.execute(statement)
            return
        with cursor.copy(statement) as stream:
            for _ in stream:
                pass


class AmcheckStatus(StrEnum):
    """What pg_amcheck found."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class AmcheckResult:
    """The outcome: the first problems in pg_amcheck's words, or why it did not run."""

    status: AmcheckStatus
    problems: tuple[str, ...]
    reason: str | None
    duration_seconds: float


def check_structure(
    tools: PgTools, database: ConnectionInfo, *, timeout_seconds: float | None, jobs: int = 1
) -> AmcheckResult:
    """Run pg_amcheck with every row looked up in every index, where the program and its extension are there.

    The extension is created in the checked database if it is missing, so compare extensions before. Raises
    CommandFailed when pg_amcheck could not run to its end, CommandTimeout.
    """
    began = time.monotonic()
    missing = _what_is_missing(tools, database)
    if missing is not None:
        return AmcheckResult(AmcheckStatus.NOT_AVAILABLE, (), missing, time.monotonic() - began)
    arguments = ["--install-missing", "--heapallindexed", f"--jobs={jobs}", str(database.database)]
    done = tools.run("pg_amcheck", arguments, connection=database, timeout_seconds=timeout_seconds, accept=(0, 2))
    problems = tuple(_problems(done.stdout))
    status = AmcheckStatus.FAILED if done.returncode else AmcheckStatus.PASSED
    return AmcheckResult(status, problems[:_MAX_PROBLEMS], None, time.monotonic() - began)


def _what_is_missing(tools: PgTools, database: ConnectionInfo) -> str | None:
    try:
        tools.path("pg_amcheck")
    except commands.ToolMissing as error:
        return error.message
    with connect(database, autocommit=True) as connection:
        row = connection.execute("SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'").fetchone()
    return None if row is not None else "the server has no extension amcheck (it comes with PostgreSQL's contrib)"


def _problems(printed: str) -> Iterator[str]:
    """Each finding in one line: pg_amcheck names the relation, then says what is wrong in indented lines."""
    finding = ""
    for line in printed.splitlines():
        if line.startswith(" "):
            finding += f" {line.strip()}"
        else:
            if finding:
                yield finding
            finding = line
    if finding:
        yield finding
