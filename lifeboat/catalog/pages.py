"""Pages of rows, newest first: a cursor names the last row of a page, so that new rows shift nothing."""

import base64
import binascii
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from lifeboat.catalog.errors import CursorInvalid
from lifeboat.catalog.tables import Base

R = TypeVar("R")
DEFAULT_LIMIT = 50


@dataclass(frozen=True)
class Page(Generic[R]):
    """Some rows, and the cursor of the next page, None when there is none."""

    rows: list[R]
    next_cursor: str | None


@dataclass(frozen=True)
class Listing(Generic[R]):
    """How a table is listed: as which row class, and by which time; the column `id` breaks ties."""

    table: type[Base]
    row: type[R]
    time: str

    @property
    def columns(self) -> list[InstrumentedAttribute[Any]]:
        """The columns that the row class has fields for."""
        return [getattr(self.table, field.name) for field in dataclasses.fields(self.row)]  # type: ignore[arg-type]

    def statement(
        self, conditions: Sequence[ColumnElement[bool]], limit: int, cursor: str | None = None
    ) -> Select[Any]:
        """One row more than the page holds: it tells whether there is a next page. Raises CursorInvalid."""
        if limit < 1:
            raise ValueError(f"a page of {limit} rows")
        time, identifier = getattr(self.table, self.time), getattr(self.table, "id")  # noqa: B009 - not all have one
        query = select(*self.columns).where(*conditions).order_by(time.desc(), identifier.desc()).limit(limit + 1)
        if cursor is None:
            return query
        return query.where(tuple_(time, identifier) < tuple_(*map(literal, decode_cursor(cursor))))

    def read(
        self, connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int, cursor: str | None
    ) -> Page[R]:
        """Run the statement; raises CursorInvalid."""
        rows = self.rows(connection, self.statement(conditions, limit, cursor))
        if len(rows) <= limit:
            return Page(rows, None)
        last: Any = rows[limit - 1]
        return Page(rows[:limit], encode_cursor(getattr(last, self.time), last.id))

    def rows(self, connection: Connection, statement: Select[Any]) -> list[R]:
        """The rows of a statement that selects `columns`."""
        return [self.row(**row._mapping) for row in connection.execute(statement)]


def encode_cursor(at: datetime, identifier: UUID) -> str:
    """The cursor of a row, as text that fits into a URL."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {identifier}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[datetime, UUID]:
    """The time and id that `encode_cursor` was given; raises CursorInvalid."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        at, identifier = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        time = datetime.fromisoformat(at)
        if time.tzinfo is None:
            raise ValueError("no time zone")
        return time, UUID(identifier)
    except (ValueError, binascii.Error) as error:
        raise CursorInvalid(
            "the page cursor is not one of ours", hint="Take it from the previous page, or start without one."
        ) from error
