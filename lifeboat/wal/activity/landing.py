"""Reads the bucket that a recovery target lies in again, to see what of it recovery still replays."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lifeboat.catalog.store import Catalog
from lifeboat.wal.activity.beginning import FRESH
from lifeboat.wal.activity.decoding import Source, Stretch, WalNotDecodable, decode
from lifeboat.wal.activity.index import segment_path
from lifeboat.wal.activity.reading import Landed, Landing, Reading
from lifeboat.wal.activity.records import from_datetime, to_datetime
from lifeboat.wal.activity.relation_names import RelationNames
from lifeboat.wal.activity.transactions import OpenTransactions

# One segment of the usual size: what a point asks for is soon there, and little is fetched in vain.
_WINDOW_BYTES = 16 * 1024 * 1024
_MINUTE_BYTES, _HOUR_BYTES = len("2026-11-22 10:00"), len("2026-11-22 10")
_NOT_BULK = 1 << 62


@dataclass(frozen=True)
class ReadAgain:
    """Where recovery stops, what it replays of the bucket, and when the first change that it does not committed."""

    landing: Landing
    first_lost_at: datetime | None


def read_bucket(  # noqa: PLR0913 - of what, up to when, from where on
    source: Source,
    catalog: Catalog,
    cluster: str,
    timeline: int,
    names: RelationNames,
    at: datetime,
    bucket: datetime,
    *,
    folded: bool,
) -> ReadAgain | None:
    """Decode from the last point before `at` (of an hour: before `bucket`) to the first change after it.

    None when nothing ended after it. Raises WalNotDecodable, WalFileMissing, WalDamaged, ArchiveUnreadable.
    """
    before = bucket - timedelta(microseconds=1) if folded else at
    point = catalog.wal_index.point_before(cluster, timeline, at=before)
    state = catalog.wal_index.state(cluster, timeline)
    if point is None or state is None or state.read_to_lsn is None:
        raise WalNotDecodable(f"the index of timeline {timeline} has no point before {before}")
    transactions = OpenTransactions(names.hidden, names.catalogs)
    transactions.load(point.transactions_json)
    target = from_datetime(at)
    reading = Reading(
        cluster,
        timeline,
        names,
        transactions,
        _NOT_BULK,
        last_lsn=None if point.minute_json.get(FRESH) else point.lsn,
        stop_after=target,
        bucket=target[: _HOUR_BYTES if folded else _MINUTE_BYTES],
    )
    reading.buckets.load(point.minute_json)
    path = segment_path(source, timeline, state.segment_bytes)
    count = -(-(state.read_to_lsn - point.lsn // path.size_bytes * path.size_bytes) // path.size_bytes)
    try:
        # Of a minute one segment is nearly always enough; the next would be fetched in vain, and waited for.
        narrow = replace(source, window_bytes=min(source.window_bytes, _WINDOW_BYTES), ahead=folded)
        decode(narrow, path, reading, Stretch(point.lsn, count), lambda _: None)
    except Landed:
        pass
    if reading.landing is None:
        return None
    return ReadAgain(reading.landing, to_datetime(reading.first_lost) if reading.first_lost else None)
