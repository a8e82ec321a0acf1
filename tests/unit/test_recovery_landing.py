"""Landings as PostgreSQL logs them: what is proven, and what is told as a fault."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lifeboat.recovery.landing import Landing, StopKind, landing_faults, read_landing
from lifeboat.recovery.planning import RestorePlan, WalPoint
from lifeboat.recovery.spans import BackupPoint, Span, SpanEnd
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import path_to
from lifeboat.wal.names import Segment, TimelineSwitch

LOG = """\
2026-11-22 15:00:00.100 UTC [77] LOG:  starting point-in-time recovery to 2026-11-22 14:03:22+00
2026-11-22 15:00:00.200 UTC [77] LOG:  restored log file "000000010000000000000005" from archive
2026-11-22 15:00:00.300 UTC [77] LOG:  consistent recovery state reached at 0/5000120
2026-11-22 15:00:01.000 UTC [77] LOG:  recovery stopping before commit of transaction 748, time 2026-11-22 14:03:22.5+00
2026-11-22 15:00:01.100 UTC [77] LOG:  redo done at 0/6000A28 system usage: CPU: user: 0.01 s, system: 0.00 s
2026-11-22 15:00:01.100 UTC [77] LOG:  last completed transaction was at log time 2026-11-22 14:03:21.75+00
2026-11-22 15:00:01.200 UTC [77] LOG:  selected new timeline ID: 2
2026-11-22 15:00:01.300 UTC [77] LOG:  archive recovery complete
"""
AT = datetime(2026, 11, 22, 14, 3, 22, tzinfo=UTC)
STOPPED = datetime(2026, 11, 22, 13, tzinfo=UTC)
POINT = BackupPoint("20261122-130000F", "basebackup", 1, 0x4000028, 0x4000120, STOPPED, ("20261122-130000F",))
SPAN = Span(POINT, path_to(1, {}, {1}), 5, 9, Segment(1, 10), SpanEnd.ARCHIVE)


def plan_to(target: RecoveryTarget, **more: object) -> RestorePlan:
    return replace(RestorePlan(target, POINT, SPAN, target.settings(1), STOPPED, target.at), **more)  # type: ignore[arg-type]


BY_TIME = plan_to(RecoveryTarget(TargetKind.TIME, at=AT))


def test_what_the_log_says() -> None:
    landing = read_landing(LOG)
    assert landing == Landing(
        StopKind.TRANSACTION,
        last_ended_at=datetime(2026, 11, 22, 14, 3, 21, 750000, tzinfo=UTC),
        next_ended_at=datetime(2026, 11, 22, 14, 3, 22, 500000, tzinfo=UTC),
        next_commit_at=datetime(2026, 11, 22, 14, 3, 22, 500000, tzinfo=UTC),
        next_xid=748,
        redo_done_lsn=0x6000A28,
        new_timeline=2,
        segments=("000000010000000000000005",),
    )
    assert str(replace(landing, last_commit_at=landing.last_ended_at)) == (
        "last commit 2026-11-22 14:03:21.750000 UTC; "
        "the next one, 2026-11-22 14:03:22.500000 UTC by transaction 748, was not"
    )
    assert landing_faults(BY_TIME, landing) == []


@pytest.mark.parametrize(
    ("found", "instead", "fault"),
    [
        ("14:03:21.75+00", "14:03:22.25+00", "a transaction's end of .*22.25.* was replayed"),
        ("14:03:22.5+00", "14:03:21.9+00", "was not replayed, which is not after"),
        ("recovery stopping before", "recovery stopped by magic before", "replay stopped at end of WAL"),
        ("LOG:  archive recovery complete", "FATAL:  recovery ended before configured recovery target was reached",
         "recovery ended before configured recovery target"),
    ],
)  # fmt: skip
def test_a_landing_elsewhere_is_a_fault(found: str, instead: str, fault: str) -> None:
    faults = landing_faults(BY_TIME, read_landing(LOG.replace(found, instead)))
    assert re.search(fault, "; ".join(faults))


def test_just_before_a_commit_of_the_very_moment() -> None:
    exact = LOG.replace("14:03:22.5+00", "14:03:22+00")
    assert landing_faults(BY_TIME, read_landing(exact)) != []
    before = plan_to(RecoveryTarget(TargetKind.TIME, at=AT, inclusive=False))
    assert landing_faults(before, read_landing(exact)) == []


@pytest.mark.parametrize(
    ("line", "target", "other"),
    [
        ('recovery stopping after WAL location (LSN) "0/6000A28"',
         RecoveryTarget(TargetKind.LSN, lsn=0x6000A20), RecoveryTarget(TargetKind.LSN, lsn=0x6000A30)),
        ('recovery stopping after WAL location (LSN) "0/6000A28"',
         RecoveryTarget(TargetKind.LSN, lsn=0x6000A28), RecoveryTarget(TargetKind.XID, xid=748)),
        ('recovery stopping before WAL location (LSN) "0/6000A28"',
         RecoveryTarget(TargetKind.LSN, lsn=0x6000A28, inclusive=False), RecoveryTarget(TargetKind.LSN, lsn=0x6000A28)),
        ("recovery stopping before commit of transaction 748, time 2026-11-22 14:03:22.5+00",
         RecoveryTarget(TargetKind.XID, xid=(1 << 32) + 748, inclusive=False), RecoveryTarget(TargetKind.XID, xid=748)),
        ("recovery stopping after abort of transaction 748, time 2026-11-22 14:03:22.5+00",
         RecoveryTarget(TargetKind.XID, xid=(7 << 32) + 748), RecoveryTarget(TargetKind.XID, xid=749)),
        ("recovery stopping after commit of transaction 748, time 2026-11-22 14:03:22.5+00",
         RecoveryTarget(TargetKind.XID, xid=748), RecoveryTarget(TargetKind.XID, xid=748, inclusive=False)),
        ("recovery stopping after reaching consistency",
         RecoveryTarget(TargetKind.BACKUP, backup=POINT.label), RecoveryTarget(TargetKind.LSN, lsn=0x6000A28)),
    ],
)  # fmt: skip
def test_the_other_targets(line: str, target: RecoveryTarget, other: RecoveryTarget) -> None:
    landing = read_landing("\n".join([line, *LOG.splitlines()[4:]]))
    assert landing_faults(plan_to(target), landing) == []
    assert landing_faults(plan_to(other), landing) != []


def test_the_latest_moment_must_have_been_reached() -> None:
    landing = read_landing("\n".join(LOG.splitlines()[4:]))
    latest = plan_to(RecoveryTarget(), not_before=datetime(2026, 11, 22, 14, 3, 21, 750000, tzinfo=UTC), at_end=True)
    assert landing.stop is StopKind.END_OF_WAL
    assert landing_faults(latest, landing) == []
    assert landing_faults(replace(latest, not_before=AT), landing) != []


def test_a_restore_point_is_proven_by_its_position_and_named() -> None:
    said = 'recovery stopping after WAL location (LSN) "0/6000A28"'
    landing = read_landing("\n".join([said, *LOG.splitlines()[4:]]))
    named = RecoveryTarget(TargetKind.NAME, name="before release")
    plan = plan_to(named, settings={"recovery_target_lsn": "0/6000A28"}, point=WalPoint(AT, 0x6000A28, 1))
    assert landing_faults(plan, landing) == []
    assert landing_faults(replace(plan, point=WalPoint(AT, 0x6000A20, 1)), landing) != []
    assert str(replace(landing, name=named.name)).endswith("; stopped at restore point before release")


def test_a_backups_end_must_be_stopped_at() -> None:
    """A plan for the latest moment that has to stop there is not proven by the end of WAL."""
    landing = read_landing("\n".join(LOG.splitlines()[4:]))
    assert landing_faults(plan_to(RecoveryTarget(), settings={"recovery_target": "immediate"}), landing) != []


def test_wal_of_a_timeline_that_was_left_is_a_fault() -> None:
    """PostgreSQL takes the older timeline's segment where the newer one's cannot be had."""
    path = path_to(2, {2: (TimelineSwitch(1, 0x6000A00, ""),)}, {1, 2})
    span = Span(POINT, path, 5, 9, Segment(2, 10), SpanEnd.ARCHIVE)
    latest = plan_to(RecoveryTarget(), span=span)
    log = "\n".join(LOG.splitlines()[4:])
    for timeline, lsn, is_left in ((1, "6000A28", True), (2, "6000A28", False), (1, "60009F8", False)):
        segment = f'restored log file "0000000{timeline}0000000000000006" from archive'
        faults = landing_faults(latest, read_landing(f"{segment}\n{log.replace('6000A28', lsn)}"))
        assert bool(faults) == is_left
    assert faults == []


@pytest.mark.parametrize(
    ("who", "ends"),
    [
        ("client backend", False),
        ("dead-end client backend", False),
        ("parallel worker", False),
        ("startup", True),
        ("postmaster", True),
    ],
)
def test_what_a_client_was_refused_does_not_end_recovery(who: str, ends: bool) -> None:
    refused = f'2026-11-22 15:00:00.300 UTC [78] {who}: FATAL:  database "studio" does not exist\n'
    landing = read_landing(refused + LOG)
    assert landing.fatal == ('database "studio" does not exist' if ends else None)
    assert (landing_faults(BY_TIME, landing) != []) == ends
    assert read_landing(refused.replace("FATAL", "PANIC")).fatal is not None


def test_a_recovery_without_any_commit() -> None:
    landing = read_landing(LOG.replace("last completed transaction was", "nothing was"))
    assert landing.last_ended_at is None
    assert str(landing).startswith("no commit replayed; the next commit, 2026-11-22 14:03:22.5")
    assert landing_faults(BY_TIME, landing) == []


def test_the_very_last_commit_is_proven_by_its_position() -> None:
    """The log names the commit before it: PostgreSQL stops behind a position before it takes the record's moment."""
    said = 'recovery stopping after WAL location (LSN) "0/6000A28"'
    landing = read_landing("\n".join([said, *LOG.splitlines()[4:]]))
    assert landing.stop_lsn == landing.redo_done_lsn == 0x6000A28
    for target in (RecoveryTarget(), RecoveryTarget(TargetKind.TIME, at=AT)):
        settings = {"recovery_target_lsn": "0/6000A28"}
        plan = plan_to(target, settings=settings, not_before=AT, at_end=True, last=WalPoint(AT, 0x6000A28, 1))
        assert landing_faults(plan, landing) == []
        assert landing_faults(plan, replace(landing, redo_done_lsn=None)) == []
        for elsewhere in ({"stop_lsn": 0x6000A80}, {"redo_done_lsn": 0x60009F0}, {"stop": StopKind.END_OF_WAL}):
            assert landing_faults(plan, replace(landing, **elsewhere)) != []


@pytest.mark.parametrize(("side", "behind"), [("after", True), ("before", False)])
def test_a_rollback_is_told_as_one(side: str, behind: bool) -> None:
    """The log has its moment where it has that of a last commit: without WAL none is named."""
    line = f"recovery stopping {side} abort of transaction 748, time 2026-11-22 14:03:21.75+00"
    landing = read_landing("\n".join([line, *LOG.splitlines()[4:]]))
    assert (landing.last_xid, landing.next_xid) == ((748, None) if behind else (None, 748))
    assert landing.last_commit_at is landing.next_commit_at is None
    stopped = f"; stopped {side} the rollback of transaction 748"
    assert str(landing) == f"replayed at least up to 2026-11-22 14:03:21.750000 UTC{stopped}"
    assert str(replace(landing, last_commit_at=AT)) == f"last commit 2026-11-22 14:03:22 UTC{stopped}"


def test_behind_a_position_no_last_commit_is_taken_from_the_log() -> None:
    said = 'recovery stopping after WAL location (LSN) "0/6000A28"'
    landing = read_landing("\n".join([said, *LOG.splitlines()[4:]]))
    assert landing.last_commit_at is None
    assert str(landing) == "replayed at least up to 2026-11-22 14:03:21.750000 UTC; stopped at position"
    # Where the log has none either, and WAL cannot be read, there may have been one.
    assert str(replace(landing, last_ended_at=None, unread=True)) == "last commit not known; stopped at position"
