"""How far each backup can be replayed: pure, from the archive's listing and the backups' manifests."""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lifeboat.recovery.timelines import Histories, TimelinePath
from lifeboat.wal.coverage import SegmentRange
from lifeboat.wal.names import Segment


@dataclass(frozen=True)
class BackupPoint:
    """A physical backup as a place where replay can begin.

    `stopped_at` is when it became consistent: no earlier moment can be reached with it. Every commit up to `stop_lsn`
    bears a time at or before it (engines/backup_end.py says why), so that recovery to any T from then on passes
    `stop_lsn` before it meets a commit after T. `own_wal` says that it holds the WAL up to `stop_lsn` itself.
    `unusable` names what speaks against it (suspect, a broken chain).
    """

    label: str
    engine: str
    timeline: int
    start_lsn: int
    stop_lsn: int
    stopped_at: datetime
    chain: tuple[str, ...]
    own_wal: bool = True
    unusable: str | None = None


@dataclass(frozen=True)
class ArchivedWal:
    """What an archive can deliver: sound segments as ranges, those known to be bad, and the timelines' histories."""

    segment_size_bytes: int
    ranges: tuple[SegmentRange, ...]
    damaged: frozenset[Segment]
    histories: Histories

    @classmethod
    def of(
        cls, ranges: Iterable[SegmentRange], damaged: Collection[Segment], histories: Histories, size_bytes: int
    ) -> "ArchivedWal":
        """Take `damaged` (what a scrub found, for instance) out of the ranges of a listing."""
        bad = frozenset(damaged)
        sound: list[SegmentRange] = []
        for item in ranges:
            sound += _without(item, sorted(each for each in bad if item.contains(each)))
        return cls(size_bytes, tuple(sorted(sound, key=lambda each: each.first)), bad, histories)

    @property
    def timelines(self) -> frozenset[int]:
        """Timelines that have segments."""
        return frozenset(item.timeline for item in self.ranges)

    def range_of(self, segment: Segment) -> SegmentRange | None:
        """The range that a segment lies in."""
        position = bisect_right(self.ranges, segment, key=lambda each: each.first)
        found = self.ranges[position - 1] if position else None
        return found if found is not None and found.contains(segment) else None

    def runs_on(self, path: TimelinePath) -> list[range]:
        """The unbroken runs of archived segments along a path, by number, in order."""
        found: list[tuple[int, int]] = []
        for item in self.ranges:
            numbers = [
                number
                for number in range(item.first.number, item.last.number + 1)
                if path.segment(number, self.segment_size_bytes).timeline == item.timeline
            ]
            if numbers and path.stretch(item.timeline) is not None:
                found.append((numbers[0], numbers[-1]))
        merged: list[tuple[int, int]] = []
        for first, last in sorted(found):
            if merged and merged[-1][1] + 1 == first:
                merged[-1] = (merged[-1][0], last)
            else:
                merged.append((first, last))
        return [range(first, last + 1) for first, last in merged]

    def has_after(self, segment: Segment, path: TimelinePath) -> bool:
        """Whether the archive goes on behind a missing segment, on the way to the path's timeline."""
        return any(
            (stretch := path.stretch(item.timeline)) is not None
            and item.last.number > segment.number
            and (stretch.end_lsn is None or (segment.number + 1) * self.segment_size_bytes <= stretch.end_lsn)
            for item in self.ranges
        )


class SpanEnd(StrEnum):
    """Why replay cannot go on behind a span."""

    ARCHIVE = "the archive ends"
    GAP = "a WAL segment is missing"
    DAMAGE = "a WAL segment is damaged"


@dataclass(frozen=True)
class Span:
    """What one backup and the WAL behind it can reach on a path.

    Segments from `first_number` on are wanted from the archive; those up to `last_number`, included, are there.
    `missing` is the first that is not.
    """

    backup: BackupPoint
    path: TimelinePath
    first_number: int
    last_number: int
    missing: Segment
    end: SpanEnd

    @property
    def needs_archive(self) -> bool:
        """Whether any archived segment lies behind the backup."""
        return self.last_number >= self.first_number

    @property
    def ends_at_switch(self) -> bool:
        """Whether what is missing is the segment that a newer timeline begins in.

        In its place PostgreSQL takes the older timeline's segment of that number (XLogFileReadAnyTLI), and replays
        behind the switch what was given up there.
        """
        stretch = self.path.stretch(self.missing.timeline)
        begin_lsn = stretch.begin_lsn if stretch is not None else 0
        return begin_lsn > 0 and begin_lsn // self.missing.size_bytes == self.missing.number

    @property
    def numbers(self) -> range:
        """The numbers of its archived segments."""
        return range(self.first_number, self.last_number + 1)

    def segments(self, size_bytes: int) -> Iterator[Segment]:
        """The archived segments of the span, in the order of replay."""
        for number in self.numbers:
            yield self.path.segment(number, size_bytes)


def span_of(backup: BackupPoint, path: TimelinePath, wal: ArchivedWal) -> Span | None:
    """How far a backup reaches on a path; None when it is not on it, or lacks WAL that it needs to be consistent."""
    size_bytes = wal.segment_size_bytes
    if not path.holds(backup.timeline, backup.stop_lsn):
        return None
    stop_number = max(backup.stop_lsn - 1, 0) // size_bytes
    # The last segment that a backup holds itself may go on behind the stop in the archive: a standby cannot switch.
    first_number = stop_number if backup.own_wal else backup.start_lsn // size_bytes
    last_number, missing = _run(path, first_number, wal)
    if last_number < stop_number:
        if not backup.own_wal:
            return None
        first_number, last_number = stop_number + 1, stop_number
    return Span(backup, path, first_number, last_number, missing, _end(missing, path, wal))


def _end(missing: Segment, path: TimelinePath, wal: ArchivedWal) -> SpanEnd:
    if missing in wal.damaged:
        return SpanEnd.DAMAGE
    return SpanEnd.GAP if wal.has_after(missing, path) else SpanEnd.ARCHIVE


def spans_on(path: TimelinePath, backups: Iterable[BackupPoint], wal: ArchivedWal) -> list[Span]:
    """The spans of all usable backups on a path, in the order in which the backups ended."""
    found = [span for backup in backups if backup.unusable is None and (span := span_of(backup, path, wal)) is not None]
    return sorted(found, key=lambda span: (span.backup.stop_lsn, span.backup.stopped_at, span.backup.label))


def _run(path: TimelinePath, first_number: int, wal: ArchivedWal) -> tuple[int, Segment]:
    """The last number of the unbroken run from `first_number` on, and the segment that ends it."""
    number = first_number
    while True:
        segment = path.segment(number, wal.segment_size_bytes)
        found = wal.range_of(segment)
        if found is None:
            return number - 1, segment
        last = found.last.number
        for stretch in path.stretches:
            begins = stretch.begin_lsn // wal.segment_size_bytes
            if begins > number:
                last = min(last, begins - 1)
        number = last + 1


def _without(item: SegmentRange, bad: Iterable[Segment]) -> list[SegmentRange]:
    begin, found = item.first, []
    for segment in bad:
        if segment > begin:
            found.append(SegmentRange(begin, segment.following(-1)))
        begin = segment.following()
    if begin <= item.last:
        found.append(SegmentRange(begin, item.last))
    return found
