"""Which `:from` and `:to` of an audit query are its bounds."""

from datetime import UTC, datetime

import pytest

from lifeboat.recovery.audit_query import bind_bounds

START, END = datetime(2026, 11, 22, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "bound", "used"),
    [
        ("SELECT a WHERE at >= :from", "SELECT a WHERE at >= %(from)s::timestamptz", {"from"}),
        (
            "SELECT a WHERE at BETWEEN :from AND :to;",
            "SELECT a WHERE at BETWEEN %(from)s::timestamptz AND %(to)s::timestamptz",
            {"from", "to"},
        ),
        ("SELECT a WHERE at < (:to)::date", "SELECT a WHERE at < (%(to)s::timestamptz)::date", {"to"}),
        (
            "SELECT ':from', \":to\", $$:to$$, a::text -- :from\n/* :to */ WHERE b LIKE '%x' AND c % 2 = 0"
            " AND at > :from",
            "SELECT ':from', \":to\", $$:to$$, a::text -- :from\n/* :to */ WHERE b LIKE '%%x' AND c %% 2 = 0"
            " AND at > %(from)s::timestamptz",
            {"from"},
        ),
        ("SELECT a WHERE b LIKE '%x' AND c = ':to'", "SELECT a WHERE b LIKE '%x' AND c = ':to'", set()),
        ("SELECT x::from_type, y[1:to_index], :fromage", "SELECT x::from_type, y[1:to_index], :fromage", set()),
    ],
)
def test_bounds_are_found_where_they_are_parameters(query: str, bound: str, used: set[str]) -> None:
    text, values = bind_bounds(query, START, END)
    assert text == bound
    assert set(values or {}) == used
    assert all((values or {})[name] == {"from": START, "to": END}[name] for name in used)
