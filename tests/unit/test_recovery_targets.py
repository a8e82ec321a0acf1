"""Recovery targets as people write them, and as PostgreSQL's settings say them."""

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, TargetUnreadable, parse_target, parse_time

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-22 14:03:22", datetime(2026, 11, 22, 14, 3, 22, tzinfo=UTC)),
        ("2026-11-22 14:03:22 UTC", datetime(2026, 11, 22, 14, 3, 22, tzinfo=UTC)),
        ("2026-11-22T14:03:22.123456+01:00", datetime(2026, 11, 22, 13, 3, 22, 123456, tzinfo=UTC)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T14:03Z", datetime(2026, 11, 22, 14, 3, tzinfo=UTC)),
        ("now", NOW),
        ("15m ago", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
    ],
)
def test_times_that_are_understood(text: str, at: datetime) -> None:
    assert parse_time(text, NOW) == at


@pytest.mark.parametrize("text", ["", "yesterday", "14:03", "2026-02-30", "15 fortnights ago", "2026-11-22 25:00"])
def test_times_that_are_not(text: str) -> None:
    with pytest.raises(TargetUnreadable, match="is not a time") as caught:
        parse_time(text, NOW)
    assert "UTC" in str(caught.value.hint)


def test_a_time_becomes_settings_in_utc() -> None:
    target = parse_target(now=NOW, at="2026-11-22 14:03:22.5+01:00")
    assert target.settings(3) == {
        "recovery_target_timeline": "3",
        "recovery_target_inclusive": "on",
        "recovery_target_time": "2026-11-22 13:03:22.500000+00",
    }
    assert str(target) == "2026-11-22 13:03:22.500000 UTC"


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ({}, {}),
        ({"name": "before release"}, {"recovery_target_name": "before release"}),
        ({"lsn": "0/16b3748"}, {"recovery_target_lsn": "0/16B3748", "recovery_target_inclusive": "on"}),
        ({"xid": "748", "inclusive": False}, {"recovery_target_xid": "748", "recovery_target_inclusive": "off"}),
        ({"backup": "20261122-190000F"}, {"recovery_target": "immediate"}),
    ],
)
def test_the_other_kinds(words: dict[str, str], settings: dict[str, str]) -> None:
    assert parse_target(now=NOW, **words).settings(None) == settings  # type: ignore[arg-type]


def test_two_targets_are_refused() -> None:
    with pytest.raises(TargetUnreadable, match="--at and --xid exclude each other"):
        parse_target(now=NOW, at="now", xid="748")


@pytest.mark.parametrize("words", [{}, {"backup": "latest"}, {"name": "the latest release"}])
def test_just_before_says_nothing_of_the_latest_moment_a_backup_and_a_name(words: dict[str, str]) -> None:
    with pytest.raises(TargetUnreadable, match=r"--before says nothing of .*latest"):
        parse_target(now=NOW, inclusive=False, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "words", [{"xid": "2"}, {"xid": "x"}, {"lsn": "xyz"}, {"name": ""}, {"name": "ü" * 32}, {"timeline": 0}]
)
def test_values_out_of_range_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(TargetUnreadable):
        parse_target(now=NOW, **words)  # type: ignore[arg-type]


def test_a_target_has_the_value_of_its_kind() -> None:
    with pytest.raises(ValueError, match="a target by time"):
        RecoveryTarget(TargetKind.TIME)


def test_a_refusal_survives_pickling_with_what_can_be_had() -> None:
    refused = pickle.loads(pickle.dumps(TargetRefused("no", earlier=NOW, later=NOW + timedelta(hours=1))))
    assert (refused.earlier, refused.later) == (NOW, NOW + timedelta(hours=1))
    assert refused.hint == (
        "The nearest moments that can be had are 2026-11-23 03:00:00 UTC and 2026-11-23 04:00:00 UTC."
    )
