"""What the scrub remembers: which segments were read when, and what was found; and which are due again.

The record lies at the destination, beside the archive, so that it is there wherever the archive is read.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby

from pydantic import AwareDatetime, BaseModel, ConfigDict

from lifeboat.errors import PermanentError
from lifeboat.storage.destination import Destination, ObjectMissing
from lifeboat.wal.coverage import ArchiveListing, SegmentRange, contiguous_ranges
from lifeboat.wal.names import InvalidWalName, Segment, parse_archive_name, parse_segment

FORMAT_VERSION = 1


class ScrubRecordDamaged(PermanentError):
    """The scrub's record cannot be understood: the next `wal verify` begins a new one."""


class FindingKind(StrEnum):
    """What can be wrong with an archived file."""

    FILE = "file"
    CHECKSUM = "checksum"
    UNREADABLE = "unreadable"
    ZEROED = "zeroed"
    FOREIGN = "foreign"
    PAGE = "page"
    RECORD = "record"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScrubFinding(_Stored):
    """One archived file that is not what it should be."""

    name: str
    kind: FindingKind
    reason: str
    found_at: AwareDatetime

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class CheckedRange(_Stored):
    """Consecutive segments that one run has read; names, first and last included.

    Without `records` only checksums and page headers, as PostgreSQL's programs were not there.
    """

    first: str
    last: str
    checked_at: AwareDatetime
    records: bool = True

    def segments(self, size_bytes: int) -> list[Segment]:
        """All of them."""
        first, last = (parse_segment(name, size_bytes) for name in (self.first, self.last))
        return [first.following(step) for step in range(last.number - first.number + 1)]


class ScrubRecord(_Stored):
    """All that is remembered of one archive; `completed_at` is when a run last left nothing due."""

    format_version: int = FORMAT_VERSION
    system_identifier: str
    segment_size_bytes: int
    magic: int | None = None
    completed_at: AwareDatetime | None = None
    checked: tuple[CheckedRange, ...] = ()
    findings: tuple[ScrubFinding, ...] = ()

    def checked_at(self) -> dict[Segment, datetime]:
        """When each segment was read last."""
        times: dict[Segment, datetime] = {}
        for item in self.checked:
            times |= dict.fromkeys(item.segments(self.segment_size_bytes), item.checked_at)
        return times

    def without_records(self) -> frozenset[Segment]:
        """Those of them of which the records were not read."""
        unread = [item.segments(self.segment_size_bytes) for item in self.checked if not item.records]
        return frozenset(segment for segments in unread for segment in segments)

    def damaged_segments(self) -> frozenset[Segment]:
        """The segments that a restore must not be led across."""
        return segments_named((item.name for item in self.findings), self.segment_size_bytes)


def checked_ranges(
    times: dict[Segment, datetime], without_records: Collection[Segment] = ()
) -> tuple[CheckedRange, ...]:
    """The shortest form of `ScrubRecord.checked_at` and `without_records`."""

    def alike(segment: Segment) -> tuple[datetime, bool]:
        return times[segment], segment not in without_records

    found: list[CheckedRange] = []
    for (checked_at, records), segments in groupby(sorted(times, key=lambda each: (*alike(each), each)), key=alike):
        found += [
            CheckedRange(first=one.first.name, last=one.last.name, checked_at=checked_at, records=records)
            for one in contiguous_ranges(segments)
        ]
    return tuple(found)


def damaged_segments(listing: ArchiveListing, record: ScrubRecord | None) -> frozenset[Segment]:
    """What recovery.spans.ArchivedWal.of takes as `damaged`: bad by the listing, or by what the scrub has read.

    A finding counts until `wal verify` has read the file again, or it is gone.
    """
    listed = {item.parsed.name for item in listing.files}
    by_contents = [item.name for item in record.findings if item.name in listed] if record is not None else []
    return segments_named([*(item.name for item in listing.damaged), *by_contents], listing.segment_size_bytes)


def segments_named(names: Iterable[str], size_bytes: int) -> frozenset[Segment]:
    """The segments among these archive names; history, backup and partial files are none."""
    found = set()
    for name in names:
        try:
            parsed = parse_archive_name(name, size_bytes)
        except InvalidWalName:
            continue
        if parsed.segment is not None and parsed.kind == "segment":
            found.add(parsed.segment)
    return frozenset(found)


@dataclass(frozen=True)
class Window:
    """Consecutive segments to read; `lead`, the one before them, has the beginning of their first record."""

    segments: tuple[Segment, ...]
    lead: Segment | None


def due_windows(  # noqa: PLR0913 - what is there, what is known, what is wanted
    ranges: Iterable[SegmentRange],
    checked_at: dict[Segment, datetime],
    doubtful: Collection[Segment],
    *,
    now: datetime,
    max_age: timedelta,
    window_segments: int,
) -> list[Window]:
    """What has to be read, in this order: doubtful segments, those never read, those read `max_age` ago, oldest first.

    Consecutive ones share a window of at most `window_segments`.
    """
    there = [(item, number) for item in ranges for number in range(item.first.number, item.last.number + 1)]
    present = {Segment(item.timeline, number, item.first.size_bytes) for item, number in there}

    def urgency(segment: Segment) -> int | None:
        if segment in doubtful:
            return 0
        if segment not in checked_at:
            return 1
        return 2 if now - checked_at[segment] >= max_age else None

    due = {segment: rank for segment in present if (rank := urgency(segment)) is not None}
    windows: list[tuple[int, datetime, Window]] = []
    for rank in range(3):
        for item in contiguous_ranges(segment for segment, its_rank in due.items() if its_rank == rank):
            for start in range(0, item.count, window_segments):
                count = min(window_segments, item.count - start)
                segments = tuple(item.first.following(start + step) for step in range(count))
                oldest = min(checked_at.get(segment, now) for segment in segments)
                before = segments[0].following(-1) if segments[0].number else None
                windows.append((rank, oldest, Window(segments, before if before in present else None)))
    return [window for _, _, window in sorted(windows, key=lambda each: (each[0], each[1], each[2].segments[0]))]


def load_record(destination: Destination, key: str) -> ScrubRecord | None:
    """The record, None before the first run; raises ScrubRecordDamaged and the destination's errors."""
    try:
        data = destination.read(key)
    except ObjectMissing:
        return None
    try:
        return ScrubRecord.model_validate_json(data)
    except ValueError as error:
        raise ScrubRecordDamaged(
            f"cannot understand {destination.describe()}/{key}: {str(error).splitlines()[0]}",
            hint="`lifeboat wal verify` reads the archive anew and replaces it.",
        ) from error


def store_record(destination: Destination, key: str, record: ScrubRecord) -> None:
    """Replace the record, durably and at once; raises the destination's errors."""
    destination.put(key, record.model_dump_json(indent=1).encode() + b"\n")
