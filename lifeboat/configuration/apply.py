"""Carries out a plan: all rows in one transaction, then the files, then the commit; all of it or nothing."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from lifeboat.configuration.content import label_of
from lifeboat.configuration.file_writer import FileWriter
from lifeboat.configuration.index import ConfigurationError
from lifeboat.configuration.jsontext import Row
from lifeboat.configuration.plan import ApplyPlan, RowChange, RowsPlan
from lifeboat.configuration.planning import plan_inside
from lifeboat.configuration.restore_sql import raise_sequences
from lifeboat.configuration.rows import fix_session
from lifeboat.configuration.table_rows import as_rows, count_references, identifier, json_rows, same_key
from lifeboat.configuration.tables import describe_table
from lifeboat.errors import PermanentError, TransientError


class LiveChanged(PermanentError):
    """The platform is not as it was when the plan was made."""


class ApplyFailed(PermanentError):
    """The database refused a change; nothing was changed."""


class TablesBusy(TransientError):
    """Somebody else writes to the tables; nothing was changed."""


@dataclass(frozen=True)
class Applied:
    """What was changed, counted; `keep_in` has the files that were replaced."""

    inserted_count: int
    updated_count: int
    removed_count: int
    file_count: int
    keep_in: Path | None


def apply(
    plan: ApplyPlan, connection: psycopg.Connection[Any], *, keep_in: Path, lock_timeout_seconds: float = 10
) -> Applied:
    """Do what the plan says, if the platform is still as the plan found it; otherwise nothing.

    Replaced and removed files go to `keep_in`, a new folder, from where `undo_files` brings them back.
    Raises LiveChanged, ApplyFailed, TablesBusy, ConfigurationError.
    """
    if connection.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("the connection is inside a transaction")
    if keep_in.exists() and any(keep_in.iterdir()):
        raise ConfigurationError(f"{keep_in} is not empty", hint="Name a new folder for the files that are replaced.")
    writer = FileWriter(keep_in)
    try:
        with connection.transaction():
            _begin(plan, connection, lock_timeout_seconds)
            _check_unchanged(plan, connection)
            _write_rows(plan, connection)
            for files in plan.files:
                for action in files.actions:
                    writer.apply(files.section, files.root, action)
    except psycopg.errors.LockNotAvailable as error:
        raise TablesBusy(
            f"the tables of the configuration are in use for more than {lock_timeout_seconds:g} s",
            hint="Try again in a quiet moment, or look at pg_stat_activity.",
        ) from error
    except BaseException as error:
        writer.undo()
        if isinstance(error, psycopg.Error):
            raise ApplyFailed(_explain(error), hint=_HINT) from error
        raise
    file_count = sum(len(files.actions) for files in plan.files)
    return Applied(
        inserted_count=sum(len(rows.inserts) for rows in plan.rows),
        updated_count=sum(len(rows.updates) for rows in plan.rows),
        removed_count=sum(len(rows.removals) for rows in plan.rows),
        file_count=file_count,
        keep_in=keep_in if file_count else None,
    )


_HINT = "Nothing was changed. A row that is only live may be in the way: look at the plan, or apply with pruning."


def _explain(error: psycopg.Error) -> str:
    # The detail would quote values of the row.
    diagnosis = error.diag
    where = f" (table {diagnosis.table_name})" if diagnosis.table_name else ""
    return f"the database refused the configuration: {diagnosis.message_primary or type(error).__name__}{where}"


def _begin(plan: ApplyPlan, connection: psycopg.Connection[Any], lock_timeout_seconds: float) -> None:
    # The lock comes before the first snapshot, so that nothing written before it is missed.
    connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE")
    settings = plan.settings
    fix_session(
        connection,
        search_path=settings.search_path,
        statement_timeout_seconds=settings.statement_timeout_seconds,
    )
    milliseconds = f"{round(lock_timeout_seconds * 1000)}ms"
    connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", [milliseconds])
    for rows in plan.rows:
        connection.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(identifier(rows.target)))
    connection.execute("SET CONSTRAINTS ALL DEFERRED")


def _check_unchanged(plan: ApplyPlan, connection: psycopg.Connection[Any]) -> None:
    fresh = plan_inside(plan.archive, connection, plan.settings, folders=plan.folders, prune=plan.prune, only=plan.only)
    if fresh.live_sha256 != plan.live_sha256:
        raise LiveChanged(
            "the platform's configuration has changed since the plan was made",
            hint="Plan again, look at what it would change now, and apply that.",
        )


def _write_rows(plan: ApplyPlan, connection: psycopg.Connection[Any]) -> None:
    def remove() -> None:
        for rows in reversed(plan.rows):
            _remove(connection, rows)

    def write() -> None:
        for rows in plan.rows:
            _write(connection, rows)

    if not any(rows.removals for rows in plan.rows):
        write()
        return
    # Removing first frees unique names; but what refers to a removed row may have to be written first.
    try:
        with connection.transaction():
            _in_order(remove, write)
    except (psycopg.errors.ForeignKeyViolation, ConfigurationError):
        _in_order(write, remove)


def _in_order(*steps: Callable[[], None]) -> None:
    for step in steps:
        step()


def _write(connection: psycopg.Connection[Any], rows: RowsPlan) -> None:
    for columns, changes in _by_columns(rows.inserts):
        names = sql.SQL(", ").join(sql.Identifier(column) for column in columns)
        statement = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} AS archived").format(
            identifier(rows.target), names, names, json_rows(rows.target, columns, (each.values for each in changes))
        )
        _execute(connection, statement, rows, len(changes))
    for columns, changes in _by_columns(rows.updates):
        keyed = (_with_key(rows, each) for each in changes)
        statement = sql.SQL("UPDATE {} AS live SET {} FROM {} AS archived WHERE {}").format(
            identifier(rows.target),
            sql.SQL(", ").join(sql.SQL("{0} = archived.{0}").format(sql.Identifier(column)) for column in columns),
            json_rows(rows.target, [*rows.key_columns, *columns], keyed),
            same_key(rows.key_columns),
        )
        _execute(connection, statement, rows, len(changes))
    for statement in raise_sequences(rows.target) if rows.inserts else ():
        connection.execute(statement)


def _by_columns(changes: Iterable[RowChange]) -> list[tuple[tuple[str, ...], list[RowChange]]]:
    """Rows that write the same columns go in one statement, so that they may refer to each other."""
    groups: dict[tuple[str, ...], list[RowChange]] = {}
    for change in changes:
        groups.setdefault(change.columns, []).append(change)
    return list(groups.items())


def _with_key(rows: RowsPlan, change: RowChange) -> Row:
    return {**dict(zip(rows.key_columns, change.key, strict=True)), **change.values}


def _remove(connection: psycopg.Connection[Any], rows: RowsPlan) -> None:
    if not rows.removals:
        return
    parts = (
        identifier(rows.target),
        json_rows(rows.target, rows.key_columns, as_rows(rows.removals, rows.key_columns)),
        same_key(rows.key_columns),
    )
    # The lock keeps others from referring to the rows between the check and the removal.
    lock = sql.SQL("SELECT 1 FROM {} AS live JOIN {} AS archived ON {} FOR UPDATE OF live")
    connection.execute(lock.format(*parts))
    _check_references(connection, rows)
    statement = sql.SQL("DELETE FROM {} AS live USING {} AS archived WHERE {}").format(*parts)
    _execute(connection, statement, rows, len(rows.removals))


def _check_references(connection: psycopg.Connection[Any], rows: RowsPlan) -> None:
    """A cascade must not take rows with it that no plan has named."""
    table = describe_table(connection, identifier(rows.target).as_string(connection))
    own = (rows.target.schema_name, rows.target.table_name)
    for reference in table.references:
        if (reference.schema_name, reference.table_name) == own:
            continue
        for key in rows.removals:
            if count := count_references(connection, rows.target, rows.key_columns, key, reference):
                raise ConfigurationError(
                    f"{rows.section} {label_of(key)} is still referred to by {count} rows of {reference.table_name}",
                    hint="Nothing was changed. Remove or move those rows first, or apply without pruning.",
                )


def _execute(connection: psycopg.Connection[Any], statement: sql.Composed, rows: RowsPlan, expected: int) -> None:
    done = connection.execute(statement)
    if done.rowcount != expected:
        raise ApplyFailed(
            f"{done.rowcount} instead of {expected} rows of {rows.target.table_name} could be written",
            hint="Nothing was changed. A trigger, a rule or row security may be in the way.",
        )
