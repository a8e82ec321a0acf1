"""The audit log: appended to, never changed."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from lifeboat.catalog.database import Database
from lifeboat.catalog.pages import DEFAULT_LIMIT
from lifeboat.catalog.tables import AuditEntry
from lifeboat.catalog.values import AuditRow

_COLUMNS = [getattr(AuditEntry, field.name) for field in dataclasses.fields(AuditRow)]


class AuditStore:
    """Reads and appends to `audit_log`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(  # noqa: PLR0913 - a row's columns
        self,
        *,
        actor: str,
        action: str,
        object: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> int:
        """Log who did what to what, now unless said otherwise; returns the entry's id. Secrets stay with the caller."""
        statement = (
            insert(AuditEntry)
            .values(
                at=at or datetime.now(UTC),
                actor=actor,
                action=action,
                object=object,
                before_json=before,
                after_json=after,
            )
            .returning(AuditEntry.id)
        )
        with self._database.begin() as connection:
            return connection.execute(statement).scalar_one()

    def latest(self, *, limit: int = DEFAULT_LIMIT, before_id: int | None = None) -> list[AuditRow]:
        """The last entries, the newest first, or those before an id."""
        statement = select(*_COLUMNS).order_by(AuditEntry.id.desc()).limit(limit)
        if before_id is not None:
            statement = statement.where(AuditEntry.id < before_id)
        with self._database.begin() as connection:
            return [AuditRow(**row._mapping) for row in connection.execute(statement)]
