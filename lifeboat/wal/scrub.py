"""The scrub: reads what archived files hold, since their names and sizes do not show a flipped or zeroed byte.

Of each segment: the checksum in its name (through `fetch`), then every page header, then the chain of its records.
The records are read by pg_waldump where the programs at hand are of the archive's major version: it takes about as long
as all the rest (100 MB of WAL in a second, 230 without it), and it sees what was archived damaged already, with a
checksum that is right. Without it a run says so and goes on; a later run with it reads those segments again, and damage
of records that was known stays known. A segment counts as read only once all of that was done.

Partial segments, histories and backup labels are few: each run reads all of them, by checksum only, since a partial
segment may end in anything.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from mmap import ACCESS_READ, mmap
from pathlib import Path

from lifeboat.commands import CommandTimeout, ToolMissing
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_to
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.coverage import ArchivedFile, ArchiveListing, ArchiveUnreadable, SegmentRange
from lifeboat.wal.names import ArchiveNameKind, InvalidWalName, Segment
from lifeboat.wal.pages import MAJOR_BY_MAGIC, SegmentPages, check_pages
from lifeboat.wal.record_chains import RecordFault, RecordsNotReadable, begins_record, check_records
from lifeboat.wal.scrub_record import (
    FindingKind,
    ScrubFinding,
    ScrubRecord,
    Window,
    checked_ranges,
    due_windows,
    segments_named,
)

WINDOW_BYTES = 128 * 1024 * 1024
_SAVE_SECONDS = 15.0


@dataclass(frozen=True)
class ScrubOrder:
    """How to read: `scratch_dir`, reachable for `tools.user`, takes up to `window_bytes` and one segment at a time.

    Around damaged records that are known already it can be three times that.

    What was read `max_age` ago is read again. After `max_seconds` no further window is begun; the next run goes on.
    """

    scratch_dir: Path
    tools: PgTools | None
    max_age: timedelta
    max_seconds: float | None = None
    window_bytes: int = WINDOW_BYTES


@dataclass(frozen=True)
class ScrubProgress:
    """How far a run is."""

    read_bytes: int
    due_bytes: int
    findings: int


@dataclass(frozen=True)
class ScrubReport:
    """What a run has read, what is known to be wrong now, and what is left for the next run; durations in seconds."""

    archive: str
    started_at: datetime
    duration_seconds: float
    segments_read: int
    bytes_read: int
    segments_left: int
    findings: tuple[ScrubFinding, ...]
    new_findings: tuple[ScrubFinding, ...]
    gaps: tuple[SegmentRange, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged and nothing is missing."""
        return not self.findings and not self.gaps


def scrub(
    archive: WalArchive,
    record: ScrubRecord | None,
    order: ScrubOrder,
    *,
    save: Callable[[ScrubRecord], None],
    on_progress: Callable[[ScrubProgress], None] | None = None,
) -> ScrubReport:
    """Read what is due and return what is wrong; `save` gets the record now and then, and at the end whatever comes.

    Raises ArchiveUnreadable where the archive as a whole cannot be read, and what `save` raises.
    """
    listing = archive.listing()
    if record is not None and not _is_of(record, listing):
        record = None
    known = record or ScrubRecord(
        system_identifier=listing.system_identifier, segment_size_bytes=listing.segment_size_bytes
    )
    run = _Run(archive, listing, known, order, save, on_progress or (lambda progress: None))
    return run.work()


def _is_of(record: ScrubRecord, listing: ArchiveListing) -> bool:
    there = (listing.system_identifier, listing.segment_size_bytes)
    return (record.system_identifier, record.segment_size_bytes) == there


@dataclass
class _Run:
    archive: WalArchive
    listing: ArchiveListing
    before: ScrubRecord
    order: ScrubOrder
    save: Callable[[ScrubRecord], None]
    on_progress: Callable[[ScrubProgress], None]
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)
    segments_read: int = 0
    left: int = 0
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.magic = self.before.magic
        self.tools = self.order.tools
        listed = {item.parsed.name for item in self.listing.files}
        self.files = {item.parsed.segment: item for item in self.listing.files if item.parsed.kind == "segment"}
        self.times = {each: at for each, at in self.before.checked_at().items() if each in self.files}
        self.records_unread = {each for each in self.before.without_records() if each in self.files}
        if self.tools is not None and self.tools.major == MAJOR_BY_MAGIC.get(self.magic or 0):
            self.times = {each: at for each, at in self.times.items() if each not in self.records_unread}
        # What is gone is no damage any more but a gap; what is damaged by the listing is looked up anew.
        self.known = {item.name: item for item in self.before.findings}
        self.findings = {
            name: item for name, item in self.known.items() if name in listed and item.kind is not FindingKind.FILE
        }
        for damaged in self.listing.damaged:
            self._find(damaged.name, FindingKind.FILE, damaged.reason)
        self.saved = self.began

    def work(self) -> ScrubReport:
        size_bytes = self.listing.segment_size_bytes
        windows = due_windows(
            self.listing.ranges,
            self.times,
            segments_named(self.findings, size_bytes),
            now=self.started_at,
            max_age=self.order.max_age,
            window_segments=max(1, self.order.window_bytes // size_bytes),
        )
        self.left = sum(len(window.segments) for window in windows)
        due_bytes = self.left * size_bytes
        try:
            self._read_small_files()
            for number, window in enumerate(windows):
                if number and self.order.max_seconds is not None and self._seconds() >= self.order.max_seconds:
                    break
                self._read(window)
                self.on_progress(ScrubProgress(self.segments_read * size_bytes, due_bytes, len(self.findings)))
                if time.monotonic() - self.saved >= _SAVE_SECONDS:
                    self._save()
        finally:
            self._save()
        return self._report()

    def _read_small_files(self) -> None:
        small = [item for item in self.listing.files if item.parsed.kind is not ArchiveNameKind.SEGMENT]
        with tempfile.TemporaryDirectory(prefix="wal-verify-", dir=self.order.scratch_dir) as folder:
            for item in small:
                name = item.parsed.name
                if self._fetch(name, Path(folder, name)):
                    self.findings.pop(name, None)
                    if item.parsed.kind is ArchiveNameKind.HISTORY:
                        self._check_history(item)
                Path(folder, name).unlink(missing_ok=True)

    def _check_history(self, item: ArchivedFile) -> None:
        try:
            self.archive.history(item.parsed.timeline)
        except InvalidWalName as error:
            self._find(item.parsed.name, FindingKind.FILE, error.message)

    def _read(self, window: Window) -> None:
        with tempfile.TemporaryDirectory(prefix="wal-verify-", dir=self.order.scratch_dir) as name:
            folder = Path(name)
            give_to(folder, self.order.tools.user if self.order.tools else None)
            whole = [segment for segment in window.segments if self._read_segment(segment, folder)]
            if not self._look_at_records(window, whole, folder):
                return  # still due, with what was known of it
        there = [segment for segment in window.segments if segment in whole or segment.name in self.findings]
        self.times |= dict.fromkeys(there, self.started_at)
        self.left -= len(window.segments)

    def _leads(self, window: Window, folder: Path) -> list[Segment]:
        """Fetch what lies before a window, back to where the record that leads into it begins."""
        found: list[Segment] = []
        lead = window.lead if self.tools is not None else None
        while lead is not None and lead in self.files and lead.name not in self.findings:
            path = folder / lead.name
            if not self._fetch(lead.name, path, is_due=False) or self._pages(path, lead).fault is not None:
                break
            found.append(lead)
            # A window's worth is enough: what is longer was checked, as far as it goes, with the window before.
            if begins_record(folder, lead) or len(found) >= len(window.segments) + 1:
                break
            lead = lead.following(-1) if lead.number else None
        return found

    def _trail(self, window: Window, folder: Path) -> tuple[list[Segment], bool]:
        """Fetch what lies behind a window that ends in a damaged record, and whether that is all of the record.

        Alone the segment in which it begins looks sound, as the damage may lie in the next one.
        """
        last, found = window.segments[-1], list[Segment]()
        known = self.findings.get(last.name)
        if self.tools is None or known is None or known.kind is not FindingKind.RECORD:
            return found, True
        # As far as a window and what leads into it, together with which it was found.
        for _ in range(2 * self.order.window_bytes // last.size_bytes + 1):
            behind = (found or [last])[-1].following()
            path = folder / behind.name
            if behind not in self.files or not self._fetch(behind.name, path, is_due=False):
                break
            if self._pages(path, behind).fault is not None:
                break
            found.append(behind)
            if begins_record(folder, behind):
                return found, True
        return found, False

    def _read_segment(self, segment: Segment, folder: Path) -> bool:
        """Fetch a segment and check its pages; whether both are sound. Known damage of its records stays known."""
        target = folder / segment.name
        self.segments_read += 1
        if not self._fetch(segment.name, target):
            return False
        pages = self._pages(target, segment)
        if pages.fault is not None:
            self._find(segment.name, FindingKind(pages.fault.kind.value), pages.fault.reason)
            target.unlink()
            return False
        if self.magic is None:
            self.magic = pages.magic
        known = self.findings.get(segment.name)
        if known is not None and known.kind is not FindingKind.RECORD:
            # Its records were never looked at: a run that ends here must not leave it as one that was read.
            self.times.pop(segment, None)
            del self.findings[segment.name]
        if self.tools is None:
            target.unlink()
        return True

    def _pages(self, path: Path, segment: Segment) -> SegmentPages:
        system = self.listing.system_identifier
        with path.open("rb") as stream:
            if path.stat().st_size != segment.size_bytes:
                return check_pages(stream.read(segment.size_bytes + 1), segment, system)
            with closing(mmap(stream.fileno(), 0, access=ACCESS_READ)) as content:
                return check_pages(content, segment, system, magic=self.magic)

    def _look_at_records(self, window: Window, whole: list[Segment], folder: Path) -> bool:
        """Check the records of a window's sound segments; False where that failed and has to be tried again."""
        major = MAJOR_BY_MAGIC.get(self.magic or 0)
        if whole and self.order.tools is None:
            self._leave_out_records("PostgreSQL's programs are not here")
        elif whole and self.tools is not None and self.tools.major != major:
            self._leave_out_records(
                f"the programs are PostgreSQL {self.tools.major}, the archive is PostgreSQL {major}"
            )
        if not whole or self.tools is None:
            self.records_unread.update(whole)
            return True
        trail, all_of_it = self._trail(window, folder)
        try:
            faults = self._faults(self.tools, [*self._leads(window, folder), *whole, *trail], folder)
        except ToolMissing as error:
            self._leave_out_records(error.message)
            self.records_unread.update(whole)
            return True
        except (RecordsNotReadable, CommandTimeout) as error:
            self._note(f"records from {window.segments[0].name} on were not checked: {error.message}")
            return False
        looked_at = {segment.name for segment in (whole if all_of_it else whole[:-1])}
        self.findings = {name: item for name, item in self.findings.items() if name not in looked_at}
        for fault in faults:
            self._find(fault.segment.name, FindingKind.RECORD, fault.reason)
        self.records_unread.difference_update(whole)
        return True

    def _faults(self, tools: PgTools, segments: list[Segment], folder: Path) -> list[RecordFault]:
        found: list[RecordFault] = []
        for run in _runs(segments):
            for segment in run:
                give_to(folder / segment.name, tools.user)
            found += check_records(tools, folder, run)
        return found

    def _leave_out_records(self, why: str) -> None:
        self._note(f"records were not checked, only checksums and page headers: {why}")
        self.tools = None

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _fetch(self, name: str, target: Path, *, is_due: bool = True) -> bool:
        try:
            self.archive.fetch(name, target)
        except WalFileMissing:
            # Expired since it was listed; if it should be there, the next listing shows a gap.
            if is_due:
                self.findings.pop(name, None)
            return False
        except WalDamaged as error:
            if is_due:
                self._find(name, FindingKind.CHECKSUM, error.message)
            return False
        except ArchiveUnreadable as error:
            self.archive.listing()  # raises where the archive is away: then nothing is known of the file
            if is_due:
                self._find(name, FindingKind.UNREADABLE, error.message)
            return False
        return True

    def _find(self, name: str, kind: FindingKind, reason: str) -> None:
        found_at = self.known[name].found_at if name in self.known else self.started_at
        self.findings[name] = ScrubFinding(name=name, kind=kind, reason=reason, found_at=found_at)

    def _save(self) -> None:
        self.saved = time.monotonic()
        self.save(
            self.before.model_copy(
                update={
                    "magic": self.magic,
                    "checked": checked_ranges(self.times, self.records_unread),
                    "findings": tuple(self.findings[name] for name in sorted(self.findings)),
                    "completed_at": self.before.completed_at if self.left else self.started_at,
                }
            )
        )

    def _report(self) -> ScrubReport:
        findings = tuple(self.findings[name] for name in sorted(self.findings))
        return ScrubReport(
            archive=self.archive.describe(),
            started_at=self.started_at,
            duration_seconds=self._seconds(),
            segments_read=self.segments_read,
            bytes_read=self.segments_read * self.listing.segment_size_bytes,
            segments_left=self.left,
            findings=findings,
            new_findings=tuple(item for item in findings if item.name not in self.known),
            gaps=self.listing.gaps,
            notes=tuple(self.notes),
        )

    def _seconds(self) -> float:
        return time.monotonic() - self.began


def _runs(segments: list[Segment]) -> list[list[Segment]]:
    """Consecutive segments together, in order."""
    runs: list[list[Segment]] = []
    for segment in sorted(set(segments)):
        if runs and runs[-1][-1].following() == segment:
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs
