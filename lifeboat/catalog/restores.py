"""The rows of restores."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.pages import DEFAULT_LIMIT, Listing, Page
from lifeboat.catalog.tables import Restore
from lifeboat.catalog.values import RestoreRow, RestoreStatus, RestoreTarget

LISTING = Listing(Restore, RestoreRow, "started_at")


class RestoreStore:
    """Reads and writes `restores`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(  # noqa: PLR0913 - a row's columns
        self,
        identifier: UUID,
        *,
        cluster: str,
        target_kind: RestoreTarget,
        target: str,
        status: RestoreStatus,
        actor: str,
        started_at: datetime,
        completed_at: datetime | None = None,
        recovery_target_at: datetime | None = None,
        backup_id: UUID | None = None,
        label: str | None = None,
        phases: Mapping[str, float] | None = None,
        report: Mapping[str, Any] | None = None,
        error: str | None = None,
        flow_run_id: UUID | None = None,
    ) -> None:
        """A restore began or ended; `phases` are seconds. A repeated call replaces the row.

        The report of a running one says which process it is in (`process`).
        """
        statement = insert(Restore).values(
            id=identifier,
            cluster=cluster,
            target_kind=target_kind,
            target=target,
            status=status,
            actor=actor,
            started_at=started_at,
            completed_at=completed_at,
            recovery_target_at=recovery_target_at,
            backup_id=backup_id,
            label=label,
            phases_json=phases or {},
            report_json=report or {},
            error=error,
            flow_run_id=flow_run_id,
        )
        changes = {column.name: column for column in statement.excluded if column.name != "id"}
        with self._database.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[Restore.id], set_=changes))

    def running(self, cluster: str) -> list[RestoreRow]:
        """The restores of a cluster that have not ended as far as is known here, the first started first."""
        statement = select(*LISTING.columns).where(Restore.cluster == cluster, Restore.status == RestoreStatus.RUNNING)
        with self._database.begin() as connection:
            return LISTING.rows(connection, statement.order_by(Restore.started_at, Restore.id))

    def record_ended(self, identifier: UUID, *, status: RestoreStatus, error: str, ended_at: datetime) -> bool:
        """A restore that was left running is over; False when it has its end already, or no row."""
        statement = (
            update(Restore)
            .where(Restore.id == identifier, Restore.status == RestoreStatus.RUNNING)
            .values(
                status=status, error=error, completed_at=func.greatest(Restore.started_at, ended_at), report_json={}
            )
        )
        with self._database.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def list_restores(
        self,
        *,
        cluster: str | None = None,
        kinds: Collection[RestoreTarget] | None = None,
        status: RestoreStatus | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[RestoreRow]:
        """A page of restores, or of those that match, the last started first; raises CursorInvalid."""
        conditions = []
        if cluster is not None:
            conditions.append(Restore.cluster == cluster)
        if kinds is not None:
            conditions.append(Restore.target_kind.in_(kinds))
        if status is not None:
            conditions.append(Restore.status == status)
        with self._database.begin() as connection:
            return LISTING.read(connection, conditions, limit, cursor)
