"""The platform's own audit trail, by the settings' query: what people did there around a moment."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import ConnectionInfo, connect

# What stands in quotes or in a comment is no parameter; neither is the type of a cast.
_PARAMETER = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|(?<![:\w]):(?P<bound>from|to)\b""", re.S
)
_COLUMNS = (2, 3)
_CURSOR = "lifeboat_audit"


class AuditQueryInvalid(PermanentError):
    """The audit query of the settings fails, takes too long, or gives other columns than (at, text[, actor])."""


@dataclass(frozen=True)
class AuditEntry:
    """One row of the platform's audit trail."""

    at: datetime
    text: str
    actor: str | None


def read_audit_trail(  # noqa: PLR0913 - where, what, and its bounds
    source: ConnectionInfo, query: str, start: datetime, end: datetime, *, timeout_seconds: float, limit: int
) -> list[AuditEntry]:
    """The last `limit` entries from `start` to `end`, oldest first, in a read-only transaction that is ended in time.

    `:from` and `:to` in the query are the bounds. Raises AuditQueryInvalid, SourceUnavailable, AuthenticationFailed.
    """
    text, values = bind_bounds(query, start, end)
    with connect(source, application_name="lifeboat audit trail", autocommit=True) as session:
        try:
            with session.transaction(force_rollback=True):
                session.execute("SET TRANSACTION READ ONLY")
                # Ours is pg_catalog alone; who wrote the query expects what a client of the database gets.
                session.execute("SET LOCAL search_path TO DEFAULT")
                limited = sql.Literal(f"{round(timeout_seconds * 1000)}ms")
                session.execute(sql.SQL("SET LOCAL statement_timeout = {}").format(limited))
                # As a subquery it cannot be several statements; the line break ends a trailing comment.
                whole = f"SELECT * FROM (\n{text}\n) AS audit ORDER BY 1 DESC LIMIT {int(limit)}"  # noqa: S608 - settings
                with session.cursor(_CURSOR, row_factory=tuple_row) as cursor:
                    cursor.execute(whole.encode(), values)
                    rows = cursor.fetchall()
        except psycopg.Error as error:
            said = (error.diag.message_primary or str(error)).strip()
            raise _invalid(f"the audit query failed: {said}") from error
    return [_entry(row) for row in rows][::-1]


def bind_bounds(query: str, start: datetime, end: datetime) -> tuple[str, dict[str, datetime] | None]:
    """The query as psycopg takes it, with the bounds that it uses."""
    used: dict[str, datetime] = {}
    bounds = {"from": start, "to": end}

    def replace(found: re.Match[str]) -> str:
        name = found["bound"]
        if name is None:
            return found[0].replace("%", "%%")
        used[name] = bounds[name]
        return f"%({name})s::timestamptz"

    plain = query.strip().rstrip(";")
    pieces, position = [], 0
    for found in _PARAMETER.finditer(plain):
        pieces += [plain[position : found.start()].replace("%", "%%"), replace(found)]
        position = found.end()
    pieces.append(plain[position:].replace("%", "%%"))
    # psycopg looks for placeholders only where there are values: only then is a `%` of the query doubled.
    return ("".join(pieces), used) if used else (plain, None)


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    if len(row) not in _COLUMNS:
        raise _invalid(f"the audit query gives {len(row)} columns")
    at, text, actor = (*row, None)[:3]
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise _invalid(f"the audit query's first column is {at!r}, not a timestamptz")
    return AuditEntry(at.astimezone(UTC), str(text), None if actor is None else str(actor))


def _invalid(message: str) -> AuditQueryInvalid:
    return AuditQueryInvalid(
        message,
        hint="`platform.audit_query` gives at (timestamptz), text and, if you like, actor; it may use :from, :to.",
    )
