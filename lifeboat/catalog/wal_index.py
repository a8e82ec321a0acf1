"""Where the activity index stands: its state per timeline, points to decode from again, what each stretch adds."""

import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.tables import Annotation, Backup
from lifeboat.catalog.values import ActivityResolution, AnnotationKind, BackupStatus
from lifeboat.catalog.wal_tables import WalActivity, WalCommits, WalIndexPoint, WalIndexState
from lifeboat.catalog.wal_values import ActivityRow, CommitsRow, IndexAdvance, IndexPoint, IndexState, WalEvent
from lifeboat.errors import TransientError
from lifeboat.storage.manifest import BackupType

_STATE = [getattr(WalIndexState, field.name) for field in dataclasses.fields(IndexState)]
_POINT = [getattr(WalIndexPoint, field.name) for field in dataclasses.fields(IndexPoint)]
_BATCH = 500
_ACTOR = "wal index"


class IndexMoved(TransientError):
    """Another run has advanced the index meanwhile: what this one decoded is not counted."""


class WalIndexStore:
    """Reads and writes `wal_index_state` and `wal_index_points`. Raises CatalogError's subclasses, and IndexMoved."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, cluster: str, timeline: int) -> IndexState | None:
        """Where the index of a timeline stands, None before its first run."""
        return self.states(cluster).get(timeline)

    def states(self, cluster: str) -> dict[int, IndexState]:
        """Where the index stands, by timeline."""
        statement = select(WalIndexState.timeline, *_STATE).where(WalIndexState.cluster == cluster)
        with self._database.begin() as connection:
            rows = [dict(row._mapping) for row in connection.execute(statement)]
        return {row.pop("timeline"): IndexState(**row) for row in rows}

    def point_before(
        self, cluster: str, timeline: int, *, lsn: int | None = None, at: datetime | None = None
    ) -> IndexPoint | None:
        """The newest point up to a position, or up to a time."""
        statement = select(*_POINT).where(WalIndexPoint.cluster == cluster, WalIndexPoint.timeline == timeline)
        if lsn is not None:
            statement = statement.where(WalIndexPoint.lsn <= lsn)
        if at is not None:
            statement = statement.where(WalIndexPoint.latest_at <= at)
        with self._database.begin() as connection:
            row = connection.execute(statement.order_by(WalIndexPoint.lsn.desc()).limit(1)).first()
        return IndexPoint(**row._mapping) if row is not None else None

    def full_backup_starts(self, cluster: str, timeline: int) -> list[str]:
        """The start LSNs, as text, of the timeline's completed full physical backups that are not suspect."""
        statement = select(Backup.start_lsn).where(
            Backup.cluster == cluster,
            Backup.timeline == timeline,
            Backup.type == BackupType.FULL,
            Backup.status == BackupStatus.COMPLETED,
            Backup.suspect.is_(False),
            Backup.start_lsn.is_not(None),
        )
        with self._database.begin() as connection:
            return [str(row[0]) for row in connection.execute(statement)]

    def advance(self, cluster: str, timeline: int, before: IndexState | None, step: IndexAdvance) -> None:
        """Add what one stretch of WAL told, and move on, in one transaction; raises IndexMoved.

        `before` is the state that the stretch was decoded from: nothing is counted twice.
        """
        with self._database.begin() as connection:
            self._move(connection, cluster, timeline, before, step.state)
            _add_activity(connection, cluster, timeline, step.activity)
            _add_commits(connection, cluster, timeline, step.commits)
            here = {"cluster": cluster, "timeline": timeline}
            _insert_new(connection, WalIndexPoint, [here | dataclasses.asdict(point) for point in step.points])
            _insert_new(connection, Annotation, [_annotation(cluster, event) for event in step.events])

    def _move(
        self, connection: Connection, cluster: str, timeline: int, before: IndexState | None, after: IndexState
    ) -> None:
        values = {
            "cluster": cluster,
            "timeline": timeline,
            "updated_at": datetime.now(UTC),
            **dataclasses.asdict(after),
        }
        statement = insert(WalIndexState).values(values)
        if before is not None:
            statement = statement.on_conflict_do_update(
                index_elements=[WalIndexState.cluster, WalIndexState.timeline],
                set_={name: statement.excluded[name] for name in values},
                where=(WalIndexState.next_lsn == before.next_lsn)
                & WalIndexState.last_lsn.is_not_distinct_from(before.last_lsn),
            )
        else:
            statement = statement.on_conflict_do_nothing()
        if connection.execute(statement.returning(WalIndexState.next_lsn)).first() is None:
            raise IndexMoved(
                f"another run has advanced the WAL index of {cluster} on timeline {timeline}",
                hint="Nothing is lost: the next run goes on from there.",
            )


def _add_activity(connection: Connection, cluster: str, timeline: int, rows: Iterable[ActivityRow]) -> None:
    statement = insert(WalActivity)
    counts = ("inserted_rows", "updated_rows", "deleted_rows")
    statement = statement.on_conflict_do_update(
        index_elements=[column.name for column in WalActivity.__table__.primary_key],
        set_={name: getattr(WalActivity, name) + statement.excluded[name] for name in counts},
    )
    values = [
        {
            "cluster": cluster,
            "timeline": timeline,
            "resolution": ActivityResolution.MINUTE,
            "bucket_at": row.bucket_at,
            "database_oid": row.file[0],
            "relfilenode": row.file[1],
            **{name: getattr(row, name) for name in counts},
        }
        for row in rows
    ]
    for first in range(0, len(values), _BATCH):
        connection.execute(statement, values[first : first + _BATCH])


def _add_commits(connection: Connection, cluster: str, timeline: int, rows: Iterable[CommitsRow]) -> None:
    statement = insert(WalCommits)
    statement = statement.on_conflict_do_update(
        index_elements=[column.name for column in WalCommits.__table__.primary_key],
        set_={
            "commits": WalCommits.commits + statement.excluded.commits,
            "first_at": func.least(WalCommits.first_at, statement.excluded.first_at),
            "last_at": func.greatest(WalCommits.last_at, statement.excluded.last_at),
        },
    )
    here = {"cluster": cluster, "timeline": timeline, "resolution": ActivityResolution.MINUTE}
    values = [here | dataclasses.asdict(row) for row in rows]
    for first in range(0, len(values), _BATCH):
        connection.execute(statement, values[first : first + _BATCH])


def _insert_new(connection: Connection, table: type[Any], values: list[dict[str, Any]]) -> None:
    statement = insert(table).on_conflict_do_nothing()
    for first in range(0, len(values), _BATCH):
        connection.execute(statement, values[first : first + _BATCH])


def _annotation(cluster: str, event: WalEvent) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "kind": AnnotationKind.WAL,
        "actor": _ACTOR,
        **dataclasses.asdict(event),
    }
