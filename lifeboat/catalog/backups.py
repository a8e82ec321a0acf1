"""The rows of backups. Storage decides what they say: no later word takes back that a backup was completed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Update, func, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.errors import CatalogRefused
from lifeboat.catalog.pages import DEFAULT_LIMIT, Listing, Page
from lifeboat.catalog.tables import Backup
from lifeboat.catalog.values import BackupRow, BackupStatus
from lifeboat.storage.events import BackupState
from lifeboat.storage.manifest import BackupType, Manifest

LISTING = Listing(Backup, BackupRow, "started_at")
_STORED = (BackupStatus.COMPLETED, BackupStatus.EXPIRED)
# What a run that starts again must not keep from the time before.
_LATER = ("label", "ended_at", "error")
_ENDS = frozenset(BackupStatus) - {BackupStatus.RUNNING, *_STORED}


@dataclass(frozen=True)
class BackupFilter:
    """Which backups a list shows; None means any."""

    status: BackupStatus | None = None
    type: BackupType | None = None
    engine: str | None = None
    cluster: str | None = None
    destination: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter in SQL."""
        wanted = {name: value for name, value in vars(self).items() if value is not None}
        return [getattr(Backup, name) == value for name, value in wanted.items()]


class BackupStore:
    """Reads and writes `backups`. Every write may be repeated, and raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_started(  # noqa: PLR0913 - the columns that are known by then
        self,
        identifier: UUID,
        *,
        set_id: UUID,
        type: BackupType,
        engine: str,
        cluster: str,
        destination: str,
        started_at: datetime,
        flow_run_id: UUID | None = None,
    ) -> bool:
        """A run takes the backup, for the first time or again; False when it is completed or expired already."""
        row = dict.fromkeys(_LATER) | {
            "id": identifier,
            "set_id": set_id,
            "type": type,
            "engine": engine,
            "cluster": cluster,
            "destination": destination,
            "started_at": started_at,
            "flow_run_id": flow_run_id,
            "status": BackupStatus.RUNNING,
        }
        return self._write(_upsert(row, unless=_STORED))

    def record_completed(self, manifest: Manifest, *, destination: str, manifest_sha256: str) -> bool:
        """The manifest is in storage; False when the row says already that the backup has expired."""
        return self._write(_completed(manifest, destination, manifest_sha256))

    def record_expired(
        self, manifest: Manifest, *, destination: str, manifest_sha256: str, expired_at: datetime
    ) -> None:
        """What is left in storage says that the backup expired: as `mark_expired`, and makes the row if need be."""
        with self._database.begin() as connection:
            connection.execute(_completed(manifest, destination, manifest_sha256))
            connection.execute(_expired(manifest.id, expired_at))

    def record_ended(
        self, identifier: UUID, *, status: str, error: str | None, ended_at: datetime | None = None
    ) -> bool:
        """The run ended without a backup, now unless said otherwise; False when there is a backup, or no row.

        `status` is failed, cancelled, crashed or skipped; another one is a ValueError.
        """
        return self._write(
            _ended(status, error, ended_at).where(Backup.id == identifier, Backup.status.not_in(_STORED))
        )

    def record_flow_run_ended(
        self, flow_run_id: UUID, *, status: str, error: str | None, ended_at: datetime | None = None
    ) -> list[UUID]:
        """The flow run is over: ends what it left running, and returns the ids. Raises as `record_ended`."""
        left = (Backup.flow_run_id == flow_run_id, Backup.status == BackupStatus.RUNNING)
        statement = _ended(status, error, ended_at).where(*left).returning(Backup.id)
        with self._database.begin() as connection:
            return list(connection.execute(statement).scalars())

    def record_state(self, identifier: UUID, state: BackupState) -> bool:
        """What the backup's events in storage add up to; False when there is no such finished backup."""
        facts = {
            "verified": state.verified,
            "verified_at": state.verified_at,
            "pinned": state.pinned,
            "suspect": state.suspect,
        }
        return self._update_stored(identifier, facts)

    def mark_verified(self, identifier: UUID, at: datetime, *, passed: bool) -> bool:
        """A restore drill ended; `verified_at` stays the last passed one. False when there is no such backup."""
        if not passed:
            return self._update_stored(identifier, {"verified": False})
        return self._update_stored(identifier, {"verified": True, "verified_at": func.greatest(Backup.verified_at, at)})

    def set_pinned(self, identifier: UUID, pinned: bool) -> bool:
        """Pin or unpin; False when there is no such finished backup."""
        return self._update_stored(identifier, {"pinned": pinned})

    def set_suspect(self, identifier: UUID, suspect: bool) -> bool:
        """Put under suspicion or clear; False when there is no such finished backup."""
        return self._update_stored(identifier, {"suspect": suspect})

    def mark_expired(self, identifier: UUID, at: datetime) -> bool:
        """Retention took it away; the first time stays. False when the row knows of no completed backup."""
        return self._write(_expired(identifier, at))

    def get(self, identifier: UUID) -> BackupRow | None:
        """One backup by id."""
        return next(iter(self._where(Backup.id == identifier)), None)

    def find(self, reference: str, *, cluster: str | None = None) -> BackupRow | None:
        """One backup by id or label; raises CatalogRefused for a label that is at several places."""
        named = _named(reference)
        place = [Backup.cluster == cluster] if cluster is not None else []
        rows = self._where(named, *place)
        if len(rows) > 1:
            where = ", ".join(f"{row.destination}/{row.cluster} ({row.id})" for row in rows)
            raise CatalogRefused(f"there are {len(rows)} backups {reference}: {where}", hint="Name one by its id.")
        return rows[0] if rows else None

    def list_backups(
        self, chosen: BackupFilter | None = None, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[BackupRow]:
        """A page of backups, the last started first; raises CursorInvalid."""
        conditions = (chosen or BackupFilter()).conditions()
        with self._database.begin() as connection:
            return LISTING.read(connection, conditions, limit, cursor)

    def running(self) -> list[BackupRow]:
        """All backups that no run has ended yet, the last started first."""
        return self._where(Backup.status == BackupStatus.RUNNING)

    def completed_at_destination(self, destination: str, cluster: str) -> list[BackupRow]:
        """All completed backups of a cluster that should be at a destination, the last started first."""
        place = (Backup.destination == destination, Backup.cluster == cluster)
        return self._where(Backup.status == BackupStatus.COMPLETED, *place)

    def _where(self, *conditions: ColumnElement[bool]) -> list[BackupRow]:
        statement = select(*LISTING.columns).where(*conditions).order_by(Backup.started_at.desc(), Backup.id.desc())
        with self._database.begin() as connection:
            return LISTING.rows(connection, statement)

    def _update_stored(self, identifier: UUID, values: dict[str, Any]) -> bool:
        found = (Backup.id == identifier, Backup.status.in_(_STORED))
        return self._write(update(Backup).where(*found).values(values))

    def _write(self, statement: Insert | Update) -> bool:
        with self._database.begin() as connection:
            return connection.execute(statement.returning(Backup.id)).first() is not None


def _named(reference: str) -> ColumnElement[bool]:
    try:
        return Backup.id == UUID(reference)
    except ValueError:
        return Backup.label == reference


def _upsert(row: dict[str, Any], *, unless: Sequence[BackupStatus]) -> Insert:
    statement = insert(Backup).values(row)
    changes = {name: statement.excluded[name] for name in row if name != "id"}
    return statement.on_conflict_do_update(index_elements=[Backup.id], set_=changes, where=Backup.status.not_in(unless))


def _completed(manifest: Manifest, destination: str, manifest_sha256: str) -> Insert:
    # Not pinned, suspect and verified: those are told by events and outlive a repeated call.
    row = {
        "id": manifest.id,
        "set_id": manifest.set_id,
        "type": manifest.type,
        "engine": manifest.engine,
        "cluster": manifest.cluster,
        "destination": destination,
        "label": manifest.label,
        "parent_id": manifest.parent_id,
        "status": BackupStatus.COMPLETED,
        "started_at": manifest.started_at,
        "completed_at": manifest.completed_at,
        "ended_at": manifest.completed_at,
        "size_bytes": manifest.size_bytes,
        "pg_version": manifest.pg_version,
        "timeline": manifest.timeline,
        "start_lsn": manifest.start_lsn,
        "stop_lsn": manifest.stop_lsn,
        "flow_run_id": manifest.flow_run_id,
        "error": None,
        "manifest_sha256": manifest_sha256,
    }
    return _upsert(row, unless=[BackupStatus.EXPIRED])


def _expired(identifier: UUID, at: datetime) -> Update:
    values = {"status": BackupStatus.EXPIRED, "expired_at": func.coalesce(Backup.expired_at, at)}
    return update(Backup).where(Backup.id == identifier, Backup.status.in_(_STORED)).values(values)


def _ended(status: str, error: str | None, ended_at: datetime | None) -> Update:
    if (end := BackupStatus(status)) not in _ENDS:
        raise ValueError(f"a run does not end as {end}")
    return update(Backup).values(status=end, error=error, ended_at=ended_at or datetime.now(UTC))
