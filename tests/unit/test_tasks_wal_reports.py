"""What runs tell of WAL: the pages that an administrator reads."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.operations.wal.health import WalHealthReport
from lifeboat.operations.wal.status import WalStatus
from lifeboat.wal.coverage import ArchiveListing, SegmentRange
from lifeboat.wal.health import ArchiverState, HealthFinding, ServerWal, Severity, Slot, Verdict
from lifeboat.wal.names import Segment
from lifeboat.wal.scrub import ScrubReport
from lifeboat.wal.scrub_record import FindingKind, ScrubFinding
from tasks.wal_figures import server_facts
from tasks.wal_report import health_report, scrub_report

AT = datetime(2026, 11, 23, 12, tzinfo=UTC)
SEGMENT = Segment(1, 7)
SERVER = ServerWal(
    now=AT,
    in_recovery=False,
    archives=True,
    segment_size_bytes=SEGMENT.size_bytes,
    current_lsn=SEGMENT.end_lsn + 2_000_000,
    timeline=1,
    archiver=ArchiverState(7, SEGMENT.name, AT, 2, SEGMENT.name, AT),
    waiting=0,
    slots=(Slot("standby", "physical", False, "reserved", None, 5_000_000),),
    heartbeat_age_seconds=2.34,
)
LISTING = ArchiveListing(
    Path("/store/main/wal"), "7", SEGMENT.size_bytes, (), (SegmentRange(SEGMENT, SEGMENT),), (), (), (), ()
)
STATUS = WalStatus("the WAL archive /store/main/wal", LISTING, None, None, SERVER, None)


def test_a_page_about_a_sound_archive() -> None:
    text = health_report(WalHealthReport(AT, STATUS, SERVER, Verdict(())))
    assert text.startswith("# WAL archiving: healthy\n\n2026-11-23 12:00:00 UTC")
    assert "| WAL not archived yet | 2.0 MB |" in text
    assert "| newest heartbeat | 2.3 s old |" in text
    assert "| standby | physical | NO | reserved | 5.0 MB | unlimited |" in text
    assert "| contents all read | not yet: `lifeboat wal verify` |" in text


def test_a_page_about_an_alert_says_what_to_do() -> None:
    finding = HealthFinding(Severity.ALERT, "gap", "WAL: 7 | 8 missing", "Take a new full backup.")
    text = health_report(WalHealthReport(AT, STATUS, SERVER, Verdict((finding,), "7 is missing")))
    assert text.startswith("# WAL archiving: 1 alert")
    assert "| alert | WAL: 7 \\| 8 missing | Take a new full backup. |" in text
    assert "**A full backup is wanted**: 7 is missing." in text


def test_a_page_without_archive_or_server() -> None:
    finding = HealthFinding(Severity.ALERT, "archive-unreadable", "it is away", "")
    text = health_report(WalHealthReport(AT, None, None, Verdict((finding,))))
    assert "| archive | cannot be read |" in text


def test_figures_that_are_not_known() -> None:
    nothing = ArchiverState(0, None, None, 0, None, None)
    facts = dict(server_facts(replace(SERVER, archiver=nothing, waiting=None, heartbeat_age_seconds=None)))
    assert facts == {
        "last archived": "nothing yet",
        "finished segments that wait": "?",
        "WAL not archived yet": "not known: nothing was archived yet",
        "failures of archive_command": "0",
        "newest heartbeat": "never",
    }
    assert server_facts(None) == []
    promoted = replace(SERVER, timeline=2, archiver=replace(SERVER.archiver, last_archived_wal="00000002.history"))
    assert dict(server_facts(promoted))["WAL not archived yet"] == (
        "not known: no segment of timeline 2 was archived yet, the last file was 00000002.history"
    )
    standby = replace(SERVER, in_recovery=True, timeline=None)
    assert dict(server_facts(standby))["WAL not archived yet"] == "not known: the server is in recovery"


def test_a_page_about_damage_names_every_file() -> None:
    finding = ScrubFinding(name=SEGMENT.name, kind=FindingKind.ZEROED, reason="it holds nothing but zeros", found_at=AT)
    gap = SegmentRange(SEGMENT.following(), SEGMENT.following(2))
    report = ScrubReport("here", AT, 2.0, 3, 3 << 24, 4, (finding,), (finding,), (gap,), ("no records",))
    text = scrub_report(report)
    assert text.startswith("# WAL archive: 2 findings")
    assert f"| {SEGMENT.name} | zeroed | it holds nothing but zeros | 2026-11-23 12:00:00 UTC |" in text
    assert f"| {gap.first.name} to {gap.last.name} | gap | missing |  |" in text
    assert "Note: no records" in text
    assert "| left for the next run | 4 segments |" in text
    sound = replace(report, findings=(), gaps=(), notes=(), segments_left=0)
    assert scrub_report(sound).startswith("# WAL archive: sound")
