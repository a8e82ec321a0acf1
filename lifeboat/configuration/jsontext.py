"""JSON kept as text: a value read from PostgreSQL goes back to it with every digit, order and escape it had.

A row is `{name: JSON text}`; a column that is NULL in SQL is absent, so that JSON's own null keeps its meaning.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import TypeAlias

from lifeboat.errors import PermanentError

Row: TypeAlias = Mapping[str, str]
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACE = " \t\r\n"


class Number(str):
    """A JSON number as it was written: 1.10 is not 1.1, and no digit is lost."""

    __slots__ = ()


Json: TypeAlias = "dict[str, Json] | list[Json] | str | bool | None"


class JsonInvalid(PermanentError):
    """A text is not the JSON that it should be, or is nested too deep to look into."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Pairs:
    """Builds objects and keeps apart what a later value of the same name hides."""

    def __init__(self) -> None:
        self.hidden: list[tuple[str, Json]] = []

    def __call__(self, pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for name, value in pairs:
            if name in found:
                self.hidden.append((name, found[name]))
            found[name] = value
        return found


def _decoder(pairs: _Pairs | None = None) -> json.JSONDecoder:
    return json.JSONDecoder(
        parse_float=Number, parse_int=Number, parse_constant=_refuse_constant, object_pairs_hook=pairs
    )


def parse(text: str) -> Json:
    """The value of a JSON text, its numbers as written. Raises JsonInvalid."""
    return parse_all(text)[0]


def parse_all(text: str) -> tuple[Json, list[tuple[str, Json]]]:
    """As `parse`, and the values that a later one of the same name hides (the type json allows that)."""
    pairs = _Pairs()
    try:
        value: Json = _decoder(pairs).decode(text)
    except (ValueError, RecursionError) as error:
        raise JsonInvalid(f"not readable as JSON: {error}") from None
    return value, pairs.hidden


def render(value: Json) -> str:
    """The JSON text of a value, in PostgreSQL's own spacing (`{"a": 1, "b": [1, 2]}`)."""
    if isinstance(value, Number):
        return value
    if isinstance(value, str):
        # A lone surrogate cannot be encoded as UTF-8; JSON can still spell it as an escape.
        return json.dumps(value, ensure_ascii=_SURROGATE.search(value) is not None)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{render(name)}: {render(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(render(inner) for inner in value) + "]"
    return {None: "null", True: "true", False: "false"}[value]


def render_plain(value: object) -> str:
    """The JSON text of a Python value; what JSON lacks (dates, paths) becomes text. Raises ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    return text if _SURROGATE.search(text) is None else json.dumps(value, allow_nan=False, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)


def render_row(row: Row) -> str:
    """One row as a JSON object in a single line, names sorted."""
    # Outside strings a line break means nothing in JSON, and inside them it is always escaped.
    fields = (f"{render(name)}: {row[name]}" for name in sorted(row))
    return ("{" + ", ".join(fields) + "}").replace("\r", " ").replace("\n", " ")


def split_row(text: str) -> dict[str, str]:
    """The fields of a JSON object, each as its own text. Raises JsonInvalid."""
    try:
        return dict(_fields(text))
    except (ValueError, IndexError, RecursionError) as error:
        raise JsonInvalid(f"not a row in JSON: {error}") from None


def _fields(text: str) -> Iterator[tuple[str, str]]:
    decode, seen = _decoder().raw_decode, set()
    at = _expect(text, 0, "{")
    while text[at] != "}":
        name, at = decode(text, at)
        if not isinstance(name, str) or isinstance(name, Number) or name in seen:
            raise ValueError(f"unexpected name {name!r}")
        seen.add(name)
        start = _expect(text, at, ":")
        _, at = decode(text, start)
        yield name, text[start:at]
        at = _skip(text, at)
        if text[at] != "}":
            at = _expect(text, at, ",")
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the object")


def _expect(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at] != sign:
        raise ValueError(f"{sign} expected at {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def map_strings(value: Json, change: Callable[[str], str]) -> Json:
    """The value with every string in it (not the names) changed by `change`."""
    if isinstance(value, str) and not isinstance(value, Number):
        return change(value)
    if isinstance(value, dict):
        return {name: map_strings(inner, change) for name, inner in value.items()}
    if isinstance(value, list):
        return [map_strings(inner, change) for inner in value]
    return value
