"""The rows of schedules: the truth that Prefect's schedules are made equal to (DESIGN 5)."""

import dataclasses
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.tables import BackupSchedule
from lifeboat.catalog.values import ScheduleRow

_COLUMNS = [getattr(BackupSchedule, field.name) for field in dataclasses.fields(ScheduleRow)]


class ScheduleStore:
    """Reads and writes `backup_schedules`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_schedules(self) -> list[ScheduleRow]:
        """All schedules by name."""
        with self._database.begin() as connection:
            rows = connection.execute(select(*_COLUMNS).order_by(BackupSchedule.name))
            return [ScheduleRow(**row._mapping) for row in rows]

    def get(self, identifier: UUID) -> ScheduleRow | None:
        """One schedule by id."""
        with self._database.begin() as connection:
            row = connection.execute(select(*_COLUMNS).where(BackupSchedule.id == identifier)).one_or_none()
            return ScheduleRow(**row._mapping) if row is not None else None

    def upsert(self, schedule: ScheduleRow) -> None:
        """Make or replace the schedule with this id; raises CatalogRefused when another one has its name."""
        values = dataclasses.asdict(schedule)
        statement = insert(BackupSchedule).values(values)
        changes = {name: statement.excluded[name] for name in values if name != "id"}
        with self._database.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=[BackupSchedule.id], set_=changes))

    def remove(self, identifier: UUID) -> bool:
        """Remove a schedule; False when there was none."""
        with self._database.begin() as connection:
            return connection.execute(delete(BackupSchedule).where(BackupSchedule.id == identifier)).rowcount > 0
