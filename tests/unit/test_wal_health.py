"""The verdict on archiving: what is an alert, what a warning, and when a full backup is asked for."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lifeboat.operations.wal.index_stops import is_due
from lifeboat.settings.wal import WalHealthSettings
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.wal.coverage import ArchiveListing, SegmentRange, contiguous_ranges, gaps_between
from lifeboat.wal.health import (
    ArchiverState,
    BackupStart,
    Hole,
    ServerWal,
    Severity,
    Slot,
    Verdict,
    alarming_holes,
    due_gaps,
    holes_of,
    judge,
    open_holes,
)
from lifeboat.wal.health_freshness import judge_heartbeat, judge_rpo
from lifeboat.wal.health_memory import HEALTH_NAME, HealthMemory, load_memory, store_memory
from lifeboat.wal.names import Segment

SIZE = 16 << 20
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIMITS = WalHealthSettings()


def segment(number: int, timeline: int = 1) -> Segment:
    return Segment(timeline, number, SIZE)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


SOUND = ServerWal(
    now=NOW,
    in_recovery=False,
    archives=True,
    segment_size_bytes=SIZE,
    current_lsn=segment(10).start_lsn + 1000,
    timeline=1,
    archiver=ArchiverState(9, segment(9).name, ago(20), 0, None, None),
    waiting=0,
    heartbeat_age_seconds=1.0,
)


def verdict(server: ServerWal | None = SOUND, *holes: Hole) -> Verdict:
    return judge(server, holes, [], (), LIMITS)


def codes(given: Verdict, severity: Severity = Severity.ALERT) -> list[str]:
    return [item.code for item in given.findings if item.severity is severity]


def test_a_sound_server_is_healthy() -> None:
    assert verdict() == Verdict((), None)
    assert SOUND.lag_bytes == 1000
    assert SOUND.segments_behind == 0


def test_a_failing_archiver_is_an_alert_until_it_succeeds() -> None:
    failing = replace(SOUND.archiver, failed_count=3, last_failed_wal=segment(10).name, last_failed_at=ago(5))
    found = verdict(replace(SOUND, archiver=failing))
    assert codes(found) == ["archiver-fails"]
    assert "failed 5 s ago, 3 failures in all; the last success was 20 s ago" in found.findings[0].what
    never = replace(failing, last_archived_wal=None, last_archived_at=None, archived_count=0)
    assert "none has succeeded yet" in verdict(replace(SOUND, archiver=never)).findings[0].what
    assert verdict(replace(SOUND, archiver=replace(failing, last_failed_at=ago(30)))).healthy


def test_a_hanging_archiver_is_an_alert_once_a_segment_waits_too_long() -> None:
    waiting = replace(SOUND, waiting=2, oldest_waiting_at=ago(60))
    assert verdict(waiting) == Verdict(())
    found = verdict(replace(waiting, oldest_waiting_at=ago(121)))
    assert codes(found) == ["archiver-stalled"]
    assert "2 finished segments wait to be archived, the oldest one was finished 121 s ago" in str(found.findings[0])
    # A role that may not list the waiting ones still sees the position, and when something was archived last.
    blind = replace(SOUND, waiting=None, current_lsn=segment(12).end_lsn)
    assert blind.segments_behind == 3
    assert verdict(blind).healthy
    assert codes(verdict(replace(blind, archiver=replace(SOUND.archiver, last_archived_at=ago(500))))) == [
        "archiver-stalled"
    ]


def test_many_waiting_segments_are_a_warning_and_a_quiet_server_is_not() -> None:
    many = verdict(replace(SOUND, waiting=17, oldest_waiting_at=ago(10)))
    assert (many.healthy, codes(many, Severity.WARNING)) == (True, ["archiver-behind"])
    assert verdict(replace(SOUND, archiver=replace(SOUND.archiver, last_archived_at=ago(90_000)))).healthy


def test_a_server_that_does_not_archive_and_a_standby() -> None:
    assert codes(verdict(replace(SOUND, archives=False))) == ["archiving-off"]
    standby = replace(SOUND, in_recovery=True, current_lsn=None, timeline=None, archives=False)
    assert codes(verdict(standby), Severity.WARNING) == ["standby"]
    assert standby.lag_bytes is None


def test_the_lag_is_unknown_on_another_timeline() -> None:
    other = replace(SOUND, timeline=2, waiting=None)
    assert (other.lag_bytes, other.segments_behind) == (None, None)
    history = replace(SOUND, archiver=replace(SOUND.archiver, last_archived_wal="00000002.history"))
    assert history.lag_bytes is None


def slot(**changes: object) -> list[str]:
    made = replace(Slot("standby", "physical", True, "reserved", None, 1000), **changes)  # type: ignore[arg-type]
    found = verdict(replace(SOUND, slots=(made,)))
    return [f"{item.severity} {item.code}" for item in found.findings]


def test_slots() -> None:
    assert slot() == []
    assert slot(wal_status="extended") == []
    assert slot(wal_status="lost", active=False) == ["alert slot-lost"]
    assert slot(wal_status="unreserved") == ["alert slot-unreserved"]
    assert slot(safe_bytes=LIMITS.min_slot_safe_bytes - 1) == ["alert slot-unreserved"]
    assert slot(safe_bytes=LIMITS.min_slot_safe_bytes) == []
    assert slot(active=False) == ["warning slot-inactive"]
    assert slot(active=False, retained_bytes=LIMITS.max_slot_retained_bytes + 1) == ["alert slot-inactive"]
    assert slot(active=False, retained_bytes=None) == ["warning slot-inactive"]
    # A consumer that is connected and far behind keeps as much WAL as one that is away.
    assert slot(retained_bytes=LIMITS.max_slot_retained_bytes) == []
    assert slot(retained_bytes=LIMITS.max_slot_retained_bytes + 1) == ["alert slot-behind"]
    assert slot(retained_bytes=None) == []
    # One look cannot tell whether it advances.
    behind = Slot("standby", "physical", True, "reserved", None, LIMITS.max_slot_retained_bytes + 1)
    (found,) = verdict(replace(SOUND, slots=(behind,))).findings
    assert "is active, but its consumer is far behind: it keeps" in found.what


def test_an_inactive_slot_without_a_limit_is_advised_one() -> None:
    idle = Slot("standby", "physical", False, "reserved", None, 5)
    without, limited = (
        verdict(replace(SOUND, slots=(idle,), slots_are_limited=limited)).findings[0] for limited in (False, True)
    )
    assert "set max_slot_wal_keep_size" in without.advice
    assert "max_slot_wal_keep_size" not in limited.advice
    assert "pg_drop_replication_slot('standby')" in limited.advice


def rpo(server: ServerWal) -> list[str]:
    return [f"{item.severity} {item.code}: {item.what}" for item in judge_rpo(server, 30.0, 120.0)]


def rpo_advice(server: ServerWal) -> str:
    (found,) = judge_rpo(server, 30.0, 120.0)
    return found.advice


def test_a_server_that_was_just_started_has_time_to_archive() -> None:
    """What was archived last outlives a restart: a day's downtime is no loss, and nothing ends a segment at first."""
    day = replace(SOUND, archiver=replace(SOUND.archiver, last_archived_at=ago(86_400)), checkpoint_timeout_seconds=300)
    assert rpo(replace(day, started_at=ago(1))) == rpo(replace(day, started_at=ago(150))) == []
    # Nothing may end a segment before the checkpointer wakes: no alert yet, but not healthy without a word either.
    for seconds in (151, 450):
        (early,) = rpo(replace(day, started_at=ago(seconds)))
        assert early.startswith(f"warning rpo: if the server were lost now, the commits of the last {seconds} s")
    (found,) = rpo(replace(day, started_at=ago(451)))
    assert found.startswith("alert rpo")
    assert "the commits of the last 451 s would be" in found
    assert "the last archived segment came 86400 s ago" in found


def test_the_advice_names_the_archive_timeout_in_force() -> None:
    late = replace(
        SOUND, archiver=replace(SOUND.archiver, last_archived_at=ago(18_000)), checkpoint_timeout_seconds=300
    )
    off, longer, right = (rpo_advice(replace(late, archive_timeout_seconds=seconds)) for seconds in (0, 60, 30))
    assert off.startswith("Set archive_timeout on the server to 30 s")
    assert off.endswith("it is 0, which waits until a segment is full.")
    assert longer.endswith("it is 60 s.")
    assert right == "archive_timeout is 30 s on the server: look whether archiving is slow or hangs."
    new = rpo_advice(replace(late, archive_timeout_seconds=30, started_at=ago(200)))
    assert "archive_timeout (30 s) only 300 s after its start; SELECT pg_reload_conf()" in new


def test_a_server_may_wait_as_long_as_it_is_told_to() -> None:
    patient = replace(SOUND, archive_timeout_seconds=3600)
    quiet = replace(patient, archiver=replace(SOUND.archiver, last_archived_at=ago(3720)))
    assert rpo(quiet) == []
    assert len(rpo(replace(quiet, archiver=replace(SOUND.archiver, last_archived_at=ago(3721))))) == 1
    assert len(rpo(replace(quiet, archive_timeout_seconds=10))) == 1


def test_commits_that_are_not_archived_for_long_are_an_alert() -> None:
    hours = replace(SOUND, archiver=replace(SOUND.archiver, last_archived_at=ago(18_000)))
    (found,) = rpo(hours)
    assert found.startswith("alert rpo: if the server were lost now, the commits of the last 18000 s would be: 1,000 b")
    assert rpo(SOUND) == []
    assert rpo(replace(SOUND, archiver=replace(SOUND.archiver, last_archived_at=ago(150)))) == []
    # Nobody knows of a commit since: a server that idles without an agent is no alarm.
    assert rpo(replace(hours, heartbeat_age_seconds=None)) == []
    assert rpo(replace(hours, heartbeat_age_seconds=18_001)) == []
    assert rpo(replace(hours, current_lsn=segment(9).end_lsn)) == []
    assert rpo(replace(hours, archives=False)) == rpo(replace(hours, in_recovery=True)) == []
    assert rpo(replace(SOUND, archiver=replace(SOUND.archiver, last_archived_wal=None, last_archived_at=None))) == []


def test_heartbeats() -> None:
    assert not list(judge_heartbeat(5.0, 60.0, expected=True))
    assert heartbeat(61.0) == ["alert heartbeat-silent"]
    # One that is wanted no more must not be an alert for ever.
    assert heartbeat(61.0, expected=False) == ["warning heartbeat-silent"]
    assert heartbeat(None) == ["warning heartbeat-absent"]
    assert heartbeat(None, absent_seconds=60.0) == ["warning heartbeat-absent"]
    assert heartbeat(None, absent_seconds=61.0) == ["alert heartbeat-absent"]
    assert heartbeat(None, expected=False, absent_seconds=61.0) == []


def heartbeat(age_seconds: float | None, *, expected: bool = True, absent_seconds: float = 0.0) -> list[str]:
    found = judge_heartbeat(age_seconds, 60.0, expected=expected, absent_seconds=absent_seconds)
    return [f"{item.severity} {item.code}" for item in found]


def test_a_gap_is_an_alert_and_asks_for_a_full_backup_behind_it() -> None:
    gap = Hole(segment(4), segment(5), damaged=False)
    found = judge(SOUND, [gap], [BackupStart("old", 1, segment(3).start_lsn)], (), LIMITS)
    assert codes(found) == ["gap"]
    assert found.full_wanted is not None
    assert found.full_wanted.startswith("000000010000000000000004 to 000000010000000000000005 missing in the archive")
    assert "new full backup" in found.findings[0].advice
    # It stays an alert however often it was told of, until a full backup begins behind it.
    assert codes(judge(SOUND, [gap], [], {gap.key}, LIMITS)) == ["gap"]
    behind = [BackupStart("new", 1, segment(6).start_lsn)]
    bridged = judge(SOUND, [gap], behind, (), LIMITS)
    assert (codes(bridged), bridged.full_wanted) == (["gap"], None)
    told = judge(SOUND, [gap], behind, {gap.key}, LIMITS)
    assert (told.healthy, codes(told, Severity.WARNING)) == (True, ["gap"])
    assert alarming_holes([gap], [], {gap.key}) == alarming_holes([gap], behind, ()) == (gap,)
    assert alarming_holes([gap], behind, {gap.key}) == ()


def test_without_knowledge_of_the_backups_none_is_asked_for() -> None:
    gap = Hole(segment(4), segment(4), damaged=True)
    found = judge(None, [gap], None, (), LIMITS)
    assert (codes(found), found.full_wanted) == (["damaged"], None)


numbers = st.sets(st.integers(0, 30), min_size=2)


@given(numbers, st.sets(st.integers(0, 30)))
def test_holes_are_the_missing_and_the_damaged_each_once(there: set[int], hurt: set[int]) -> None:
    low, high = min(there), max(there)
    ranges = contiguous_ranges(segment(number) for number in there)
    holes = holes_of(gaps_between(ranges), {segment(number) for number in hurt})
    covered = [number for hole in holes for number in range(hole.first.number, hole.last.number + 1)]
    assert len(covered) == len(set(covered))
    assert set(covered) == (set(range(low, high + 1)) - there) | hurt
    assert {hole.first.number for hole in holes if hole.damaged} == hurt
    assert list(holes) == sorted(holes, key=lambda hole: hole.first)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20)), max_size=5), st.integers(1, 3), st.integers(0, 20))
def test_a_hole_is_open_unless_a_full_backup_begins_behind_it(
    fulls: list[tuple[int, int]], timeline: int, number: int
) -> None:
    hole = Hole(segment(number, timeline), segment(number, timeline), damaged=False)
    starts = [BackupStart("full", of, segment(at).start_lsn) for of, at in fulls]
    is_open = open_holes([hole], starts) == (hole,)
    assert is_open == all(of < timeline or (of == timeline and at <= number) for of, at in fulls)


def due(*numbers: int, archived: str | None = segment(9).name, known: bool = True) -> list[SegmentRange]:
    server = replace(SOUND, archiver=replace(SOUND.archiver, last_archived_wal=archived))
    ranges = contiguous_ranges(segment(number) for number in numbers)
    return due_gaps(ranges, gaps_between(ranges), server if known else None)


def test_what_the_server_archived_must_be_there() -> None:
    assert due(8, 9) == []
    assert due(8, 9, 10) == []
    assert due(6, 7) == [SegmentRange(segment(8), segment(9))]
    assert due() == [SegmentRange(segment(9), segment(9))]
    assert due(7, archived="00000002.history") == []
    assert due(7, archived=f"{segment(9).name}.00000028.backup") == []


def test_where_only_a_receiver_archives_the_index_waits_for_nothing_it_pushed_behind() -> None:
    # The archiver last told of a segment long ago: that says nothing of what a receiver has pushed since.
    server = replace(SOUND, archives=False, archiver=replace(SOUND.archiver, last_archived_wal=segment(3).name))
    ranges = contiguous_ranges([segment(2), segment(3), segment(5), segment(6)])
    listing = ArchiveListing(Path("/archive"), "1", SIZE, (), ranges, gaps_between(ranges), (), (), ())
    assert not is_due(server, listing, segment(4))
    assert is_due(replace(server, receives_only=True), listing, segment(4))


def test_what_is_still_on_its_way_is_no_gap() -> None:
    assert due(8, 9, 12) == []
    assert due(7, 12) == [SegmentRange(segment(8), segment(9))]
    assert due(4, 6, 9, 12) == [SegmentRange(segment(5), segment(5)), SegmentRange(segment(7), segment(8))]
    assert due(9, 12, archived=None) == [SegmentRange(segment(10), segment(11))]
    assert due(9, 12, known=False) == [SegmentRange(segment(10), segment(11))]
    assert due(9, 12, archived=segment(9, timeline=2).name) == [
        SegmentRange(segment(10), segment(11)),
        SegmentRange(segment(9, timeline=2), segment(9, timeline=2)),
    ]


def test_a_wish_for_a_full_backup_keeps_its_time_as_long_as_it_is_the_same(tmp_path: Path) -> None:
    first = HealthMemory().wishing("a gap", ago(100))
    assert first.wishing("a gap", NOW) == first
    # A full backup that answered the first wish began before the second hole: it is no answer to that.
    second = first.wishing("another gap", NOW)
    assert second.full_wanted is not None
    assert (second.full_wanted.since, second.full_wanted.reason) == (NOW, "another gap")
    assert second.wishing(None, NOW) == HealthMemory()
    told = second.told({"a"}, ago(100)).told({"a", "b"}, NOW, heartbeat_absent=True)
    assert told.known == {"a": ago(100), "b": NOW}
    assert told.full_wanted == second.full_wanted
    assert told.told({"b"}, NOW).known == {"b": NOW}
    assert told.heartbeat_absent_since == NOW
    assert told.told((), NOW + timedelta(hours=1), heartbeat_absent=True).heartbeat_absent_since == NOW
    assert told.told((), NOW).heartbeat_absent_since is None
    second = told
    destination = FilesystemDestination("primary", tmp_path)
    assert load_memory(destination, "studio") == HealthMemory()
    store_memory(destination, "studio", second)
    assert load_memory(destination, "studio") == second
    (tmp_path / "studio" / HEALTH_NAME).write_text("{")
    assert load_memory(destination, "studio") == HealthMemory()
