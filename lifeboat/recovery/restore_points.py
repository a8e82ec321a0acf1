"""Which moments can be restored: pure, from backups, archived WAL, and the last commits in it.

Between the moment that a backup became consistent and the last commit behind it that WAL leads to without a hole, every
second can be had. Backups that the same WAL leads on from share one window.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import groupby, pairwise

from lifeboat.recovery.planning import WalPoint, WalReader
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span, SpanEnd, spans_on
from lifeboat.recovery.targets import time_text
from lifeboat.recovery.timelines import TimelinePath, TimelineUnknown, current_timeline, path_to
from lifeboat.wal.names import Segment


class HoleReason(StrEnum):
    """Why the moments between two windows cannot be had."""

    MISSING = "missing"
    DAMAGED = "damaged"
    NO_COMMIT = "no commit"
    BRANCH = "another timeline"


@dataclass(frozen=True)
class Window:
    """Moments that can be had, from `earliest` to `latest`, both included, and the backups that lead there.

    It is one moment, the end of a backup, where no commit behind it is archived.
    """

    earliest: datetime
    latest: datetime
    backups: tuple[str, ...]

    @property
    def seconds(self) -> tuple[datetime, datetime] | None:
        """The first and the last whole second that can be had; None where it holds none."""
        first = self.earliest.replace(microsecond=0)
        first += timedelta(seconds=1) if first < self.earliest else timedelta()
        last = self.latest.replace(microsecond=0)
        return (first, last) if first <= last else None

    def __str__(self) -> str:
        if self.earliest == self.latest:
            return f"only {time_text(self.earliest)}, the end of {self.backups[-1]}: nothing behind it can be had yet"
        first, last = self.seconds or (self.earliest, self.latest)
        return f"every second from {time_text(first)} to {time_text(last)}"


@dataclass(frozen=True)
class Hole:
    """Moments that cannot be had: those after `after` and before `before`, None for all later ones.

    `left` is the timeline that was left then, where a switch makes the hole.
    """

    after: datetime
    before: datetime | None
    reason: HoleReason
    segments: tuple[Segment, ...] = ()
    left: int | None = None

    @property
    def is_fault(self) -> bool:
        """Whether something is lost, and not only nothing to be had."""
        return self.reason not in {HoleReason.NO_COMMIT, HoleReason.BRANCH}

    def __str__(self) -> str:
        where = f"after {time_text(self.after)}" + (f" and before {time_text(self.before)}" if self.before else "")
        advice = "" if self.before else "; a new full backup makes what comes next restorable"
        return f"nothing {where} can be restored: {self._why()}{advice}"

    def _why(self) -> str:
        if self.reason is HoleReason.NO_COMMIT:
            return "no commit of that time is in the archive"
        if self.reason is HoleReason.BRANCH:
            return f"this timeline goes on from what timeline {self.left} was before; timeline {self.left} may have it"
        if len(self.segments) == 1:
            return f"the WAL segment {self.segments[0].name} is {self.reason}"
        first, last = self.segments
        count = last.number - first.number + 1
        return f"{count} WAL segments are {self.reason}, {first.name} to {last.name}"


@dataclass(frozen=True)
class TimelineReach:
    """What can be had on the way to one timeline, in the order of time; `why_not` says why nothing could be told."""

    timeline: int
    current: bool
    parent: int | None = None
    branched_lsn: int | None = None
    windows: tuple[Window, ...] = ()
    holes: tuple[Hole, ...] = ()
    why_not: str | None = None

    @property
    def earliest(self) -> datetime | None:
        """The first moment that can be had."""
        return self.windows[0].earliest if self.windows else None

    @property
    def latest(self) -> datetime | None:
        """The last moment that can be had."""
        return self.windows[-1].latest if self.windows else None

    @property
    def faults(self) -> tuple[Hole, ...]:
        """The holes that missing or damaged WAL makes."""
        return tuple(hole for hole in self.holes if hole.is_fault)


def reach_of_timelines(
    backups: Iterable[BackupPoint], wal: ArchivedWal, reader: WalReader, only: int | None = None
) -> list[TimelineReach]:
    """What can be had on each timeline that the archive or a backup knows, or on one; raises what the reader does.

    Raises TimelineUnknown for an unknown `only`.
    """
    points = list(backups)
    known = _known(points, wal)
    current = current_timeline(wal.histories, known)
    if only is not None and only not in known:
        path_to(only, wal.histories, known)
    wanted = [only] if only is not None else sorted(known)
    return [_reach(timeline, timeline == current, points, wal, reader, known) for timeline in wanted]


def _reach(  # noqa: PLR0913 - one timeline, and all that is known
    timeline: int, current: bool, points: Sequence[BackupPoint], wal: ArchivedWal, reader: WalReader, known: set[int]
) -> TimelineReach:
    try:
        path = path_to(timeline, wal.histories, known)
    except TimelineUnknown as error:
        return TimelineReach(timeline, current, why_not=error.message)
    before = path.stretches[-2] if len(path.stretches) > 1 else None
    spans = spans_on(path, points, wal)
    windows, holes = _windows_and_holes(spans, wal, reader)
    return TimelineReach(
        timeline,
        current,
        before.timeline if before else None,
        before.end_lsn if before else None,
        tuple(windows),
        tuple(holes),
        None if windows else "no usable backup leads there",
    )


def _windows_and_holes(spans: Sequence[Span], wal: ArchivedWal, reader: WalReader) -> tuple[list[Window], list[Hole]]:
    windows: list[Window] = []
    holes: list[Hole] = []
    before: Span | None = None
    for _, group in groupby(spans, key=lambda span: span.missing):
        members = list(group)
        for piece in _pieces(members, reader):
            found = list(_windows(piece))
            if windows and found and found[0].earliest > windows[-1].latest:
                after, begins = windows[-1].latest, found[0].earliest
                if piece.earlier:
                    holes.append(Hole(after, begins, HoleReason.BRANCH, left=_left(piece)))
                elif before is not None:
                    holes.append(_hole(after, begins, before, wal))
            holes += [Hole(older.latest, newer.earliest, HoleReason.NO_COMMIT) for older, newer in pairwise(found)]
            windows += found
        before = members[-1]
    if before is not None and before.end is not SpanEnd.ARCHIVE:
        holes.append(_hole(windows[-1].latest, None, before, wal))
    return windows, holes


@dataclass(frozen=True)
class _Piece:
    """What the same WAL leads to between two switches: the backups that ended there, and those that lead there.

    `first` and `last` are its commits; `first` counts only where an earlier backup leads there.
    """

    begin_lsn: int
    spans: tuple[Span, ...]
    earlier: tuple[Span, ...]
    first: WalPoint | None
    last: WalPoint | None


def _pieces(spans: Sequence[Span], reader: WalReader) -> Iterator[_Piece]:
    """The pieces that have anything. Planning refuses a moment between the commits of two of them, and so do we."""
    newest = _last_commit(spans, reader, None)
    path, oldest = spans[0].path, spans[0]
    # A switch that no commit is archived behind makes no second piece.
    switches = [at for at in path.switches_behind(oldest.backup.stop_lsn) if newest is not None and newest.lsn >= at]
    bounds: list[int | None] = [*switches, None]
    earlier: list[Span] = []
    begin = 0
    for end in bounds:
        own = [
            span
            for span in spans
            if (begin == 0 or span.backup.stop_lsn > begin) and (end is None or span.backup.stop_lsn <= end)
        ]
        last = newest if end is None else _last_commit([*earlier, *own], reader, end)
        if last is not None and last.lsn < begin:
            last = None
        first = reader.first_commit(earlier[0], begin) if earlier and last is not None else None
        if own or last is not None:
            yield _Piece(begin, tuple(own), tuple(earlier), first, last)
        earlier += own
        begin = end or begin


def _last_commit(spans: Sequence[Span], reader: WalReader, before_lsn: int | None) -> WalPoint | None:
    # The newest first: what lies behind it is least to read.
    commits = (reader.last_commit(span, before_lsn) for span in reversed(spans) if span.needs_archive)
    return next((commit for commit in commits if commit is not None), None)


def _left(piece: _Piece) -> int:
    stretches = (piece.earlier or piece.spans)[0].path.stretches
    return next(item.timeline for item in stretches if item.end_lsn == piece.begin_lsn)


def _windows(piece: _Piece) -> Iterator[Window]:
    """The windows of backups that the same WAL leads on from, as far as its end or the next switch."""
    last = piece.last
    led_on = [span.backup for span in piece.spans if last is not None and span.backup.stopped_at <= last.at]
    leading = [*(span.backup for span in piece.earlier), *led_on] if piece.first is not None else led_on
    if last is not None and leading:
        begins = [backup.stopped_at for backup in led_on] + ([piece.first.at] if piece.first is not None else [])
        yield Window(min(begins), last.at, tuple(backup.label for backup in leading))
    alone = [span.backup for span in piece.spans if span.backup not in led_on]
    for backup in sorted(alone, key=lambda each: each.stopped_at):
        yield Window(backup.stopped_at, backup.stopped_at, (backup.label,))


def _hole(after: datetime, before: datetime | None, span: Span, wal: ArchivedWal) -> Hole:
    first = span.missing
    last = _last_missing(first, span.path, wal)
    reason = HoleReason.DAMAGED if first in wal.damaged else HoleReason.MISSING
    return Hole(after, before, reason, (first,) if first == last else (first, last))


def _last_missing(first: Segment, path: TimelinePath, wal: ArchivedWal) -> Segment:
    """The last of the segments that are not there, from `first` on; `first` itself where the archive has no more."""
    starts = []
    for item in wal.ranges:
        number = max(item.first.number, first.number + 1)
        stretch = path.stretch(item.timeline)
        if stretch is None or item.last.number < number:
            continue
        begins = stretch.begin_lsn // wal.segment_size_bytes
        number = max(number, begins)
        if item.last.number >= number and path.segment(number, wal.segment_size_bytes).timeline == item.timeline:
            starts.append(number)
    return path.segment(min(starts) - 1, wal.segment_size_bytes) if starts else first


def obstacle_to(timeline: int, lsn: int, backups: Iterable[BackupPoint], wal: ArchivedWal) -> str | None:
    """Why recovery cannot stop at the record of a timeline that ends at `lsn`; None when it can."""
    points = list(backups)
    try:
        path = path_to(timeline, wal.histories, _known(points, wal))
    except TimelineUnknown as error:
        return error.message
    number = max(lsn - 1, 0) // wal.segment_size_bytes
    segment = path.segment(number, wal.segment_size_bytes)
    if segment in wal.damaged:
        return f"the WAL segment {segment.name} that holds it is damaged"
    if wal.range_of(segment) is None:
        return f"the WAL segment {segment.name} that holds it is not in the archive"
    before = [span for span in spans_on(path, points, wal) if span.backup.stop_lsn < lsn]
    if not before:
        return "no usable backup ended before it"
    span = before[-1]
    if span.first_number <= number <= span.last_number:
        return None
    why = "damaged" if span.missing in wal.damaged else "missing"
    return f"the WAL segment {span.missing.name}, on the way to it, is {why}"


def _known(points: Iterable[BackupPoint], wal: ArchivedWal) -> set[int]:
    return {*wal.timelines, *wal.histories, *(point.timeline for point in points)}
