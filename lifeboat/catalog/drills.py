"""The rows of restore drills."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.pages import DEFAULT_LIMIT, Listing, Page
from lifeboat.catalog.tables import RestoreDrill
from lifeboat.catalog.values import DrillRow, DrillTarget

LISTING = Listing(RestoreDrill, DrillRow, "started_at")


class DrillStore:
    """Reads and writes `restore_drills`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(  # noqa: PLR0913 - a row's columns
        self,
        identifier: UUID,
        *,
        backup_id: UUID,
        label: str,
        target_kind: str,
        started_at: datetime,
        completed_at: datetime,
        passed: bool,
        phases: Mapping[str, float],
        report: Mapping[str, Any],
        error: str | None = None,
        flow_run_id: UUID | None = None,
    ) -> None:
        """A drill ended; `phases` are seconds, `target_kind` a DrillTarget. A repeated call replaces the row."""
        statement = insert(RestoreDrill).values(
            id=identifier,
            backup_id=backup_id,
            label=label,
            target_kind=DrillTarget(target_kind),
            started_at=started_at,
            completed_at=completed_at,
            passed=passed,
            phases_json=phases,
            report_json=report,
            error=error,
            flow_run_id=flow_run_id,
        )
        changes = {column.name: column for column in statement.excluded if column.name != "id"}
        with self._database.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[RestoreDrill.id], set_=changes))

    def list_drills(
        self, *, backup_id: UUID | None = None, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[DrillRow]:
        """A page of drills, of one backup or of all, the last started first; raises CursorInvalid."""
        conditions = [] if backup_id is None else [RestoreDrill.backup_id == backup_id]
        with self._database.begin() as connection:
            return LISTING.read(connection, conditions, limit, cursor)
