"""Which backup and which WAL lead to a recovery target, or why none does: pure, before anything is touched."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span, SpanEnd, spans_on
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.recovery.timelines import TimelinePath, current_timeline, path_to
from lifeboat.recovery.unpacked_wal import SegmentUnusable
from lifeboat.wal.names import format_lsn


@dataclass(frozen=True)
class WalPoint:
    """A record in WAL that a target can be met at: a commit, or a named restore point.

    `latest_at` is the latest moment that it or a commit shortly before it bears, where that is later: backends take the
    time of a commit before they insert its record. `rolled_back` says that it is the end of a transaction by abort.
    """

    at: datetime
    lsn: int
    timeline: int
    xid: int | None = None
    latest_at: datetime | None = None
    rolled_back: bool = False

    @property
    def until(self) -> datetime:
        """No commit up to this one bears a later moment."""
        return self.at if self.latest_at is None else max(self.at, self.latest_at)


class WalReader(Protocol):
    """What planning asks of the WAL itself; each answer reads few segments."""

    def last_commit(self, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        """The last commit in the archived segments of a span, or of those before a position; None without any."""
        ...

    def first_commit(self, span: Span, from_lsn: int) -> WalPoint | None:
        """The first commit of a span at or behind a position, None when there is none."""
        ...

    def last_record_lsn(self, span: Span) -> int:
        """Where the last record of a span begins; the backup's stop when nothing lies behind it."""
        ...

    def find_name(self, name: str, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        """A named restore point on a path: of several the one that is known by that name, or the newest.

        With `from_lsn` it is looked for from about there on.
        """
        ...

    def find_commit(self, xid: int, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        """The end, by commit or abort, of a transaction on a path; the newest where its number was used again.

        With `from_lsn` it is looked for from about there on.
        """
        ...


class TargetRefused(PermanentError):
    """No backup and WAL lead to a target; `earlier` and `later` are the nearest moments that can be had.

    `not_archived` says that WAL reaches up to `earlier` without a fault, and may go on there. `other_timelines` have
    what was asked for, or a transaction of that number, the newest first.
    """

    other_timelines: tuple[int, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        earlier: datetime | None = None,
        later: datetime | None = None,
        not_archived: bool = False,
    ) -> None:
        super().__init__(message, hint=hint or nearest_text(earlier, later))
        self.earlier, self.later, self.not_archived = earlier, later, not_archived


@dataclass(frozen=True)
class RestorePlan:
    """How a target is reached: the backup, the path of timelines, the archived segments, and where it must land.

    `settings` are PostgreSQL's recovery settings. Replay stops between `not_before` and `not_after`, as far as that
    is known from the archive. `at_end` says that the target is all there is: replay may end with the last segment.
    With `last` replay is to stop behind that very record. `point` is the record of what was asked for by name.
    """

    target: RecoveryTarget
    backup: BackupPoint
    span: Span
    settings: dict[str, str]
    not_before: datetime
    not_after: datetime | None
    at_end: bool = False
    notes: tuple[str, ...] = ()
    last: WalPoint | None = None
    point: WalPoint | None = None

    @property
    def timeline(self) -> int:
        """The timeline that replay ends on, before the restored cluster gets one of its own."""
        return self.span.path.timeline


def nearest_text(earlier: datetime | None, later: datetime | None) -> str:
    """A hint that names the nearest moments that can be had."""
    if earlier is not None and later is not None:
        return f"The nearest moments that can be had are {time_text(earlier)} and {time_text(later)}."
    nearest = earlier or later
    if nearest is not None:
        return f"The nearest moment that can be had is {time_text(nearest)}."
    return "Nothing can be restored: take a full backup, and see `lifeboat wal status`."


def plan_restore(
    target: RecoveryTarget, backups: Iterable[BackupPoint], wal: ArchivedWal, reader: WalReader
) -> RestorePlan:
    """Plan the way to a target; raises TargetRefused and TimelineUnknown."""
    points = list(backups)
    known = _known(points, wal)
    if target.kind is TargetKind.BACKUP:
        return _to_backup(target, points, wal, known)
    current = current_timeline(wal.histories, known)
    wanted = target.timeline or current
    try:
        return _on_timeline(wanted, target, points, wal, reader)
    except TargetRefused as refused:
        if refused.not_archived and wanted != current:
            refused.not_archived = False
            refused.hint = (
                f"{refused.hint} Timeline {wanted} was left for timeline {current}: no newer WAL of it comes."
            )
        elsewhere = _elsewhere(wanted, target, points, wal, reader)
        refused.other_timelines = tuple(elsewhere)
        told = [f"{text}: `--timeline {other}`." for other, text in elsewhere.items()]
        refused.hint = " ".join([str(refused.hint), *told])
        raise


def _on_timeline(
    timeline: int, target: RecoveryTarget, points: Sequence[BackupPoint], wal: ArchivedWal, reader: WalReader
) -> RestorePlan:
    path = path_to(timeline, wal.histories, _known(points, wal))
    spans = spans_on(path, points, wal)
    if not spans:
        raise TargetRefused(f"no usable backup leads to timeline {path.timeline}", hint=_unusable_text(points))
    if target.kind is TargetKind.TIME:
        return _to_time(target, spans, reader)
    if target.kind is TargetKind.LATEST:
        return _to_latest(target, spans[-1], reader)
    return _to_position(target, spans, path, reader)


def _known(points: Iterable[BackupPoint], wal: ArchivedWal) -> set[int]:
    return {*wal.timelines, *(point.timeline for point in points)}


def _elsewhere(
    timeline: int, target: RecoveryTarget, points: Sequence[BackupPoint], wal: ArchivedWal, reader: WalReader
) -> dict[int, str]:
    """The other timelines that have a name or a transaction, or the newest that has a moment, and that in words.

    None of them for what any timeline has: each has an end, and at a position one has another record than the other.
    Of those that have the same record in common the newest is told.
    """
    if target.kind in {TargetKind.LATEST, TargetKind.LSN}:
        return {}
    known, texts, told = _known(points, wal), dict[int, str](), set[WalPoint]()
    refused = path_to(timeline, wal.histories, known)
    for other in sorted(known - {timeline}, reverse=True):
        try:
            found, exact = None, replace(target, timeline=other)
            if target.kind is not TargetKind.TIME:
                # What both have in common was searched already.
                path = path_to(other, wal.histories, known)
                found = _find(target, path, reader, path.leaves(refused))
                if found is None or found in told:
                    continue
                exact = RecoveryTarget(TargetKind.LSN, lsn=found.lsn, timeline=other)
            _on_timeline(other, exact, points, wal, reader)
        except LifeboatError as error:
            if isinstance(error, SegmentUnusable) and target.kind is TargetKind.TIME:
                # Planned again without that segment it may have it; a search would begin anew for each bad segment.
                raise
            # It does not have it, or cannot be read: that must not hide why the target was refused.
            continue
        if found is None:
            return {other: f"Timeline {other} has it"}
        told.add(found)
        ended = "was rolled back" if found.rolled_back else "committed"
        as_xid = f"Timeline {other} has one of that number, which {ended} at {time_text(found.at)}"
        texts[other] = as_xid if target.xid is not None else f"Timeline {other} has it"
    return texts


def _find(target: RecoveryTarget, path: TimelinePath, reader: WalReader, from_lsn: int = 0) -> WalPoint | None:
    if target.name is not None:
        return reader.find_name(target.name, path, from_lsn)
    return reader.find_commit(target.xid or 0, path, from_lsn)


def end_of(span: Span, reader: WalReader) -> datetime:
    """The last moment that a span reaches: that of its last commit, or where its backup ended."""
    last = reader.last_commit(span) if span.needs_archive else None
    return max(last.until, span.backup.stopped_at) if last is not None else span.backup.stopped_at


def _to_backup(target: RecoveryTarget, points: Sequence[BackupPoint], wal: ArchivedWal, known: set[int]) -> RestorePlan:
    backup = next((point for point in points if point.label == target.backup), None)
    if backup is None:
        raise TargetRefused(
            f"there is no physical backup {target.backup}", hint="`lifeboat backup list` shows what is there."
        )
    path = path_to(backup.timeline, wal.histories, known | {backup.timeline})
    spans = spans_on(path, [replace(backup, unusable=None)], wal)
    if not spans:
        raise TargetRefused(
            f"the archive lacks WAL that {backup.label} needs to be consistent",
            hint="Restore an older or a newer backup; `lifeboat wal status` shows what is missing.",
        )
    notes = () if backup.unusable is None else (f"{backup.label} is {backup.unusable}",)
    at = backup.stopped_at
    return RestorePlan(target, backup, spans[0], target.settings(path.timeline), at, at, notes=notes)


def _to_time(target: RecoveryTarget, spans: Sequence[Span], reader: WalReader) -> RestorePlan:
    at = target.at
    if at is None:
        raise ValueError("a target by time has no time")
    ended = [span for span in spans if span.backup.stopped_at <= at]
    later = [span.backup.stopped_at for span in spans if span.backup.stopped_at > at]
    if not ended:
        raise TargetRefused(f"{time_text(at)} is before the first backup ended", later=min(later))
    span = ended[-1]
    last = reader.last_commit(span) if span.needs_archive else None
    end = end_of(span, reader)
    if last is not None and at == end and target.inclusive:
        # PostgreSQL wants a later commit to know that it has arrived; this is the last one: aim at its record.
        exact = RecoveryTarget(TargetKind.LSN, lsn=last.lsn, timeline=target.timeline)
        settings = exact.settings(span.path.timeline)
        return RestorePlan(target, span.backup, span, settings, at, at, at_end=True, last=last)
    if last is None or at > last.until or (at == last.until and target.inclusive):
        if at == span.backup.stopped_at and last is None:
            immediate = RecoveryTarget(TargetKind.BACKUP, backup=span.backup.label)
            return RestorePlan(target, span.backup, span, immediate.settings(span.path.timeline), at, at)
        raise _beyond(at, span, end, min(later, default=None))
    _refuse_in_change(at, span, last, later, reader)
    return RestorePlan(target, span.backup, span, target.settings(span.path.timeline), span.backup.stopped_at, at)


def _refuse_in_change(at: datetime, span: Span, last: WalPoint, later: Sequence[datetime], reader: WalReader) -> None:
    """Refuse a moment between the last commit before a switch and the first one behind it.

    It may mean what the older timeline had then, which was given up, or the state that the newer one began with: that
    can be had by the moment of the last commit before the switch.
    """
    for switch_lsn in reversed(span.path.switches_behind(span.backup.stop_lsn)):
        first = reader.first_commit(span, switch_lsn) if last.lsn >= switch_lsn else None
        if first is None or at >= first.at:
            continue
        before = reader.last_commit(span, switch_lsn)
        left_at = max(before.until, span.backup.stopped_at) if before is not None else span.backup.stopped_at
        if at > left_at:
            raise TargetRefused(
                f"{time_text(at)} lies in a change of timelines: timeline {first.timeline} goes on from what was"
                f" committed up to {time_text(left_at)}, and its first commit is of {time_text(first.at)}",
                earlier=left_at,
                later=min([first.at, *later]),
            )


def _beyond(at: datetime, span: Span, end: datetime, later: datetime | None) -> TargetRefused:
    if span.end is SpanEnd.ARCHIVE:
        text = f"{time_text(at)} is after the last commit in the archive"
        return TargetRefused(text, earlier=end, later=later, not_archived=later is None)
    return TargetRefused(f"{time_text(at)} cannot be reached: {_lack(span)}", earlier=end, later=later)


def _to_latest(target: RecoveryTarget, span: Span, reader: WalReader) -> RestorePlan:
    last = reader.last_commit(span) if span.needs_archive else None
    end = end_of(span, reader)
    path, backup = span.path, span.backup
    if span.end is SpanEnd.ARCHIVE and not span.ends_at_switch:
        # The log will name the moment of the newest record, which is not always the latest moment.
        reached = max(last.at, backup.stopped_at) if last is not None else backup.stopped_at
        return RestorePlan(target, backup, span, target.settings(path.timeline), reached, None, at_end=True)
    # Replay to the end would run into what is missing, or along a timeline that was left: aim before it.
    notes = (_short_of(span, end),)
    if last is None:
        exact = RecoveryTarget(TargetKind.BACKUP, backup=backup.label)
    else:
        exact = RecoveryTarget(TargetKind.LSN, lsn=last.lsn)
    settings = exact.settings(path.timeline)
    return RestorePlan(target, backup, span, settings, end, end, at_end=True, notes=notes, last=last)


def _short_of(span: Span, end: datetime) -> str:
    name, timeline = span.missing.name, span.missing.timeline
    if span.end is SpanEnd.ARCHIVE:
        return (
            f"{name}, which timeline {timeline} begins in, is not archived yet: what was committed after "
            f"{time_text(end)} is left out; `lifeboat restore point add NAME` has it archived at once"
        )
    return f"{span.end}: {name}; what was committed after {time_text(end)} is not in the archive"


def _to_position(target: RecoveryTarget, spans: Sequence[Span], path: TimelinePath, reader: WalReader) -> RestorePlan:
    lsn, at, found = target.lsn, None, None
    if lsn is None:
        found = _find(target, path, reader)
        if found is None:
            raise _not_found(target, path, spans)
        lsn, at = found.lsn, found.at
    # A position that equals the stop is where the backup is consistent: nothing has to be replayed behind it.
    reaching = [span for span in spans if span.backup.stop_lsn <= lsn]
    if not reaching:
        first = spans[0].backup
        raise TargetRefused(
            f"{target} is before the first backup ended, at {format_lsn(first.stop_lsn)}", later=first.stopped_at
        )
    span = reaching[-1]
    if lsn > reader.last_record_lsn(span):
        raise TargetRefused(f"{target} {_unreached(lsn, span)}", earlier=end_of(span, reader))
    # By name PostgreSQL would stop at the first of that name behind the backup, which may be another one.
    exact = target if target.name is None else RecoveryTarget(TargetKind.LSN, lsn=lsn)
    return RestorePlan(
        target,
        span.backup,
        span,
        exact.settings(path.timeline),
        span.backup.stopped_at,
        at,
        notes=_of_transaction(target, found),
        point=found if target.name is not None else None,
    )


def _not_found(target: RecoveryTarget, path: TimelinePath, spans: Sequence[Span]) -> TargetRefused:
    text = f"{target} is not in the archived WAL of timeline {path.timeline}"
    lacking = dict.fromkeys(_lack(span) for span in spans if span.end is not SpanEnd.ARCHIVE)
    if not lacking:
        hint = "`lifeboat restore points` lists what can be had; a recent one may not be archived yet."
        return TargetRefused(text, hint=hint)
    return TargetRefused(
        f"{text}, which has gaps where it may be: {', '.join(lacking)}",
        hint="Bring what is missing back into the archive; `lifeboat wal status` lists all of it.",
    )


def _lack(span: Span) -> str:
    return f"the WAL segment {span.missing.name} is {'missing' if span.end is SpanEnd.GAP else 'damaged'}"


def _unreached(lsn: int, span: Span) -> str:
    if span.end is SpanEnd.ARCHIVE:
        return "is after the last record in the archive"
    number = lsn // span.missing.size_bytes
    if number < span.missing.number:
        return f"is after the last record that can be replayed: {_lack(span)}"
    side = "in" if number == span.missing.number else "behind"
    return f"lies {side} the WAL segment {span.missing.name}: {span.end}"


def _of_transaction(target: RecoveryTarget, found: WalPoint | None) -> tuple[str, ...]:
    """When it ended: after a restore in place two timelines may have one of the same number."""
    if target.xid is None or found is None:
        return ()
    if found.rolled_back:
        return (f"transaction {target.xid} was rolled back: nothing of it is there",)
    return (f"transaction {target.xid} committed at {time_text(found.at)} on timeline {found.timeline}",)


def _unusable_text(points: Sequence[BackupPoint]) -> str:
    reasons = [f"{point.label} is {point.unusable}" for point in points if point.unusable is not None]
    if reasons:
        return f"Of the backups, {'; '.join(reasons[:3])}. A drill that passes clears one."
    return "Take a full backup: `lifeboat backup run --type full`."
