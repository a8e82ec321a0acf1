"""Validation queries: questions to a restored database whose answers are known."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from lifeboat.settings.drills import ExactValue, Expectation, ValidationQuery, ValueRange
from lifeboat.verification.fingerprints import apply_settings

_CURSOR = "lifeboat_validation"


@dataclass(frozen=True)
class ValidationResult:
    """What one query answered; `value` is the text of the first column of the first row, `error` the server's words."""

    name: str
    passed: bool
    expected: str
    value: str | None
    error: str | None
    duration_seconds: float


def run_validation(
    connection: psycopg.Connection[Any], queries: Sequence[ValidationQuery], timeout_seconds: float
) -> list[ValidationResult]:
    """Run each query in a read-only transaction of its own, ended after `timeout_seconds`.

    A query that fails is a failed result, not an exception; only a lost connection fails those after it too. The
    connection must be outside a transaction.
    """
    return [_run(connection, query, timeout_seconds) for query in queries]


def _run(connection: psycopg.Connection[Any], query: ValidationQuery, timeout_seconds: float) -> ValidationResult:
    began = time.monotonic()
    rows: list[tuple[Any, ...]] = []
    try:
        rows = _answer(connection, query.sql, timeout_seconds)
        error = _fault(query.expect, rows)
    except psycopg.Error as failure:
        error = str(failure).strip() or type(failure).__name__
    return ValidationResult(
        name=query.name,
        passed=error is None,
        expected=_describe(query.expect),
        value=str(rows[0][0]) if rows and rows[0] else None,
        error=error,
        duration_seconds=time.monotonic() - began,
    )


def _answer(connection: psycopg.Connection[Any], text: str, timeout_seconds: float) -> list[tuple[Any, ...]]:
    """The first two rows: more are not needed to judge any answer."""
    with connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ ONLY")
        # Ours is pg_catalog alone; who wrote the query expects what a client of the database gets.
        connection.execute("SET LOCAL search_path TO DEFAULT")
        apply_settings(connection, {"statement_timeout": f"{round(timeout_seconds * 1000)}ms"})
        # A server-side cursor keeps a large result out of memory, and takes one query only: no COMMIT can hide in it.
        with connection.cursor(_CURSOR, row_factory=tuple_row) as cursor:
            return cursor.execute(text.strip().rstrip(";")).fetchmany(2)


def _fault(expect: Expectation, rows: Sequence[tuple[Any, ...]]) -> str | None:
    if expect == "nonempty":
        return None if rows else "the query returned no row"
    if len(rows) != 1:
        return f"the query returned {'no row' if not rows else 'several rows'} instead of one"
    value = rows[0][0]
    if isinstance(expect, ExactValue):
        return None if _equals(value, expect.equals) else f"{value} is not {expect.equals}"
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return f"{value!r} is not a number"
    return None if _within(value, expect) else f"{value} is not {_describe(expect)}"


def _equals(value: object, wanted: bool | int | float | str) -> bool:
    if isinstance(wanted, str):
        return str(value) == wanted
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    # 0.1 in settings means the number that is written, as numeric in PostgreSQL does.
    return isinstance(value, int | float | Decimal) and Decimal(str(value)) == Decimal(str(wanted))


def _within(value: float | Decimal, expect: ValueRange) -> bool:
    above = expect.minimum is None or value >= expect.minimum
    return above and (expect.maximum is None or value <= expect.maximum)


def _describe(expect: Expectation) -> str:
    if isinstance(expect, ExactValue):
        return f"exactly {expect.equals}"
    if isinstance(expect, ValueRange):
        bounds = ((expect.minimum, "at least"), (expect.maximum, "at most"))
        return " and ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)
    return "at least one row"
