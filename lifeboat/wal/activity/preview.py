"""What a restore to a time would undo, from the index: exact, for the bucket that the time lies in is read again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from lifeboat.catalog.store import Catalog
from lifeboat.catalog.values import ActivityResolution
from lifeboat.catalog.wal_values import IndexState, RelationFile, Span, WalEvent
from lifeboat.wal.activity.beginning import APPROXIMATE_AT
from lifeboat.wal.activity.decoding import DecoderKilled, Source, WalNotDecodable
from lifeboat.wal.activity.landing import read_bucket
from lifeboat.wal.activity.path_events import events_along
from lifeboat.wal.activity.relation_names import RelationNames, file_text
from lifeboat.wal.activity.transactions import MAX_OPEN_COUNTS, Counts
from lifeboat.wal.archive import WalDamaged, WalFileMissing
from lifeboat.wal.names import format_lsn

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_LONG_AGO = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class RelationActivity:
    """Rows that committed transactions changed in one relation; without an OID it was never observed."""

    database: str
    database_oid: int
    relation: str
    oid: int | None
    inserted_rows: int
    updated_rows: int
    deleted_rows: int


@dataclass(frozen=True)
class LostTransactions:
    """How many transactions changed something after a time, and when the first and the last of them committed."""

    count: int
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Undone:
    """What a restore to a time undoes, up to `indexed_until`, the latest end of a transaction in the index.

    `files` are the same counts by relation file, (inserted, updated, deleted). Recovery stops before the record at
    `landing_lsn` of `landing_timeline`. `doubts` say why figures may be wrong.
    """

    relations: tuple[RelationActivity, ...]
    files: Mapping[RelationFile, tuple[int, int, int]]
    transactions: LostTransactions
    events: tuple[WalEvent, ...]
    indexed_until: datetime | None
    landing_timeline: int | None
    landing_lsn: int | None
    doubts: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether there is no doubt."""
        return not self.doubts


def undone_by_restore(source: Source, catalog: Catalog, cluster: str, timeline: int, at: datetime) -> Undone:
    """What a restore to `at`, along `timeline`, undoes of all that the index knows.

    Raises ArchiveUnreadable, CatalogError, CommandTimeout, ToolMissing.
    """
    names = RelationNames(catalog.relations.names(cluster))
    found = _After(source, catalog, cluster, names, at)
    found.add_path(timeline)
    state = found.states.get(timeline)
    events = events_along(source, catalog, cluster, timeline, at)
    return Undone(
        relations=_named(found.counts, names),
        files={file: (counts[0], counts[1], counts[2]) for file, counts in found.counts.items()},
        transactions=LostTransactions(found.commits, found.first_at, found.last_at),
        events=tuple(event for event in events if event.at > at),
        indexed_until=state.latest_at if state else None,
        landing_timeline=found.timelines[-1] if found.landing_lsn is not None else None,
        landing_lsn=found.landing_lsn,
        doubts=tuple(found.doubts),
    )


def activity_between(  # noqa: PLR0913 - of what, from when to when
    source: Source, catalog: Catalog, cluster: str, timeline: int, start: datetime, end: datetime | None = None
) -> list[RelationActivity]:
    """Rows changed by transactions that committed after `start`, up to and with `end` (None: all that is indexed).

    Raises as `undone_by_restore`.
    """
    names = RelationNames(catalog.relations.names(cluster))
    found = _After(source, catalog, cluster, names, start)
    found.add_path(timeline)
    if end is not None:
        later = _After(source, catalog, cluster, names, end)
        later.add_path(timeline)
        _add(found.counts, later.counts, sign=-1)
    return list(_named(found.counts, names))


def counts_since(  # noqa: PLR0913 - of what, since when
    source: Source, catalog: Catalog, cluster: str, timeline: int, at: datetime, names: RelationNames | None = None
) -> Counts:
    """Rows changed since about `at`, by relation file.

    With `names` its minute is read again from WAL. Without, and where minutes were folded to hours, all of the minute
    or hour counts. Raises as `undone_by_restore`.
    """
    exact = names is not None
    found = _After(source, catalog, cluster, names or RelationNames(()), at, exact=exact, reads_hours=False)
    found.add_path(timeline)
    return found.counts


def lost_transactions(source: Source, catalog: Catalog, cluster: str, timeline: int, at: datetime) -> LostTransactions:
    """How many transactions a restore to `at` loses; raises as `undone_by_restore`."""
    return undone_by_restore(source, catalog, cluster, timeline, at).transactions


@dataclass
class _After:
    """Adds up what committed after a time, timeline by timeline backwards."""

    source: Source
    catalog: Catalog
    cluster: str
    names: RelationNames
    at: datetime
    exact: bool = True
    reads_hours: bool = True
    counts: Counts = field(default_factory=dict)
    commits: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    landing_lsn: int | None = None
    doubts: list[str] = field(default_factory=list)
    timelines: list[int] = field(default_factory=list)
    states: dict[int, IndexState] = field(default_factory=dict)

    def add_path(self, timeline: int) -> None:
        """Add all of a timeline and of its ancestors."""
        self.states = self.catalog.wal_index.states(self.cluster)
        ancestors = self.source.archive.history(timeline) if timeline > 1 else ()
        until: datetime | None = None
        for each in (timeline, *(switch.timeline for switch in reversed(ancestors))):
            state = self.states.get(each)
            if state is None or state.latest_at is None:
                self.doubts.append(f"timeline {each} is not indexed")
                break
            self.timelines.append(each)
            self._note_gaps(state)
            if state.began_at is None or self.at >= state.began_at:
                self._add_part(each, state, until)
                break
            self._add_rows(each, _LONG_AGO, until)
            until = _floor(state.began_at, _MINUTE)

    def _add_part(self, timeline: int, state: IndexState, until: datetime | None) -> None:
        """Add what a timeline has after the time: the buckets from its own on, less what is before it."""
        if state.latest_at is not None and self.at >= state.latest_at:
            return
        folded = self.catalog.activity.is_folded(self.cluster, timeline, self.at)
        bucket = _floor(self.at, _HOUR if folded else _MINUTE)
        self._add_rows(timeline, bucket, until)
        if not self.exact or (folded and not self.reads_hours):
            return
        try:
            found = read_bucket(
                self.source, self.catalog, self.cluster, timeline, self.names, self.at, bucket, folded=folded
            )
        except (WalNotDecodable, DecoderKilled, WalFileMissing, WalDamaged) as error:
            found = None
            self.doubts.append(f"the {'hour' if folded else 'minute'} of the target cannot be read: {error.message}")
        if found is not None:
            _add(self.counts, found.landing.counts, sign=-1)
            self.commits -= found.landing.commits
            self.landing_lsn, self.first_at = found.landing.lsn, found.first_lost_at or self.first_at
        if self.commits == 0:
            self.first_at = self.last_at = None

    def _add_rows(self, timeline: int, start: datetime, until: datetime | None) -> None:
        spans = [
            Span(ActivityResolution.MINUTE, start, until),
            Span(ActivityResolution.HOUR, _floor(start, _HOUR), until),
        ]
        _add(self.counts, self.catalog.activity.changes(self.cluster, timeline, spans))
        commits = self.catalog.activity.commits(self.cluster, timeline, spans)
        if commits is not None:
            self.commits += commits.commits
            self.first_at = commits.first_at
            self.last_at = max(self.last_at or commits.last_at, commits.last_at)

    def _note_gaps(self, state: IndexState) -> None:
        for gap in state.gaps_json.get("gaps", ()):
            if gap["from_at"] is None or datetime.fromisoformat(gap["from_at"]) >= self.at:
                to_lsn = format_lsn(gap["to_lsn"])
                self.doubts.append(f"nothing is known from {format_lsn(gap['from_lsn'])} to {to_lsn}: WAL is missing")
        approximate_at = state.gaps_json.get(APPROXIMATE_AT)
        if approximate_at is not None and datetime.fromisoformat(approximate_at) >= self.at:
            self.doubts.append(
                f"up to {approximate_at} more than {MAX_OPEN_COUNTS:,} subtransactions were open at once: rows of such "
                "as were rolled back may be counted"
            )


def _add(counts: Counts, other: Counts | dict[tuple[int, int], tuple[int, int, int]], *, sign: int = 1) -> None:
    for file, values in other.items():
        mine = counts.setdefault(file, [0, 0, 0])
        for position, value in enumerate(values):
            mine[position] += sign * value


def _named(counts: Counts, names: RelationNames) -> tuple[RelationActivity, ...]:
    """The counts by relation, under its latest name; files of one relation are added up, what is hidden is left out."""
    totals: dict[tuple[int, str, int | None], list[int]] = {}
    for file, values in counts.items():
        # A new relation has its OID as relfilenode, which it may have lost before it was observed.
        name = names.of_file(file) or names.of_oid(*file)
        if name is not None and not name.is_counted:
            continue
        latest = names.of_oid(name.database_oid, name.oid) if name is not None else None
        key = (file[0], latest.name if latest else file_text(file), latest.oid if latest else None)
        mine = totals.setdefault(key, [0, 0, 0])
        for position, value in enumerate(values):
            mine[position] += value
    return tuple(
        RelationActivity(names.database(database_oid), database_oid, text, oid, *values)
        for (database_oid, text, oid), values in sorted(totals.items(), key=lambda item: item[0][:2])
        if any(values)
    )


def _floor(at: datetime, step: timedelta) -> datetime:
    return at - (at - _LONG_AGO) % step
