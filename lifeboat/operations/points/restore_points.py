"""Which moments the platform can be restored to, from storage alone, and what was happening then."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.marks import Mark, gather_marks
from lifeboat.operations.installation import Installation
from lifeboat.operations.journal import read_only_journal, tell_untrusted
from lifeboat.operations.points.happened import UnreadWal, timelines_begun, unread_wal
from lifeboat.operations.restore.planning import SOON, RecoveryMaterial, read_material
from lifeboat.operations.wal.status import read_scrub_record
from lifeboat.postgres.folders import check_reachable
from lifeboat.recovery.planning import WalPoint
from lifeboat.recovery.restore_points import TimelineReach, obstacle_to, reach_of_timelines
from lifeboat.recovery.spans import ArchivedWal, Span
from lifeboat.recovery.targets import time_text
from lifeboat.recovery.timelines import TimelinePath
from lifeboat.recovery.unpacked_wal import SegmentUnusable
from lifeboat.recovery.wal_reader import ArchivedWalReader
from lifeboat.storage.journal import PointRecord
from lifeboat.wal.names import parse_lsn

_MOST_UNUSABLE_SEGMENTS = 100
# Marks are many; who looks for an older accident says so.
MARKS_PERIOD = timedelta(hours=24)


@dataclass(frozen=True)
class PointsOrder:
    """What is asked for: windows and named points that touch `start` to `end`, of all timelines or of one.

    Marks come from the last `MARKS_PERIOD` before the last moment that can be had, unless `start` says otherwise.
    """

    start: datetime | None = None
    end: datetime | None = None
    timeline: int | None = None
    destination: str | None = None


@dataclass(frozen=True)
class NamedPoint:
    """A restore point with a name; `why_not` says why recovery cannot stop there, None where it can."""

    name: str
    at: datetime
    timeline: int
    lsn: str
    actor: str
    why_not: str | None


@dataclass(frozen=True)
class DamagedSegment:
    """A WAL segment that the archive holds and no restore can use."""

    name: str
    reason: str


@dataclass(frozen=True)
class RestorePoints:
    """The answer. `missing` says what could not be asked, so that a short list does not look like a quiet time.

    Without `wal_was_read` the archive could not be: then all that is known are the ends of backups. Of `unread` WAL the
    marks lack what transactions did. `why_no_later` says why the current timeline's newest moments are not there yet.
    """

    cluster: str
    asked_at: datetime
    timelines: tuple[TimelineReach, ...]
    named: tuple[NamedPoint, ...]
    damaged: tuple[DamagedSegment, ...]
    marks: tuple[Mark, ...]
    marks_from: datetime
    marks_to: datetime
    missing: tuple[str, ...]
    wal_was_read: bool = True
    unread: tuple[UnreadWal, ...] = ()
    why_no_later: str | None = None

    @property
    def current(self) -> TimelineReach | None:
        """The timeline that the cluster is on, if it was asked for."""
        return next((reach for reach in self.timelines if reach.current), None)

    @property
    def found_faults(self) -> bool:
        """Whether WAL is missing, damaged or unread, or nothing can be restored on a timeline that was asked for."""
        if not self.wal_was_read or not self.timelines or self.damaged:
            return True
        return any(not reach.windows or reach.faults for reach in self.timelines)


def list_restore_points(installation: Installation, order: PointsOrder) -> RestorePoints:
    """What can be restored, read from storage: neither catalog nor platform need answer.

    An archive that cannot be read leaves the ends of backups. Raises TimelineUnknown, DestinationUnavailable,
    CommandTimeout, ToolMissing.
    """
    asked_at = datetime.now(UTC)
    material = read_material(installation, order.destination, needs_wal=False)
    reaches, wal, unusable = _reach(installation, material, order.timeline)
    missing = [*material.notes]
    named = _named(installation, material, wal, order, missing)
    damaged = tuple(_damaged(installation, material, wal, unusable))
    start, end = _marks_period(reaches, order, asked_at)
    marks, unanswered = gather_marks(installation, material.repository, start, end)
    marks += [mark for mark in timelines_begun(installation, material, reaches) if start <= mark.at <= end]
    wal_was_read = material.archive is not None or not installation.settings.wal.archive
    return RestorePoints(
        cluster=installation.settings.platform.cluster,
        asked_at=asked_at,
        timelines=tuple(_within(reach, order) for reach in reaches),
        named=named,
        damaged=damaged,
        marks=tuple(sorted(marks, key=lambda mark: (mark.at, mark.text))),
        marks_from=start,
        marks_to=end,
        missing=(*missing, *unanswered),
        wal_was_read=wal_was_read,
        unread=tuple(unread_wal(installation, replace(material, wal=wal), reaches)),
        why_no_later=_why_no_later(reaches, order) if material.archive is not None else None,
    )


def _why_no_later(reaches: list[TimelineReach], order: PointsOrder) -> str | None:
    """Where a gap ends what can be had, that says it already."""
    latest = next((reach.latest for reach in reaches if reach.current), None)
    ends_at_gap = any(hole.before is None for reach in reaches if reach.current for hole in reach.holes)
    if latest is None or ends_at_gap or (order.end is not None and order.end <= latest):
        return None
    return f"no commit after {time_text(latest)} is archived yet. {SOON}"


def _reach(
    installation: Installation, material: RecoveryMaterial, only: int | None
) -> tuple[list[TimelineReach], ArchivedWal, dict[str, str]]:
    """What can be had, what WAL that counts on, and the segments that turned out to be unusable, with the reasons."""
    wal, unusable = material.wal, dict[str, str]()
    while True:
        try:
            return _ask(installation, material, wal, only), wal, unusable
        except SegmentUnusable as error:
            if len(unusable) >= _MOST_UNUSABLE_SEGMENTS:
                raise
            unusable[error.segment.name] = error.message
            wal = ArchivedWal.of(wal.ranges, {*wal.damaged, error.segment}, wal.histories, wal.segment_size_bytes)


def _ask(
    installation: Installation, material: RecoveryMaterial, wal: ArchivedWal, only: int | None
) -> list[TimelineReach]:
    if material.archive is None:
        return reach_of_timelines(material.points, wal, _NoWal(), only)
    scratch_dir = installation.settings.scratch_dir
    scratch_dir.mkdir(parents=True, exist_ok=True)
    scratch_dir.chmod(0o711)
    check_reachable(scratch_dir, installation.tools.user)
    timeout_seconds = installation.settings.drills.timeout_seconds
    reader = ArchivedWalReader(material.archive, wal, installation.tools, scratch_dir, timeout_seconds=timeout_seconds)
    return reach_of_timelines(material.points, wal, reader, only)


class _NoWal:
    """Where no WAL is archived no span has a segment, so nothing of this is asked for."""

    def last_commit(self, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        raise ValueError(f"no WAL is archived behind {span.backup.label}, nor before {before_lsn}")

    def first_commit(self, span: Span, from_lsn: int) -> WalPoint | None:
        raise ValueError(f"no WAL is archived behind {span.backup.label}, nor from {from_lsn} on")

    def last_record_lsn(self, span: Span) -> int:
        raise ValueError(f"no WAL is archived behind {span.backup.label}")

    def find_name(self, name: str, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        raise ValueError(f"no WAL is archived: nothing holds {name} on timeline {path.timeline} from {from_lsn} on")

    def find_commit(self, xid: int, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        raise ValueError(f"no WAL is archived: nothing holds {xid} on timeline {path.timeline} from {from_lsn} on")


def _named(
    installation: Installation, material: RecoveryMaterial, wal: ArchivedWal, order: PointsOrder, missing: list[str]
) -> tuple[NamedPoint, ...]:
    try:
        records = read_only_journal(installation).points(tell_untrusted(missing, "a restore point"))
    except LifeboatError as error:
        missing.append(f"named restore points: {error.message}")
        return ()
    wanted = [
        record
        for record in records
        if (order.start is None or record.at >= order.start)
        and (order.end is None or record.at <= order.end)
        and order.timeline in {None, record.timeline}
    ]
    return tuple(_named_point(record, material, wal) for record in wanted)


def _named_point(record: PointRecord, material: RecoveryMaterial, wal: ArchivedWal) -> NamedPoint:
    why_not = None
    if material.listing is not None and record.system_identifier != material.listing.system_identifier:
        why_not = f"it is of another cluster, {record.system_identifier}"
    else:
        why_not = obstacle_to(record.timeline, parse_lsn(record.lsn), material.points, wal)
    return NamedPoint(record.name, record.at, record.timeline, record.lsn, record.actor, why_not)


def _damaged(
    installation: Installation, material: RecoveryMaterial, wal: ArchivedWal, unusable: dict[str, str]
) -> Iterator[DamagedSegment]:
    reasons = {item.name: item.reason for item in material.listing.damaged} if material.listing else {}
    try:
        record = read_scrub_record(installation)
    except LifeboatError:
        record = None  # `read_material` has told it
    if record is not None:
        reasons = {finding.name: finding.reason for finding in record.findings} | reasons
    for segment in sorted(wal.damaged):
        reason = reasons.get(segment.name) or unusable.get(segment.name) or "it cannot be used"
        yield DamagedSegment(segment.name, reason)


def _marks_period(reaches: list[TimelineReach], order: PointsOrder, asked_at: datetime) -> tuple[datetime, datetime]:
    end = order.end or asked_at
    latest = [reach.latest for reach in reaches if reach.latest is not None]
    return order.start or min(end, max(latest, default=end)) - MARKS_PERIOD, end


def _within(reach: TimelineReach, order: PointsOrder) -> TimelineReach:
    """What of a timeline touches the period that was asked for."""
    start, end = order.start, order.end
    windows = [
        window
        for window in reach.windows
        if (start is None or window.latest >= start) and (end is None or window.earliest <= end)
    ]
    holes = [
        hole
        for hole in reach.holes
        if (start is None or hole.before is None or hole.before >= start) and (end is None or hole.after <= end)
    ]
    why_not = reach.why_not or (None if windows else "nothing of the period that was asked for can be restored")
    return replace(reach, windows=tuple(windows), holes=tuple(holes), why_not=why_not)
