"""Restore plans against a model of WAL: a path is only planned when every segment of it is there, and lands right."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lifeboat.recovery.planning import RestorePlan, TargetRefused, WalPoint, plan_restore
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import TimelinePath, TimelineUnknown, current_timeline, path_to
from lifeboat.wal.names import Segment, format_lsn
from tests.support.wal_world import BEGIN, PLAIN, SIZE, World, at_minute, backup, plan, worlds


def replay(world: World, plan: RestorePlan) -> list[WalPoint]:
    """What PostgreSQL would replay with no target: of each segment the newest timeline's that is there.

    As XLogFileReadAnyTLI has it: an older timeline's segment, whole, until it has met one of a newer timeline.
    """
    backup, path = plan.backup, plan.span.path
    archived = {Segment(p.timeline, p.lsn // SIZE, SIZE) for p in world.commits} - world.missing
    # The backup's own copy of its last segment ends where it stopped.
    own = Segment(backup.timeline, backup.stop_lsn // SIZE, SIZE) if backup.own_wal else None
    found: list[WalPoint] = []
    timeline, number = 0, backup.stop_lsn // SIZE
    while True:
        those = [
            item.timeline
            for item in path.stretches
            if item.timeline >= timeline
            and item.begin_lsn // SIZE <= number
            and Segment(item.timeline, number, SIZE) in {*archived, own}
        ]
        if not those:
            return found
        timeline = max(those)
        found += [
            p
            for p in world.commits
            if (p.timeline, p.lsn // SIZE) == (timeline, number)
            and p.lsn >= backup.stop_lsn
            and Segment(timeline, number, SIZE) in archived
        ]
        number += 1


@given(worlds(), st.integers(-2, 60 * 40), st.sampled_from([None, 1, 2, 3]))
def test_a_planned_time_is_reached_and_a_refused_one_cannot_be(world: World, second: int, timeline: int | None) -> None:
    assume(timeline is None or timeline <= len(world.forks) + 1)
    at = BEGIN + timedelta(seconds=second)
    target = RecoveryTarget(TargetKind.TIME, at=at, timeline=timeline)
    path = path_to(
        timeline or current_timeline(world.histories, world.wal.timelines | {b.timeline for b in world.backups}),
        world.histories,
        world.wal.timelines | {b.timeline for b in world.backups},
    )
    plan = attempt(target, world)
    if isinstance(plan, TargetRefused):
        assert plan.hint
        assert plan.earlier is None or plan.earlier <= at
        assert plan.later is None or plan.later > at
        assert not reachable(world, path, at)
        return
    assert reachable(world, path, at)
    replayed = replay(world, plan)
    if plan.settings.get("recovery_target") == "immediate":
        assert at == plan.backup.stopped_at
    elif "recovery_target_lsn" in plan.settings:
        assert replayed[-1].at == at or any(point.at == at for point in replayed)
    else:
        # There is a commit to stop before, and up to it nothing that is not on the path.
        stop = next(number for number, point in enumerate(replayed) if point.at > at)
        assert {*replayed[: stop + 1]} <= {*world.on(path)}
        # No later backup would have been nearer.
        assert not any(
            other.stop_lsn > plan.backup.stop_lsn and other.stopped_at <= at and reaches(world, path, other, at)
            for other in world.backups
        )


def attempt(target: RecoveryTarget, world: World) -> RestorePlan | TargetRefused:
    try:
        return plan_restore(target, world.backups, world.wal, world)
    except TargetRefused as refused:
        return refused


def reachable(world: World, path: TimelinePath, at: datetime) -> bool:
    """By brute force: some backup ended by then, and an unbroken run of commits leads from it to `at` or beyond.

    And the cluster lived `at` on this path: not between two commits, or a backup and a commit, that a switch parts.
    """
    leading = [other for other in world.backups if other.stopped_at <= at and reaches(world, path, other, at)]
    if not leading:
        return False
    newest = max(leading, key=lambda other: other.stop_lsn)
    commits = [commit for commit in world.on(path) if commit.lsn >= newest.stop_lsn]
    done = max((commit.lsn for commit in commits if commit.at <= at), default=newest.stop_lsn)
    last_at = max([newest.stopped_at, *(commit.at for commit in commits if commit.at <= at)])
    following = min((commit.lsn for commit in commits if commit.at > at), default=None)
    parted = following is not None and any(done <= item.begin_lsn <= following for item in path.stretches[1:])
    return at == last_at or not parted


def reaches(world: World, path: TimelinePath, point: BackupPoint, at: datetime) -> bool:
    if not path.holds(point.timeline, point.stop_lsn):
        return False
    first = path.segment(point.start_lsn // SIZE, SIZE)
    if not point.own_wal and first in world.missing:
        return False
    commits: list[WalPoint] = []
    for commit in world.on(path):
        if commit.lsn < point.stop_lsn:
            continue
        if Segment(commit.timeline, commit.lsn // SIZE, SIZE) in world.missing:
            break
        commits.append(commit)
    return at == point.stopped_at if not commits else at <= commits[-1].at


@given(worlds())
def test_the_latest_moment_never_runs_into_what_is_missing(world: World) -> None:
    try:
        plan = plan_restore(RecoveryTarget(), world.backups, world.wal, world)
    except TargetRefused:
        return
    span = plan.span
    for segment in span.segments(SIZE):
        assert segment not in world.missing
    replayed = replay(world, plan)
    if plan.settings.keys() <= {"recovery_target_timeline"}:
        assert not world.wal.has_after(span.missing, span.path)
        assert {*replayed} <= {*world.on(span.path)}
    else:
        assert plan.notes
        if plan.last is not None:
            upto = replayed.index(plan.last) + 1
            assert {*replayed[:upto]} <= {*world.on(span.path)}


def test_a_timeline_of_which_only_the_history_is_archived() -> None:
    """Timeline 1 has WAL behind the switch, which PostgreSQL would replay where it is not told to stop before."""
    fork = World(((5, 8),), 14, frozenset(Segment(2, number, SIZE) for number in range(5, 20)), (backup(1, 2, 2),))
    latest = plan(RecoveryTarget(), fork)
    assert any(point.lsn >= 5 * SIZE for point in replay(fork, latest))
    assert latest.last == fork.commits[4]
    assert latest.settings == {
        "recovery_target_timeline": "2",
        "recovery_target_inclusive": "on",
        "recovery_target_lsn": format_lsn(fork.commits[4].lsn),
    }
    assert "which timeline 2 begins in, is not archived yet" in latest.notes[0]
    # A moment between the last commit before the switch and the switch itself cannot be told from later ones.
    assert "recovery_target_time" in plan(at_minute(3.5), fork).settings
    assert plan(at_minute(4), fork).last == fork.commits[4]
    with pytest.raises(TargetRefused, match="is after the last commit in the archive"):
        plan(at_minute(4.5), fork)
    # Where there is no commit before the switch, the backup's end is all.
    late = plan(RecoveryTarget(), replace(fork, backups=(backup(1, 4, 4),)), [backup(1, 4, 4)])
    assert late.last == fork.commits[4]
    at_switch = BackupPoint("B", "basebackup", 1, 4 * SIZE, 5 * SIZE, BEGIN + timedelta(minutes=5), ("B",))
    none = plan_restore(
        RecoveryTarget(), [at_switch], ArchivedWal.of(fork.wal.ranges, (), fork.histories, SIZE), Silent()
    )
    assert none.settings == {"recovery_target_timeline": "2", "recovery_target": "immediate"}


class Silent(World):
    """WAL without a commit."""

    def __init__(self) -> None:
        super().__init__((), 1)

    def last_commit(self, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        return None


def test_the_newest_backup_before_the_moment_is_taken() -> None:
    assert plan(at_minute(5)).backup.label == "B1-2"
    assert plan(at_minute(6)).backup.label == "B1-6"
    assert plan(at_minute(6)).settings["recovery_target_time"] == "2026-11-22 00:06:00.000000+00"


def test_before_the_first_backup_and_in_the_future() -> None:
    with pytest.raises(TargetRefused, match="is before the first backup ended") as caught:
        plan(at_minute(1))
    assert caught.value.later == BEGIN + timedelta(minutes=1, seconds=45)
    with pytest.raises(TargetRefused, match="is after the last commit in the archive") as caught:
        plan(at_minute(11.5))
    assert caught.value.earlier == BEGIN + timedelta(minutes=11)


def test_in_a_gap_the_moments_on_both_sides_are_named() -> None:
    world = World((), 12, frozenset({Segment(1, 4, SIZE)}), (backup(1, 2, 2), backup(1, 8, 8)))
    with pytest.raises(
        TargetRefused, match=r"cannot be reached: the WAL segment 000000010000000000000004 is missing"
    ) as caught:
        plan(at_minute(5), world)
    assert caught.value.earlier == BEGIN + timedelta(minutes=3)
    assert caught.value.later == BEGIN + timedelta(minutes=7, seconds=45)
    assert plan(at_minute(9), world).backup.label == "B1-8"


def test_a_damaged_segment_is_told_apart_from_a_missing_one() -> None:
    bad = Segment(1, 8, SIZE)
    wal = ArchivedWal.of(PLAIN.wal.ranges, [bad], {}, SIZE)
    with pytest.raises(TargetRefused, match="000000010000000000000008 is damaged"):
        plan_restore(at_minute(9), PLAIN.backups, wal, PLAIN)


def test_the_discarded_future_needs_its_timeline_named() -> None:
    # At minute 8 the cluster was restored to what it was in segment 5, and went on as timeline 2.
    world = World(((5, 8),), 14, backups=(backup(1, 2, 2),))
    assert plan(at_minute(8), world).timeline == 2
    assert plan(at_minute(4), world).timeline == 2
    for minute in (4.1, 6.5, 7.9):
        with pytest.raises(TargetRefused, match="lies in a change of timelines: timeline 2 goes on") as refused:
            plan(at_minute(minute), world)
        assert (refused.value.earlier, refused.value.later) == (at_minute(4).at, at_minute(8).at)
        has_it = minute < 7  # the last commit that timeline 1 has
        assert refused.value.other_timelines == ((1,) if has_it else ())
        assert str(refused.value.hint).endswith("Timeline 1 has it: `--timeline 1`.") == has_it
    # Just before the first commit of timeline 2 is what it went on from.
    before = RecoveryTarget(TargetKind.TIME, at=at_minute(8).at, inclusive=False)
    assert plan(before, world).target == before
    assert plan(at_minute(6.5, timeline=1), world).timeline == 1
    assert plan(at_minute(12), world).span.path.segment(6, SIZE).timeline == 2
    with pytest.raises(TargetRefused, match="is after the last commit"):
        plan(at_minute(12, timeline=1), world)


def test_a_backup_of_the_discarded_future_leads_nowhere_else() -> None:
    world = World(((5, 8),), 14, backups=(backup(1, 6, 6),))
    with pytest.raises(TargetRefused, match="no usable backup leads to timeline 2"):
        plan(at_minute(12), world)
    assert plan(at_minute(6.5, timeline=1), world).backup.label == "B1-6"


def test_a_timeline_without_history_is_refused() -> None:
    with pytest.raises(TimelineUnknown, match="there is no timeline 7"):
        plan(at_minute(5, timeline=7))
    with pytest.raises(TimelineUnknown, match=r"no 00000004\.history"):
        path_to(4, {}, {4})


def test_positions_names_and_transactions() -> None:
    lsn = 7 * SIZE + SIZE // 2
    for target in (
        RecoveryTarget(TargetKind.LSN, lsn=lsn),
        RecoveryTarget(TargetKind.NAME, name="p707"),
        RecoveryTarget(TargetKind.XID, xid=707),
    ):
        assert plan(target).backup.label == "B1-6"
    with pytest.raises(TargetRefused, match="is not in the archived WAL of timeline 1"):
        plan(RecoveryTarget(TargetKind.NAME, name="p799"))
    with pytest.raises(TargetRefused, match="is before the first backup ended, at 0/240000"):
        plan(RecoveryTarget(TargetKind.XID, xid=701))
    with pytest.raises(TargetRefused, match="is after the last record in the archive"):
        plan(RecoveryTarget(TargetKind.LSN, lsn=SIZE * 40))


def test_the_plan_says_when_a_transaction_committed() -> None:
    """Its number does not tell: after a restore in place the new timeline uses it again."""
    world = World(((5, 8),), 14, backups=(backup(1, 2, 2),))
    ours = plan(RecoveryTarget(TargetKind.XID, xid=706), world)
    theirs = plan(RecoveryTarget(TargetKind.XID, xid=706, timeline=1), world)
    assert ours.notes == ("transaction 706 committed at 2026-11-22 00:09:00 UTC on timeline 2",)
    assert theirs.notes == ("transaction 706 committed at 2026-11-22 00:06:00 UTC on timeline 1",)


def test_a_suspect_backup_is_taken_only_when_asked_for_by_name() -> None:
    good, bad = PLAIN.backups[0], PLAIN.backups[1]
    suspect = BackupPoint(**{**bad.__dict__, "unusable": "suspect"})
    assert plan(at_minute(9), backups=[good, suspect]).backup == good
    by_name = plan(RecoveryTarget(TargetKind.BACKUP, backup=bad.label), backups=[good, suspect])
    assert by_name.notes == ("B1-6 is suspect",)
    with pytest.raises(TargetRefused, match="no usable backup") as caught:
        plan(at_minute(9), backups=[suspect])
    assert "B1-6 is suspect" in str(caught.value.hint)


def test_a_commit_before_the_last_one_may_bear_a_later_moment() -> None:
    """Backends take the time before they insert the record: the order in WAL is another one."""
    world = World((), 6, backups=(backup(1, 1, 1),))
    last = world.commits[-1]
    latest_at = last.at + timedelta(microseconds=3)
    object.__setattr__(world, "commits", (*world.commits[:-1], replace(last, latest_at=latest_at)))

    def plan(target: RecoveryTarget) -> RestorePlan:
        return plan_restore(target, world.backups, world.wal, world)

    # PostgreSQL meets a commit after each moment but the latest.
    for at in (last.at, latest_at - timedelta(microseconds=1)):
        assert "recovery_target_time" in plan(RecoveryTarget(TargetKind.TIME, at=at)).settings
    exact = plan(RecoveryTarget(TargetKind.TIME, at=latest_at))
    assert exact.last is not None
    assert exact.last.lsn == last.lsn
    assert "recovery_target_time" in plan(RecoveryTarget(TargetKind.TIME, at=latest_at, inclusive=False)).settings
    with pytest.raises(TargetRefused) as refused:
        plan(RecoveryTarget(TargetKind.TIME, at=latest_at + timedelta(microseconds=1)))
    assert refused.value.earlier == latest_at
    # The log of a replay to the end names the newest record's moment.
    assert plan(RecoveryTarget()).not_before == last.at
