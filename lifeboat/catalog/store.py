"""The catalog: our index of all backups, and what we know of them (DESIGN 4)."""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from sqlalchemy import text

from lifeboat.catalog.activity import ActivityStore
from lifeboat.catalog.annotations import AnnotationStore
from lifeboat.catalog.audit import AuditStore
from lifeboat.catalog.backups import BackupFilter, BackupStore
from lifeboat.catalog.database import CONNECT_TIMEOUT_SECONDS, Database
from lifeboat.catalog.drills import DrillStore
from lifeboat.catalog.errors import (
    CatalogError,
    CatalogNotMigrated,
    CatalogRefused,
    CatalogUnavailable,
    CursorInvalid,
    not_migrated,
)
from lifeboat.catalog.findings import FindingStore
from lifeboat.catalog.pages import Page
from lifeboat.catalog.relations import RelationStore
from lifeboat.catalog.restores import RestoreStore
from lifeboat.catalog.schedules import ScheduleStore
from lifeboat.catalog.storage_samples import StorageSampleStore
from lifeboat.catalog.tables import REVISION
from lifeboat.catalog.values import (
    AssetProblem,
    AuditRow,
    BackupRow,
    BackupStatus,
    DrillRow,
    DrillTarget,
    FindingRow,
    ScheduleRow,
    ScheduleType,
    SeenFinding,
    StorageSample,
)
from lifeboat.catalog.wal_index import WalIndexStore
from lifeboat.postgres.connections import ConnectionInfo

__all__ = [
    "AssetProblem",
    "AuditRow",
    "BackupFilter",
    "BackupRow",
    "BackupStatus",
    "Catalog",
    "CatalogError",
    "CatalogNotMigrated",
    "CatalogRefused",
    "CatalogUnavailable",
    "CursorInvalid",
    "DrillRow",
    "DrillTarget",
    "FindingRow",
    "Page",
    "ScheduleRow",
    "ScheduleType",
    "SeenFinding",
    "StorageSample",
]


class Catalog:
    """One store for each table. Nothing connects before it is used; each call is a transaction of its own.

    `pool_size` keeps connections open, for a process that answers requests; `close` closes them.
    """

    def __init__(
        self,
        dsn: str | ConnectionInfo,
        *,
        connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS,
        pool_size: int = 0,
    ) -> None:
        self._database = Database(dsn, connect_timeout_seconds=connect_timeout_seconds, pool_size=pool_size)
        self.backups = BackupStore(self._database)
        self.drills = DrillStore(self._database)
        self.restores = RestoreStore(self._database)
        self.schedules = ScheduleStore(self._database)
        self.findings = FindingStore(self._database)
        self.storage_samples = StorageSampleStore(self._database)
        self.audit = AuditStore(self._database)
        self.annotations = AnnotationStore(self._database)
        self.relations = RelationStore(self._database)
        self.activity = ActivityStore(self._database)
        self.wal_index = WalIndexStore(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Catalog({self.dsn.redacted()!r})"

    @property
    def dsn(self) -> ConnectionInfo:
        """Where the catalog is, for `migrate` and `current_revision`; its text forms show no password."""
        return self._database.info

    def one_connection(self) -> AbstractContextManager[None]:
        """Within it this thread's calls share one connection: for many short ones in a row."""
        return self._database.one_connection()

    def close(self) -> None:
        """Close the connections that the pool keeps; the catalog can be used again afterwards."""
        self._database.close()

    def ping(self) -> None:
        """Check that the catalog answers and has the tables that this version needs, or newer ones.

        Raises CatalogUnavailable, CatalogNotMigrated, CatalogRefused.
        """
        with self._database.begin() as connection:
            found = connection.execute(text("SELECT version_num FROM lifeboat.alembic_version")).scalar()
        if found is None or found < REVISION:
            raise not_migrated(f"the catalog's tables are of revision {found}, this Lifeboat needs {REVISION}")
