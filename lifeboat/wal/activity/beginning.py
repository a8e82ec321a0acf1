"""Where decoding of a timeline begins: where it stopped, where its parent left it, or at a full backup behind a gap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lifeboat.catalog.store import Catalog
from lifeboat.catalog.wal_values import IndexPoint, IndexState
from lifeboat.wal.activity.segments import SegmentPath
from lifeboat.wal.names import Segment, format_lsn, parse_lsn

FRESH = "fresh"
# Until when counts may be too high: so many subtransactions were open that rolled back ones could not be told apart.
APPROXIMATE_AT = "approximate_at"
_MOST_GAPS = 100
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Gap:
    """WAL that is missing or cannot be decoded: nothing is known from one position, and time, to the other."""

    timeline: int
    from_lsn: int
    to_lsn: int | None
    first_missing: str
    from_at: datetime | None

    def describe(self) -> str:
        """The gap in a sentence, with what to do."""
        upto = f" up to {format_lsn(self.to_lsn)}" if self.to_lsn is not None else ""
        return (
            f"{self.first_missing} is missing on timeline {self.timeline}: nothing can be read behind "
            f"{format_lsn(self.from_lsn)}{upto}. Take a new full backup: the index goes on at its start."
        )

    def to_json(self) -> dict[str, Any]:
        """What the state keeps of it."""
        return {
            "from_lsn": self.from_lsn,
            "to_lsn": self.to_lsn,
            "first_missing": self.first_missing,
            "from_at": self.from_at.isoformat() if self.from_at else None,
        }


@dataclass(frozen=True)
class Beginning:
    """Where to go on, with how many segments; no `state` where nothing behind `gap` can be begun.

    With `waits` the gap will probably be filled.
    """

    state: IndexState | None
    segment_count: int
    gap: Gap | None = None
    waits: bool = False


@dataclass(frozen=True)
class Stored:
    """What the archive has along the path to a timeline; `is_due` is asked of segments that it has not.

    One that is not due is only on its way.
    """

    path: SegmentPath
    names: frozenset[str]
    own_numbers: Sequence[int]
    is_due: Callable[[Segment], bool]

    def count_from(self, number: int) -> int:
        """How many segments from `number` on are there without a gap."""
        return self.path.contiguous(number, self.names)

    def count_at(self, lsn: int) -> int:
        """The same from the segment that holds a position."""
        return self.count_from(lsn // self.path.size_bytes)


def next_beginning(
    catalog: Catalog, cluster: str, stored: Stored, state: IndexState | None, *, failed: bool
) -> Beginning | None:
    """Where to go on; None when there is nothing (more) to read.

    With `failed` the WAL right behind the state cannot be decoded, though the archive lists it.
    """
    path = stored.path
    texts = catalog.wal_index.full_backup_starts(cluster, path.timeline)
    backups = [start for start in sorted(map(parse_lsn, texts)) if stored.count_at(start)]
    if state is None:
        return _first(stored, _from_parent(catalog, cluster, path), backups)
    count = stored.count_at(state.next_lsn)
    end_number = state.next_lsn // path.size_bytes + count
    if count and not failed and end_number * path.size_bytes > (state.read_to_lsn or 0):
        return Beginning(state, count)
    missing = path.segment(end_number)
    if failed:
        missing = path.segment((state.read_to_lsn or state.next_lsn) // path.size_bytes)
    elif end_number > max(stored.own_numbers):
        return None
    gap = Gap(path.timeline, state.next_lsn, None, missing.name, state.latest_at)
    if not failed and not stored.is_due(missing):
        return Beginning(None, 0, gap, waits=True)
    for start in backups:
        if start > state.next_lsn and (failed or start >= missing.start_lsn):
            jumped = replace(gap, to_lsn=start)
            return Beginning(_behind(jumped, start, state), stored.count_at(start), jumped)
    return Beginning(None, 0, gap)


def _first(stored: Stored, inherited: IndexState | None, backups: Sequence[int]) -> Beginning:
    if inherited is not None and (count := stored.count_at(inherited.next_lsn)):
        return Beginning(inherited, count)
    # What lies before the first backup cannot be restored to, but may be all there is.
    start = backups[0] if backups else min(stored.own_numbers) * stored.path.size_bytes
    return Beginning(IndexState(stored.path.size_bytes, start), stored.count_at(start))


def _from_parent(catalog: Catalog, cluster: str, path: SegmentPath) -> IndexState | None:
    """What the parent's index knows where this timeline begins, or shortly before.

    What the parent has in hours cannot be divided any more: then from the full hour before on, counted here again.
    """
    if not path.switches:
        return None
    parent = path.switches[-1].timeline
    state = catalog.wal_index.state(cluster, parent)
    if state is not None and state.last_lsn is not None and state.latest_at and state.last_lsn < path.begin_lsn:
        point = IndexPoint(state.last_lsn, state.latest_at, state.minute_json, state.transactions_json)
    else:
        found = catalog.wal_index.point_before(cluster, parent, lsn=path.begin_lsn - 1)
        if found is None:
            return None
        point = found
    began_at = point.latest_at
    if catalog.activity.is_folded(cluster, parent, began_at):
        hour = began_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        earlier = catalog.wal_index.point_before(cluster, parent, at=hour - timedelta(microseconds=1))
        if earlier is not None:
            point, began_at = earlier, hour
    return IndexState(
        segment_bytes=path.size_bytes,
        next_lsn=point.lsn,
        last_lsn=None if point.minute_json.get(FRESH) else point.lsn,
        began_at=began_at,
        latest_at=point.latest_at,
        minute_json=point.minute_json,
        transactions_json=point.transactions_json,
    )


def fresh_point(state: IndexState) -> IndexPoint:
    """A point where nothing before is known: the record at its position is still to be taken."""
    return IndexPoint(state.next_lsn, state.latest_at or _LONG_AGO, {**state.minute_json, FRESH: True}, {})


def _behind(gap: Gap, start_lsn: int, state: IndexState) -> IndexState:
    """The state at a backup behind a gap: nothing is carried over but the time, with what was counted in its minute."""
    gaps = [*state.gaps_json.get("gaps", []), gap.to_json()][-_MOST_GAPS:]
    return replace(
        state,
        next_lsn=start_lsn,
        last_lsn=None,
        read_to_lsn=None,
        transactions_json={},
        gaps_json={**state.gaps_json, "gaps": gaps},
    )
