"""Column types that keep what Python gives them: aware times, named enums, text and JSON that PostgreSQL takes."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import CheckConstraint, DateTime, Dialect, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB

E = TypeVar("E", bound=StrEnum)


class UtcDateTime(TypeDecorator[datetime]):
    """timestamptz; a time without a zone is a ValueError, and what is read is in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: the session's zone would decide what they mean."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The same moment in UTC."""
        return value.astimezone(UTC) if value is not None else None


class EnumText(TypeDecorator[E]):
    """text that holds the values of a StrEnum; the table's check constraint says the same to everybody else."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: type[E]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: E | None, dialect: Dialect) -> str | None:
        """The value as text; a ValueError names what is no member."""
        return self.kind(value).value if value is not None else None

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:
        """The member of the enum."""
        return self.kind(value) if value is not None else None


class PlainText(TypeDecorator[str]):
    """text; bytes that are no UTF-8 and NUL, as in file names and programs' output, are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text as PostgreSQL can store it."""
        return storable_text(value) if value is not None else None


class PlainJson(TypeDecorator[dict[str, Any]]):
    """jsonb; ids, times, enums and paths become text, and so does a number that JSON lacks."""

    impl = JSONB(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Any] | None, dialect: Dialect) -> Any:  # noqa: ANN401 - JSON
        """Plain values that PostgreSQL can store."""
        return storable_json(value) if value is not None else None


def storable_text(value: str) -> str:
    """`value` with lone surrogates and NUL written as `\\udcff` and `\\x00`: PostgreSQL stores neither."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def storable_json(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """`value` as plain JSON values; what JSON does not know becomes its text."""
    if isinstance(value, Mapping):
        return {storable_text(str(key)): storable_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and value - value == 0:  # neither infinite nor NaN
        return value
    return storable_text(value.isoformat() if isinstance(value, date) else str(value))


def one_of(column: str, kind: type[StrEnum]) -> CheckConstraint:
    """The check constraint that `column` holds a value of `kind`."""
    values = ", ".join(f"'{member.value}'" for member in kind)
    return CheckConstraint(f"{column} IN ({values})", name=column)
