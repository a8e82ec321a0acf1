"""Builds the activity index: decodes what the archive has and the index has not, timeline by timeline.

Each step of some segments is written in one transaction with the position that it reached: a run that dies loses
nothing and counts nothing twice.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lifeboat.catalog.store import Catalog
from lifeboat.catalog.wal_values import IndexAdvance, IndexState
from lifeboat.wal.activity.beginning import APPROXIMATE_AT, Gap, Stored, fresh_point, next_beginning
from lifeboat.wal.activity.buckets import KEEP_MINUTES_FOR, Buckets
from lifeboat.wal.activity.decoding import Source, Stretch, WalNotDecodable, decode
from lifeboat.wal.activity.reading import Reading
from lifeboat.wal.activity.records import from_datetime
from lifeboat.wal.activity.relation_names import RelationNames
from lifeboat.wal.activity.segments import SegmentPath
from lifeboat.wal.activity.transactions import OpenTransactions
from lifeboat.wal.coverage import ArchiveListing
from lifeboat.wal.names import ArchiveNameKind, Segment

BULK_ROWS = 1000


@dataclass(frozen=True)
class IndexProgress:
    """How far a run is: the timeline and position reached, WAL read so far, and what there was to read."""

    timeline: int
    lsn: int
    read_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class TimelineReport:
    """What a run did on one timeline; `stopped` says why it could not go on, None when it reached the end.

    `waits_for` is the segment that it could not read on without, which is only on its way.
    """

    timeline: int
    start_lsn: int | None
    end_lsn: int | None
    latest_at: datetime | None
    records: int
    events: int
    read_bytes: int = 0
    gaps: tuple[Gap, ...] = ()
    stopped: str | None = None
    approximate: bool = False
    waits_for: str | None = None


@dataclass(frozen=True)
class IndexReport:
    """What a run did, timeline by timeline."""

    timelines: tuple[TimelineReport, ...]

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why timelines could not be read to their end: each asks for a new full backup."""
        return tuple(report.stopped for report in self.timelines if report.stopped is not None)


def build_index(  # noqa: PLR0913 - from where, to where, how
    source: Source,
    catalog: Catalog,
    cluster: str,
    *,
    on_progress: Callable[[IndexProgress], None] | None = None,
    bulk_rows: int = BULK_ROWS,
    keep_from: datetime | None = None,
    now: datetime | None = None,
    is_due: Callable[[ArchiveListing, Segment], bool] = lambda _listing, _missing: True,
) -> IndexReport:
    """Index what the archive has and the index has not; returns when all timelines are at their end or stopped.

    `on_progress` is told after each step. Minutes older than 48 hours become hours; buckets before `keep_from`, the
    begin of the PITR window, go, and the names that were gone by then. `is_due` says of a missing segment whether it
    should be there: for one that should not yet the index waits. Raises ArchiveUnreadable, CatalogError, IndexMoved,
    DecoderKilled, CommandTimeout, ToolMissing.
    """
    listing = source.archive.listing()
    names = RelationNames(catalog.relations.names(cluster))
    amount = _Amount(_unread_bytes(listing, catalog.wal_index.states(cluster)), on_progress)
    reports = [
        _TimelineRun(source, catalog, cluster, names, bulk_rows, amount, is_due).run(listing, timeline)
        for timeline in listing.timelines
    ]
    edge = (now or datetime.now(UTC)) - KEEP_MINUTES_FOR
    catalog.activity.fold(cluster, edge.astimezone(UTC).replace(minute=0, second=0, microsecond=0))
    if keep_from is not None:
        oldest = keep_from.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        catalog.activity.remove(cluster, oldest)
        catalog.relations.remove(cluster, oldest)
    return IndexReport(tuple(reports))


def segment_path(source: Source, timeline: int, size_bytes: int) -> SegmentPath:
    """The way to a timeline; raises as WalArchive.history."""
    return SegmentPath(timeline, source.archive.history(timeline) if timeline > 1 else (), size_bytes)


def _unread_bytes(listing: ArchiveListing, states: Mapping[int, IndexState]) -> int:
    read_to = {timeline: state.read_to_lsn or state.next_lsn for timeline, state in states.items()}
    segments = [f.parsed.segment for f in listing.files if f.parsed.kind is ArchiveNameKind.SEGMENT]
    return sum(
        segment.size_bytes
        for segment in segments
        if segment is not None and segment.start_lsn >= read_to.get(segment.timeline, 0)
    )


@dataclass
class _Amount:
    """Adds up what was read, over all timelines."""

    total_bytes: int
    on_progress: Callable[[IndexProgress], None] | None
    read_bytes: int = 0

    def add(self, timeline: int, lsn: int, count_bytes: int) -> None:
        self.read_bytes += count_bytes
        if self.on_progress is not None:
            total_bytes = max(self.total_bytes, self.read_bytes)
            self.on_progress(IndexProgress(timeline, lsn, self.read_bytes, total_bytes))


@dataclass
class _TimelineRun:
    source: Source
    catalog: Catalog
    cluster: str
    names: RelationNames
    bulk_rows: int
    amount: _Amount
    is_due: Callable[[ArchiveListing, Segment], bool]

    def run(self, listing: ArchiveListing, timeline: int) -> TimelineReport:
        """Read on until the end of the archive or until nothing behind a gap can be begun."""
        path = segment_path(self.source, timeline, listing.segment_size_bytes)
        segments = [f.parsed.segment for f in listing.files if f.parsed.kind is ArchiveNameKind.SEGMENT]
        own = [segment.number for segment in segments if segment is not None and segment.timeline == timeline]
        names = frozenset(segment.name for segment in segments if segment is not None)
        stored = Stored(path, names, own, lambda missing: self.is_due(listing, missing))
        before = self.catalog.wal_index.state(self.cluster, timeline)
        report = TimelineReport(timeline, None, None, before.latest_at if before else None, 0, 0)
        while True:
            failed = report.stopped is not None
            found = next_beginning(self.catalog, self.cluster, stored, before, failed=failed)
            if found is None:
                return report
            if found.waits and found.gap is not None:
                return replace(report, waits_for=found.gap.first_missing)
            if found.state is None:
                described = found.gap.describe() if found.gap is not None else None
                return replace(report, stopped=report.stopped or described)
            if found.gap is not None:
                report = replace(report, gaps=(*report.gaps, found.gap))
            report, before = self._read(path, found.state, found.segment_count, before, report)

    def _read(
        self, path: SegmentPath, state: IndexState, count: int, before: IndexState | None, report: TimelineReport
    ) -> tuple[TimelineReport, IndexState]:
        """Decode one contiguous range, writing step by step."""
        transactions = OpenTransactions(self.names.hidden, self.names.catalogs)
        transactions.load(state.transactions_json)
        reading = Reading(self.cluster, path.timeline, self.names, transactions, self.bulk_rows)
        if state.began_at is not None:
            reading.buckets = Buckets(from_datetime(state.began_at))
        reading.buckets.load(state.minute_json)
        reading.last_lsn = state.last_lsn
        if before is None:
            reading.buckets.inherit()
        if state.last_lsn is None:
            reading.points.append(fresh_point(state))
        elif before is None and (inherited := reading.point()) is not None:
            # A target that lies before all that this timeline itself has is read from where its parent was left.
            reading.points.append(inherited)
        step = _Step(self, path.timeline, reading, before, state)
        stopped = None
        try:
            decode(self.source, path, reading, Stretch(state.next_lsn, count, state.read_to_lsn), step.write)
        except WalNotDecodable as error:
            step.write(step.state.read_to_lsn)
            stopped = f"{error.message}. {error.hint}"
        after = replace(
            report,
            start_lsn=state.next_lsn if report.start_lsn is None else report.start_lsn,
            end_lsn=reading.last_lsn,
            latest_at=step.state.latest_at,
            records=report.records + reading.records,
            events=report.events + step.events,
            read_bytes=report.read_bytes + step.read_bytes,
            stopped=stopped,
            approximate=report.approximate or step.approximate,
        )
        return after, step.state


class _Step:
    """Writes what was read since the last time."""

    def __init__(
        self, run: _TimelineRun, timeline: int, reading: Reading, before: IndexState | None, state: IndexState
    ) -> None:
        self._run, self._timeline, self._reading = run, timeline, reading
        self._before, self.state = before, state
        self._read_to = state.read_to_lsn or state.next_lsn // state.segment_bytes * state.segment_bytes
        self.events = self.read_bytes = 0
        self.approximate = False

    def write(self, read_to_lsn: int | None) -> None:
        """Write it, with the position up to which segments were read."""
        reading, buckets = self._reading, self._reading.buckets
        point = reading.point()
        after = replace(self.state, read_to_lsn=read_to_lsn)
        if reading.last_lsn is not None:
            after = replace(
                after,
                next_lsn=reading.last_lsn,
                last_lsn=reading.last_lsn,
                latest_at=point.latest_at if point else self.state.latest_at,
                minute_json=buckets.to_json(),
                transactions_json=reading.transactions.to_json(),
            )
        if reading.transactions.approximate and after.latest_at is not None:
            after = replace(after, gaps_json={**after.gaps_json, APPROXIMATE_AT: after.latest_at.isoformat()})
            reading.transactions.approximate = False
            self.approximate = True
        advance = IndexAdvance(
            after, buckets.new_activity(), buckets.new_commits(), tuple(reading.points), tuple(reading.events)
        )
        self._run.catalog.wal_index.advance(self._run.cluster, self._timeline, self._before, advance)
        self.events += len(reading.events)
        buckets.written()
        reading.points, reading.events = [], []
        self._before = self.state = after
        count_bytes = max(0, (read_to_lsn or 0) - self._read_to)
        self._read_to += count_bytes
        self.read_bytes += count_bytes
        self._run.amount.add(self._timeline, reading.last_lsn or after.next_lsn, count_bytes)
