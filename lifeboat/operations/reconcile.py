"""Makes the catalog true: what hooks could not see is read from storage, from the source's lock and from Prefect.

The manifest decides over a run's state (DESIGN 4): a backup whose manifest is in storage is completed, whatever
became of the process; one without, whose writer is gone, is not. Of a restore its flow run or its process decides.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from lifeboat.catalog.errors import CatalogError
from lifeboat.catalog.values import BackupRow
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.journal import reconcile_journal
from lifeboat.operations.restore.recording import end_dead_restores
from lifeboat.operations.restore.scratch import sweep_drill_databases
from lifeboat.operations.results import ReconcileReport
from lifeboat.postgres.lock import is_locked
from lifeboat.postgres.scratch import remove_abandoned
from lifeboat.storage.repository import BackupRepository, StoredBackup

# A run has its row before it has the lock: a young row without a lock is only starting.
GRACE = timedelta(minutes=2)
_ENDED = {"COMPLETED": "crashed", "FAILED": "failed", "CRASHED": "crashed", "CANCELLED": "cancelled"}


def running_flow_runs(installation: Installation) -> list[UUID]:
    """The flow runs whose backups or restores the catalog believes to be running."""
    restores = installation.catalog.restores.running(installation.settings.platform.cluster)
    runs = {row.flow_run_id for row in installation.catalog.backups.running()} | {row.flow_run_id for row in restores}
    return sorted(run for run in runs if run is not None)


def reconcile(
    installation: Installation, *, flow_run_states: Mapping[UUID, str] | None = None, grace: timedelta = GRACE
) -> ReconcileReport:
    """Compare catalog, storage and running processes, and repair the catalog.

    `flow_run_states` are Prefect's state types by flow run id, as far as Prefect knows them. Raises
    CatalogUnavailable; a destination that is away is in the report's `unread`, and
    runs that wrote there are left for the next time.
    """
    repaired: list[tuple[UUID, str]] = []
    adopted: list[str] = []
    missing: list[str] = []
    unread: dict[str, str] = {}
    for name in installation.settings.destinations:
        repository = installation.repository(name)
        faults: list[LifeboatError] = []
        stored: dict[UUID, StoredBackup] = {}
        expired: list[StoredBackup] = []
        try:
            stored = {item.manifest.id: item for item in repository.sound_backups(faults.append)}
            expired = repository.expired()
        except LifeboatError as error:
            # What was not read proves nothing about the runs that wrote there.
            unread[name] = error.message
            faults.append(error)
        for fault in faults:
            LOG.error("destination %s cannot be reconciled as a whole: %s", name, fault.message)
        adopted += _adopt(installation, name, stored)
        missing += [] if faults else _missing(installation, repository, stored)
        repaired += _tell_expired(installation, name, expired)
    repaired += _end_dead_runs(installation, flow_run_states or {}, grace, unread)
    repaired += [
        (identity, status.value) for identity, status in end_dead_restores(installation, flow_run_states or {})
    ]
    annotated = _annotate(installation, unread)
    scratch, databases = _remove_scratch(installation), _remove_databases(installation)
    return ReconcileReport(repaired, adopted, missing, scratch, unread, databases, annotated)


def _annotate(installation: Installation, unread: Collection[str]) -> list[str]:
    if installation.settings.backup.destination in unread:
        return []
    try:
        return reconcile_journal(installation)
    except CatalogError:
        raise
    except LifeboatError as error:
        LOG.error("notes and restore points cannot be reconciled: %s", error.message)
        return []


def _adopt(installation: Installation, destination: str, stored: Mapping[UUID, StoredBackup]) -> list[str]:
    adopted = []
    backups = installation.catalog.backups
    for item in stored.values():
        row = backups.get(item.manifest.id)
        if row is None or row.status != "completed":
            backups.record_completed(item.manifest, destination=destination, manifest_sha256=item.manifest_sha256)
            adopted.append(item.manifest.label)
        backups.record_state(item.manifest.id, item.state)
    return adopted


def _missing(
    installation: Installation, repository: BackupRepository, stored: Mapping[UUID, StoredBackup]
) -> list[str]:
    rows = installation.catalog.backups.completed_at_destination(repository.destination.name, repository.cluster)
    return [f"{repository.destination.name}: {row.label}" for row in rows if row.id not in stored]


def _tell_expired(installation: Installation, destination: str, expired: list[StoredBackup]) -> list[tuple[UUID, str]]:
    told = []
    for item in expired:
        row = installation.catalog.backups.get(item.manifest.id)
        if row is None or row.status != "expired":
            installation.catalog.backups.record_expired(
                item.manifest,
                destination=destination,
                manifest_sha256=item.manifest_sha256,
                expired_at=item.state.expired_at or datetime.now(UTC),
            )
            told.append((item.manifest.id, "expired"))
    return told


def _end_dead_runs(
    installation: Installation, states: Mapping[UUID, str], grace: timedelta, unread: Collection[str]
) -> list[tuple[UUID, str]]:
    rows: list[BackupRow] = [row for row in installation.catalog.backups.running() if row.destination not in unread]
    ended = []
    for row in rows:
        state = states.get(row.flow_run_id) if row.flow_run_id else None
        status = _ENDED.get(state or "")
        if status is None and not _writer_lives(installation, row, grace):
            status = "crashed"
        if status is not None:
            why = f"the flow run ended as {state}" if state else "the process that took it is gone"
            installation.catalog.backups.record_ended(
                row.id, status=status, error=f"{why}, and storage has no manifest of it that can be read"
            )
            ended.append((row.id, status))
    return ended


def _writer_lives(installation: Installation, row: BackupRow, grace: timedelta) -> bool:
    if row.started_at > datetime.now(UTC) - grace:
        return True
    return is_locked(installation.source, installation.settings.platform.cluster) is not None


def _remove_scratch(installation: Installation) -> list[Path]:
    removed = remove_abandoned(installation.settings.scratch_dir)
    for path in removed:
        LOG.warning("removed the scratch cluster %s that a killed drill left", path)
    return removed


def _remove_databases(installation: Installation) -> list[str]:
    try:
        return sweep_drill_databases(installation)
    except LifeboatError as error:
        # The catalog can be made true without the source where it has a server of its own.
        LOG.warning("temporary databases of killed drills could not be looked for: %s", error.message)
        return []
