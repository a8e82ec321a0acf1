"""All backups that can be told of: finished ones from storage, running and failed ones from the catalog.

Storage alone is enough (DESIGN principle 6): a catalog that is down, and a manifest that cannot be trusted, are told
and hide nothing else.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from lifeboat.catalog.store import BackupRow, BackupStatus, CatalogError
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.storage.manifest import BackupType, ManifestError
from lifeboat.storage.repository import BackupRepository, StoredBackup

_STORED = {BackupStatus.COMPLETED, BackupStatus.EXPIRED}


@dataclass(frozen=True)
class ListedBackup:
    """One backup in a list; `status` is the catalog's, or `damaged` for one whose manifest cannot be trusted."""

    id: UUID | None
    label: str | None
    type: BackupType | None
    engine: str | None
    destination: str
    status: str
    started_at: datetime | None = None
    completed_at: datetime | None = None
    size_bytes: int | None = None
    verified: bool = False
    verified_at: datetime | None = None
    pinned: bool = False
    suspect: bool = False
    parent_label: str | None = None
    set_id: UUID | None = None
    flow_run_id: UUID | None = None
    error: str | None = None


@dataclass(frozen=True)
class Inventory:
    """The backups, oldest first, and sentences on what could not be asked or should not be there.

    `unread` says, by destination, why it cannot be read: what is listed of it is only what the catalog knows.
    """

    backups: list[ListedBackup]
    notes: list[str]
    unread: dict[str, str] = field(default_factory=dict)

    @property
    def damaged(self) -> list[ListedBackup]:
        """Those whose manifest cannot be trusted."""
        return [backup for backup in self.backups if backup.status == "damaged"]


def list_backups(installation: Installation, destination: str | None = None, *, ended_limit: int = 20) -> Inventory:
    """Every finished backup at one destination or at all, what runs now, and the last runs that ended without one."""
    backups: list[ListedBackup] = []
    notes: list[str] = []
    unread: dict[str, str] = {}
    names = [destination] if destination else list(installation.settings.destinations)
    for name in names:
        repository = installation.repository(name)
        try:
            backups += _of_storage(repository)
            unfinished = repository.unfinished_labels()
        except LifeboatError as error:
            unread[name] = error.message
            continue
        notes += [f"{name} holds the unfinished folder {label}, which is no backup" for label in unfinished]
    try:
        backups += _of_catalog(installation, set(names), ended_limit)
        for name in unread:
            backups += _known_there(installation, name, backups)
    except CatalogError as error:
        notes.append(f"the catalog cannot be asked, so runs without a backup are not shown: {error.message}")
    return Inventory(sorted(backups, key=_age), notes, unread)


def _of_storage(repository: BackupRepository) -> Iterator[ListedBackup]:
    for label in repository.labels():
        try:
            yield _finished(repository.load(label), repository.destination.name)
        except ManifestError as error:
            yield ListedBackup(None, label, None, None, repository.destination.name, "damaged", error=error.message)


def _finished(stored: StoredBackup, destination: str) -> ListedBackup:
    manifest, state = stored.manifest, stored.state
    return ListedBackup(
        id=manifest.id,
        label=manifest.label,
        type=manifest.type,
        engine=manifest.engine,
        destination=destination,
        status=BackupStatus.COMPLETED.value,
        started_at=manifest.started_at,
        completed_at=manifest.completed_at,
        size_bytes=manifest.size_bytes,
        verified=state.verified,
        verified_at=state.verified_at,
        pinned=state.pinned,
        suspect=state.suspect,
        parent_label=manifest.parent_label,
        set_id=manifest.set_id,
        flow_run_id=manifest.flow_run_id,
    )


def _of_catalog(installation: Installation, destinations: set[str], ended_limit: int) -> Iterator[ListedBackup]:
    store = installation.catalog.backups
    cluster = installation.settings.platform.cluster
    running = store.running()
    page = store.list_backups(limit=max(1, ended_limit * 5))
    ended = [row for row in page.rows if row.status not in _STORED and row.status is not BackupStatus.RUNNING]
    for row in [*running, *ended[:ended_limit]]:
        if row.destination in destinations and row.cluster == cluster:
            yield _without_backup(row)


def _known_there(installation: Installation, destination: str, read: list[ListedBackup]) -> list[ListedBackup]:
    """What should be at a destination that cannot be read, or not to its end."""
    rows = installation.catalog.backups.completed_at_destination(destination, installation.settings.platform.cluster)
    known = {backup.id for backup in read}
    return [_without_backup(row) for row in rows if row.id not in known]


def _without_backup(row: BackupRow) -> ListedBackup:
    return ListedBackup(
        id=row.id,
        label=row.label,
        type=row.type,
        engine=row.engine,
        destination=row.destination,
        status=row.status.value,
        started_at=row.started_at,
        completed_at=row.ended_at,
        size_bytes=row.size_bytes,
        verified=row.verified,
        verified_at=row.verified_at,
        pinned=row.pinned,
        suspect=row.suspect,
        set_id=row.set_id,
        flow_run_id=row.flow_run_id,
        error=row.error,
    )


def _age(backup: ListedBackup) -> tuple[str, str]:
    # A damaged backup has no readable time, but its label begins with one.
    stamp = (
        backup.started_at.strftime("%Y%m%d-%H%M%S.%f") if backup.started_at else (backup.label or "").rpartition("_")[2]
    )
    return stamp, backup.label or ""
