"""JSON kept as text: what goes in comes out, to the digit."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.configuration.content import decode_rows, encode_rows
from lifeboat.configuration.jsontext import (
    JsonInvalid,
    Number,
    parse,
    parse_all,
    render,
    render_plain,
    render_row,
    split_row,
)

numbers = (st.integers().map(str) | st.sampled_from(["1.10", "-0", "1e400", "0.1E-7", "-9007199254740993.25"])).map(
    Number
)
texts = st.text(max_size=6)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
rows = st.dictionaries(texts, values.map(render), max_size=3)
flat_rows = st.dictionaries(texts, scalars.map(render), max_size=2)


@given(values)
def test_values_keep_their_text(value: object) -> None:
    text = render(value)  # type: ignore[arg-type]
    assert parse(text) == value
    assert render(parse(text)) == text
    assert "\n" not in text
    json.loads(text)


@given(rows)
def test_a_row_keeps_the_text_of_each_field(row: dict[str, str]) -> None:
    line = render_row(row)
    assert "\n" not in line
    assert split_row(line) == row
    assert json.loads(line) == {name: json.loads(text) for name, text in row.items()}


@given(st.lists(flat_rows, max_size=3))
def test_a_section_is_an_array_that_anything_can_read(section: list[dict[str, str]]) -> None:
    data = encode_rows(section)
    assert list(decode_rows(data)) == section
    assert len(json.loads(data)) == len(section)
    assert data.decode().count("\n") == len(section) + 2


@pytest.mark.parametrize("text", ["1.10", "12345678901234567890.0001", "1e400", "-0", "0.1e-7"])
def test_numbers_are_not_touched(text: str) -> None:
    assert render(parse(f'{{"x": [{text}]}}')) == f'{{"x": [{text}]}}'


def test_a_lone_surrogate_survives() -> None:
    assert render(parse(r'"\ud800"')) == r'"\ud800"'
    assert split_row(r'{"a": "\ud800"}') == {"a": r'"\ud800"'}


def test_hidden_values_are_found() -> None:
    assert parse_all('{"a": 1, "b": {"c": "x", "c": "y"}, "a": 2}') == (
        {"a": Number("2"), "b": {"c": "y"}},
        [("c", "x"), ("a", Number("1"))],
    )


def test_line_breaks_between_tokens_do_not_break_the_line() -> None:
    assert render_row({"a": '{"b":\n1}'}) == '{"a": {"b": 1}}'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"a"}', '{"a": }', '{"a": 1', '{"a": 1} x', '{"a": 1 "b": 2}', "{1: 2}", '{"a": 1, "a": 2}'],
)
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(JsonInvalid):
        split_row(text)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[" * 100_000, "{'a': 1}"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(JsonInvalid):
        parse(text)


@pytest.mark.parametrize("data", [b"", b"[]\n", b"[\n{}\n", b"[\n{},\n]\n", b"[\n{}\n{}\n]\n", b"[\n\xff\n]\n"])
def test_what_is_no_section_is_refused(data: bytes) -> None:
    with pytest.raises(JsonInvalid):
        decode_rows(data)


def test_plain_values_become_json() -> None:
    value = {"at": datetime(2026, 11, 22, 19, tzinfo=UTC), "path": Path("/x"), "set": {"b", "a"}, "none": None}
    assert render_plain(value) == '{"at": "2026-11-22T19:00:00+00:00", "path": "/x", "set": ["a", "b"], "none": null}'
    with pytest.raises(ValueError, match="Out of range"):
        render_plain(float("nan"))
