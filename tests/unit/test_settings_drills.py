"""Settings of drills: what an expectation may be, and how far the hashing goes."""

import pytest
from pydantic import ValidationError

from lifeboat.settings.drills import DrillSettings, ExactValue, FingerprintBudget, ValidationQuery, ValueRange


def query(expect: object) -> ValidationQuery:
    """A query with that expectation, as it comes from TOML."""
    return ValidationQuery.model_validate({"name": "n", "sql": "SELECT 1", "expect": expect})


def test_each_form_of_expectation_is_understood() -> None:
    assert query({"equals": 5}).expect == ExactValue(equals=5)
    assert query({"equals": True}).expect == ExactValue(equals=True)
    assert query({"equals": "5"}).expect == ExactValue(equals="5")
    assert query({"minimum": 2}).expect == ValueRange(minimum=2)
    assert query("nonempty").expect == "nonempty"


@pytest.mark.parametrize(
    "expect",
    [{}, {"minimum": 3, "maximum": 2}, {"equals": 1, "minimum": 2}, "empty", {"least": 3}, 5],
    ids=repr,
)
def test_an_expectation_that_says_nothing_is_refused(expect: object) -> None:
    with pytest.raises(ValidationError):
        query(expect)


def test_names_of_queries_are_unique() -> None:
    with pytest.raises(ValidationError, match="two validation queries are named n"):
        DrillSettings(validation=[query("nonempty"), query("nonempty")])


def test_the_budget_is_a_share_of_the_database_but_never_below_the_floor() -> None:
    budget = FingerprintBudget(fraction=0.1, floor_bytes=1000)
    assert [budget.limit_bytes(size) for size in (0, 9_999, 20_000)] == [1000, 1000, 2000]
