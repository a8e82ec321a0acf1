"""What refused targets say: of other timelines that have them, and of what may hide them."""

from dataclasses import replace

import pytest

from lifeboat.recovery.planning import TargetRefused, WalPoint
from lifeboat.recovery.spans import Span
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import TimelinePath
from lifeboat.recovery.unpacked_wal import SegmentUnusable
from lifeboat.wal.names import Segment
from tests.support.wal_world import SIZE, World, at_minute, backup, plan


def test_what_only_an_older_timeline_has_is_refused_with_its_number() -> None:
    world = World(((5, 8),), 10, backups=(backup(1, 2, 2),))
    # Timeline 1 went on to segment 7, timeline 2 has only come to segment 6.
    for target, words in (
        (RecoveryTarget(TargetKind.NAME, name="p707"), "Timeline 1 has it"),
        (RecoveryTarget(TargetKind.XID, xid=707), "Timeline 1 has one of that number, which committed at 2026-11-22"),
        (at_minute(6.5), "Timeline 1 has it"),
    ):
        with pytest.raises(TargetRefused) as refused:
            plan(target, world)
        assert refused.value.other_timelines == (1,)
        assert words in str(refused.value.hint)
        assert str(refused.value.hint).endswith(": `--timeline 1`.")


def test_every_timeline_that_has_a_transaction_of_the_number_is_named_once() -> None:
    # Each fork gives up segment 6: three transactions have its number, and timeline 3 has the first two nowhere.
    world = World(((5, 8), (5, 12)), 13, backups=(backup(1, 2, 2),))
    with pytest.raises(TargetRefused) as refused:
        plan(RecoveryTarget(TargetKind.XID, xid=706), world)
    assert refused.value.other_timelines == (2, 1)
    assert "Timeline 2 has one of that number, which committed at 2026-11-22 00:09:00" in str(refused.value.hint)
    assert "Timeline 1 has one of that number, which committed at 2026-11-22 00:06:00" in str(refused.value.hint)
    # Timelines 3 and 2 have this one in common.
    shared = World(((5, 8), (7, 12)), 14, backups=(backup(1, 2, 2),))
    with pytest.raises(TargetRefused) as refused:
        plan(
            RecoveryTarget(TargetKind.XID, xid=706, timeline=1),
            replace(shared, missing=frozenset({Segment(1, 6, SIZE)})),
        )
    assert refused.value.other_timelines == (3,)


def test_what_a_gap_may_hide_is_refused_with_the_missing_segment() -> None:
    world = World((), 12, frozenset({Segment(1, 7, SIZE)}), (backup(1, 2, 2),))
    for target in (RecoveryTarget(TargetKind.XID, xid=799), RecoveryTarget(TargetKind.NAME, name="p799")):
        with pytest.raises(TargetRefused, match=r"gaps where it may be: the WAL segment 0{7}10{15}7 is missing"):
            plan(target, world)


@pytest.mark.parametrize(
    ("segment", "where"),
    [
        (6.75, "is after the last record that can be replayed: the WAL segment 000000010000000000000007 is missing"),
        (7.5, "lies in the WAL segment 000000010000000000000007: a WAL segment is missing"),
        (8.5, "lies behind the WAL segment 000000010000000000000007: a WAL segment is missing"),
    ],
)
def test_a_position_in_a_missing_segment_is_not_called_behind_it(segment: float, where: str) -> None:
    world = World((), 12, frozenset({Segment(1, 7, SIZE)}), (backup(1, 2, 2),))
    with pytest.raises(TargetRefused, match=where):
        plan(RecoveryTarget(TargetKind.LSN, lsn=int(segment * SIZE)), world)


def test_newer_wal_is_promised_on_the_current_timeline_only() -> None:
    world = World(((5, 8),), 14, backups=(backup(1, 2, 2),))
    with pytest.raises(TargetRefused, match="is after the last commit in the archive") as refused:
        plan(at_minute(13.5), world)
    assert refused.value.not_archived
    with pytest.raises(TargetRefused, match="is after the last commit in the archive") as refused:
        plan(at_minute(8.5, timeline=1), world)
    assert not refused.value.not_archived
    assert "Timeline 1 was left for timeline 2: no newer WAL of it comes." in str(refused.value.hint)


def test_what_no_timeline_is_known_to_have_is_refused_without_a_number() -> None:
    world = World(((5, 8),), 10, backups=(backup(1, 2, 2),))
    # Timeline 1 has a position of that number too, but another record there.
    position = RecoveryTarget(TargetKind.LSN, lsn=7 * SIZE + SIZE // 2)
    for target in (position, RecoveryTarget(TargetKind.XID, xid=799)):
        with pytest.raises(TargetRefused) as refused:
            plan(target, world)
        assert refused.value.other_timelines == ()
        assert "--timeline" not in str(refused.value.hint)


def test_an_unreadable_other_timeline_does_not_hide_the_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(((5, 8),), 10, backups=(backup(1, 2, 2),))
    find = World.find_commit

    def fail_behind(self: World, xid: int, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        if path.timeline == 1:
            raise SegmentUnusable(Segment(1, 7, SIZE), "it is damaged")
        return find(self, xid, path, from_lsn)

    monkeypatch.setattr(World, "find_commit", fail_behind)
    with pytest.raises(TargetRefused, match="is not in the archived WAL of timeline 2"):
        plan(RecoveryTarget(TargetKind.XID, xid=707), world)


def test_an_unreadable_segment_of_another_timeline_is_planned_around_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(((5, 8),), 10, backups=(backup(1, 2, 2),))
    last = World.last_commit

    def fail_behind(self: World, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        if span.path.timeline == 1:
            raise SegmentUnusable(Segment(1, 7, SIZE), "it is damaged")
        return last(self, span, before_lsn)

    monkeypatch.setattr(World, "last_commit", fail_behind)
    with pytest.raises(SegmentUnusable):
        plan(at_minute(6.5), world)
