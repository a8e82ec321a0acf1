"""The rows of what happened in WAL: sums over buckets, notable events, minutes folded into hours, old hours removed."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, and_, delete, func, literal, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute

from lifeboat.catalog.database import Database
from lifeboat.catalog.tables import Annotation
from lifeboat.catalog.values import ActivityResolution, AnnotationKind
from lifeboat.catalog.wal_tables import WalActivity, WalCommits
from lifeboat.catalog.wal_values import CommitsRow, RelationFile, Span, WalEvent

# The hour in which a timeline goes on from another one stays in minutes on both: what came before that has to be told
# from what followed.
_FOLD_ACTIVITY = """
WITH gone AS (
    DELETE FROM lifeboat.wal_activity m
    WHERE cluster = :cluster AND resolution = 'minute' AND bucket_at < :before
      AND NOT EXISTS (
          SELECT FROM lifeboat.wal_index_state s
          WHERE s.cluster = m.cluster AND s.timeline >= m.timeline
            AND date_trunc('hour', s.began_at, 'UTC') = date_trunc('hour', m.bucket_at, 'UTC')
      )
    RETURNING *
)
INSERT INTO lifeboat.wal_activity AS kept
SELECT cluster, timeline, 'hour', date_trunc('hour', bucket_at, 'UTC'), database_oid, relfilenode,
       sum(inserted_rows), sum(updated_rows), sum(deleted_rows)
FROM gone GROUP BY 1, 2, 4, 5, 6
ON CONFLICT (cluster, timeline, resolution, bucket_at, database_oid, relfilenode) DO UPDATE SET
    inserted_rows = kept.inserted_rows + excluded.inserted_rows,
    updated_rows = kept.updated_rows + excluded.updated_rows,
    deleted_rows = kept.deleted_rows + excluded.deleted_rows
"""
_FOLD_COMMITS = """
WITH gone AS (
    DELETE FROM lifeboat.wal_commits m
    WHERE cluster = :cluster AND resolution = 'minute' AND bucket_at < :before
      AND NOT EXISTS (
          SELECT FROM lifeboat.wal_index_state s
          WHERE s.cluster = m.cluster AND s.timeline >= m.timeline
            AND date_trunc('hour', s.began_at, 'UTC') = date_trunc('hour', m.bucket_at, 'UTC')
      )
    RETURNING *
)
INSERT INTO lifeboat.wal_commits AS kept
SELECT cluster, timeline, 'hour', date_trunc('hour', bucket_at, 'UTC'), sum(commits), min(first_at), max(last_at)
FROM gone GROUP BY 1, 2, 4
ON CONFLICT (cluster, timeline, resolution, bucket_at) DO UPDATE SET
    commits = kept.commits + excluded.commits,
    first_at = least(kept.first_at, excluded.first_at),
    last_at = greatest(kept.last_at, excluded.last_at)
"""
# The last point of an hour is where the next hour can be read from.
_FOLD_POINTS = """
DELETE FROM lifeboat.wal_index_points p
WHERE cluster = :cluster AND latest_at < :before AND EXISTS (
    SELECT FROM lifeboat.wal_index_points later
    WHERE later.cluster = p.cluster AND later.timeline = p.timeline AND later.lsn > p.lsn
      AND date_trunc('hour', later.latest_at, 'UTC') = date_trunc('hour', p.latest_at, 'UTC')
) AND NOT EXISTS (
    SELECT FROM lifeboat.wal_index_state s
    WHERE s.cluster = p.cluster AND s.timeline >= p.timeline
      AND date_trunc('hour', s.began_at, 'UTC') = date_trunc('hour', p.latest_at, 'UTC')
)
"""
# The newest point before the window stays: the window's first minutes are read from there.
_REMOVE_POINTS = """
DELETE FROM lifeboat.wal_index_points p
WHERE cluster = :cluster AND latest_at < :before AND EXISTS (
    SELECT FROM lifeboat.wal_index_points later
    WHERE later.cluster = p.cluster AND later.timeline = p.timeline AND later.lsn > p.lsn AND later.latest_at < :before
)
"""
Counts = tuple[int, int, int]


class ActivityStore:
    """Reads `wal_activity`, `wal_commits` and the annotations of WAL. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def changes(self, cluster: str, timeline: int, spans: Iterable[Span]) -> dict[RelationFile, Counts]:
        """Rows inserted, updated and deleted within the spans, by relation file."""
        columns = (WalActivity.inserted_rows, WalActivity.updated_rows, WalActivity.deleted_rows)
        statement = (
            select(WalActivity.database_oid, WalActivity.relfilenode, *(func.sum(column) for column in columns))
            .where(WalActivity.cluster == cluster, WalActivity.timeline == timeline)
            .where(_within(WalActivity.resolution, WalActivity.bucket_at, spans))
            .group_by(WalActivity.database_oid, WalActivity.relfilenode)
        )
        with self._database.begin() as connection:
            return {(row[0], row[1]): (int(row[2]), int(row[3]), int(row[4])) for row in connection.execute(statement)}

    def commits(self, cluster: str, timeline: int, spans: Iterable[Span]) -> CommitsRow | None:
        """How many transactions changed something within the spans; None for none."""
        statement = (
            select(
                func.min(WalCommits.bucket_at),
                func.sum(WalCommits.commits),
                func.min(WalCommits.first_at),
                func.max(WalCommits.last_at),
            )
            .where(WalCommits.cluster == cluster, WalCommits.timeline == timeline)
            .where(_within(WalCommits.resolution, WalCommits.bucket_at, spans))
        )
        with self._database.begin() as connection:
            row = connection.execute(statement).one()
        return CommitsRow(row[0], int(row[1]), row[2], row[3]) if row[0] is not None else None

    def kept_from(self, cluster: str) -> datetime | None:
        """The start of the oldest minute or hour that is counted; None when none is."""
        statement = select(func.min(WalCommits.bucket_at)).where(WalCommits.cluster == cluster)
        with self._database.begin() as connection:
            found: datetime | None = connection.execute(statement).scalar()
        return found

    def is_folded(self, cluster: str, timeline: int, at: datetime) -> bool:
        """Whether the hour of `at` is kept as one bucket, no longer by minute."""
        statement = select(WalCommits.bucket_at).where(
            WalCommits.cluster == cluster,
            WalCommits.timeline == timeline,
            WalCommits.resolution == ActivityResolution.HOUR,
            WalCommits.bucket_at == func.date_trunc("hour", literal(at), "UTC"),
        )
        with self._database.begin() as connection:
            return connection.execute(statement.limit(1)).first() is not None

    def events(self, cluster: str, start: datetime, end: datetime | None = None) -> list[WalEvent]:
        """The notable events in WAL from a time on, the oldest first."""
        statement = (
            select(Annotation.id, Annotation.at, Annotation.text, Annotation.detail_json)
            .where(Annotation.cluster == cluster, Annotation.kind == AnnotationKind.WAL, Annotation.at >= start)
            .order_by(Annotation.at, Annotation.id)
        )
        if end is not None:
            statement = statement.where(Annotation.at <= end)
        with self._database.begin() as connection:
            return [WalEvent(row[0], row[1], row[2], row[3] or {}) for row in connection.execute(statement)]

    def events_of(self, cluster: str, xid: int) -> list[WalEvent]:
        """The notable events of a transaction by its number of 32 bits, the newest first."""
        statement = (
            select(Annotation.id, Annotation.at, Annotation.text, Annotation.detail_json)
            .where(Annotation.cluster == cluster, Annotation.kind == AnnotationKind.WAL)
            .where(Annotation.detail_json["xid"].astext == str(xid))
            .order_by(Annotation.at.desc(), Annotation.id)
        )
        with self._database.begin() as connection:
            return [WalEvent(row[0], row[1], row[2], row[3]) for row in connection.execute(statement)]

    def fold(self, cluster: str, before: datetime) -> None:
        """Turn the minutes before a full hour into hours; of the points there, the last of each hour stays.

        An hour in which a timeline goes on from another one stays in minutes.
        """
        if before.minute or before.second or before.microsecond:
            raise ValueError(f"{before} is no full hour")
        with self._database.begin() as connection:
            for statement in (_FOLD_ACTIVITY, _FOLD_COMMITS, _FOLD_POINTS):
                connection.execute(text(statement), {"cluster": cluster, "before": before})

    def remove(self, cluster: str, before: datetime) -> None:
        """Remove what lies before a time that no restore can reach any more; annotations stay."""
        with self._database.begin() as connection:
            connection.execute(
                delete(WalActivity).where(WalActivity.cluster == cluster, WalActivity.bucket_at < before)
            )
            connection.execute(delete(WalCommits).where(WalCommits.cluster == cluster, WalCommits.bucket_at < before))
            connection.execute(text(_REMOVE_POINTS), {"cluster": cluster, "before": before})


def _within(
    resolution: InstrumentedAttribute[ActivityResolution],
    bucket_at: InstrumentedAttribute[datetime],
    spans: Iterable[Span],
) -> ColumnElement[bool]:
    conditions = [
        and_(
            resolution == span.resolution,
            bucket_at >= span.start,
            *(() if span.end is None else (bucket_at < span.end,)),
        )
        for span in spans
    ]
    return or_(*conditions)
