"""Windows of restorable moments are exactly the moments that planning accepts; holes say what is between."""

from datetime import timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lifeboat.recovery.planning import TargetRefused, plan_restore
from lifeboat.recovery.restore_points import HoleReason, TimelineReach, obstacle_to, reach_of_timelines
from lifeboat.recovery.spans import ArchivedWal
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import TimelineUnknown
from lifeboat.wal.names import Segment
from tests.support.wal_world import BEGIN, SIZE, World, backup, worlds


def reach(world: World, only: int | None = None) -> list[TimelineReach]:
    return reach_of_timelines(world.backups, world.wal, world, only)


@given(worlds(), st.integers(-2, 60 * 40), st.sampled_from([1, 2, 3]))
def test_a_moment_is_in_a_window_exactly_when_it_can_be_planned(world: World, second: int, timeline: int) -> None:
    assume(timeline <= len(world.forks) + 1)
    at = BEGIN + timedelta(seconds=second)
    target = RecoveryTarget(TargetKind.TIME, at=at, timeline=timeline)
    try:
        (found,) = reach(world, timeline)
    except TimelineUnknown:
        with pytest.raises(TimelineUnknown):
            plan_restore(target, world.backups, world.wal, world)
        return
    windows = [window for window in found.windows if window.earliest <= at <= window.latest]
    assert len(windows) <= 1
    try:
        plan = plan_restore(target, world.backups, world.wal, world)
    except TargetRefused:
        assert windows == []
    else:
        assert plan.backup.label in windows[0].backups


@given(worlds())
def test_windows_and_holes_take_turns(world: World) -> None:
    for found in reach(world):
        assert (found.why_not is None) == bool(found.windows)
        for older, newer in zip(found.windows, found.windows[1:], strict=False):
            assert older.earliest <= older.latest < newer.earliest <= newer.latest
        closed = [(hole.after, hole.before) for hole in found.holes if hole.before is not None]
        pairs = zip(found.windows, found.windows[1:], strict=False)
        assert closed == [(older.latest, newer.earliest) for older, newer in pairs]
        assert all(hole.before is not None for hole in found.holes[:-1])
        for hole in found.faults:
            assert set(hole.segments) <= world.missing | {hole.segments[-1]}
            assert hole.segments[0] in world.missing


@given(worlds(), st.data())
def test_a_position_has_no_obstacle_exactly_when_it_can_be_planned(world: World, data: st.DataObject) -> None:
    commit = data.draw(st.sampled_from(world.commits))
    end = commit.lsn + 100  # a record's end, as the server tells it
    target = RecoveryTarget(TargetKind.LSN, lsn=commit.lsn, timeline=commit.timeline)
    try:
        plan = plan_restore(target, world.backups, world.wal, world)
    except (TargetRefused, TimelineUnknown):
        assert obstacle_to(commit.timeline, end, world.backups, world.wal) is not None
    else:
        assert plan.backup.stop_lsn <= commit.lsn
        assert obstacle_to(commit.timeline, end, world.backups, world.wal) is None


def minute(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_a_gap_is_told_in_plain_words() -> None:
    missing = frozenset({Segment(1, 4, SIZE), Segment(1, 5, SIZE)})
    world = World((), 12, missing, (backup(1, 2, 2), backup(1, 8, 8)))
    (found,) = reach(world)
    assert [(w.earliest - BEGIN, w.latest - BEGIN) for w in found.windows] == [
        (minute(1.75), minute(3)),
        (minute(7.75), minute(11)),
    ]
    assert str(found.windows[0]) == "every second from 2026-11-22 00:01:45 UTC to 2026-11-22 00:03:00 UTC"
    (hole,) = found.holes
    assert hole.is_fault
    assert str(hole) == (
        "nothing after 2026-11-22 00:03:00 UTC and before 2026-11-22 00:07:45 UTC can be restored: "
        "2 WAL segments are missing, 000000010000000000000004 to 000000010000000000000005"
    )


def test_behind_the_last_backup_a_gap_asks_for_a_new_one_and_damage_is_named() -> None:
    world = World((), 12, frozenset({Segment(1, 9, SIZE)}), (backup(1, 2, 2),))
    (found,) = reach(world)
    (hole,) = found.holes
    assert (hole.before, hole.reason) == (None, HoleReason.MISSING)
    assert "a new full backup makes what comes next restorable" in str(hole)
    whole = World((), 12, backups=(backup(1, 2, 2),))
    wal = ArchivedWal.of(whole.wal.ranges, [Segment(1, 9, SIZE)], {}, SIZE)
    (found,) = reach_of_timelines(whole.backups, wal, whole)
    assert str(found.holes[0]).count("the WAL segment 000000010000000000000009 is damaged") == 1


def test_a_backup_with_nothing_behind_it_is_one_moment() -> None:
    (found,) = reach(World((), 9, frozenset(), (backup(1, 2, 2), backup(1, 20, 20))))
    assert [(w.earliest - BEGIN, w.latest - BEGIN) for w in found.windows] == [
        (minute(1.75), minute(8)),
        (minute(19.75), minute(19.75)),
    ]
    assert str(found.windows[1]).startswith("only 2026-11-22 00:19:45 UTC, the end of B1-20")


def test_each_timeline_has_its_own_moments() -> None:
    world = World(((5, 8),), 14, backups=(backup(1, 2, 2),))
    first, second = reach(world)
    assert (first.timeline, first.current, first.latest) == (1, False, BEGIN + minute(7))
    assert (second.timeline, second.current, second.latest) == (2, True, BEGIN + minute(13))
    assert (second.parent, second.branched_lsn) == (1, 5 * SIZE)
    assert [(w.earliest - BEGIN, w.latest - BEGIN) for w in second.windows] == [
        (minute(1.75), minute(4)),
        (minute(8), minute(13)),
    ]
    (hole,) = second.holes
    assert (hole.reason, hole.left, hole.is_fault) == (HoleReason.BRANCH, 1, False)
    assert "timeline 1 may have it" in str(hole)
    assert [each.timeline for each in reach(world, 2)] == [2]
    with pytest.raises(TimelineUnknown, match="there is no timeline 7"):
        reach(world, 7)


def test_a_timeline_without_its_history_hides_no_other() -> None:
    world = World(((5, 8),), 14, backups=(backup(1, 2, 2),))
    wal = ArchivedWal.of(world.wal.ranges, (), {}, SIZE)
    first, second = reach_of_timelines(world.backups, wal, world)
    assert first.windows
    assert "no 00000002.history" in (second.why_not or "")


def test_why_a_point_cannot_be_had() -> None:
    missing = frozenset({Segment(1, 4, SIZE)})
    world = World((), 12, missing, (backup(1, 2, 2), backup(1, 8, 8)))
    middle = SIZE // 2

    def why(segment: int, timeline: int = 1) -> str | None:
        return obstacle_to(timeline, segment * SIZE + middle, world.backups, world.wal)

    assert why(3) is None
    assert why(9) is None
    assert why(1) == "no usable backup ended before it"
    assert why(4) == "the WAL segment 000000010000000000000004 that holds it is not in the archive"
    assert why(6) == "the WAL segment 000000010000000000000004, on the way to it, is missing"
    assert why(3, timeline=5) == "there is no timeline 5"
