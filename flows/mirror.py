"""Mirrors flow runs into the catalog's `backups`. It makes the rows fast; reconciling makes them true.

Prefect calls the hook in whatever process sees the change: the flow's, or after a crash or cancel the worker's.
Every call may be repeated. The manifest decides, not Prefect's state: a run that died after its manifest was written
has taken its backup (DESIGN 4).
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State, StateType

from lifeboat.operations.backup.selection import NoSuchBackup, find_backup
from lifeboat.operations.export_configuration import ENGINE as CONFIGURATION
from lifeboat.operations.installation import Installation
from lifeboat.storage.labels import backup_id
from lifeboat.storage.manifest import BackupType
from tasks.engines import physical_engine, type_by_engine
from tasks.staleness import SKIPPED

LOG = logging.getLogger("lifeboat")
# Cancellation hooks see CANCELLING. Completed without a manifest can only be a run that skipped itself, or a lie.
_STATUS = {
    StateType.FAILED: "failed",
    StateType.CRASHED: "crashed",
    StateType.CANCELLED: "cancelled",
    StateType.CANCELLING: "cancelled",
    StateType.COMPLETED: "failed",
}


@dataclass(frozen=True)
class ExpectedBackup:
    """A backup that a flow run takes if all goes well."""

    type: BackupType
    engine: str
    destination: str

    def id_in(self, set_id: UUID) -> UUID:
        """Its id in the set of that flow run."""
        return backup_id(set_id, self.engine, self.type)


def mirror_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """The state hook of every backup flow; it never raises."""
    try:
        installation = Installation.load()
        expected = expected_backups(installation, flow.name, flow_run.parameters)
        if state.type is StateType.RUNNING:
            _begin(installation, flow_run, expected)
        else:
            _end(installation, flow_run, state, expected)
    except Exception as error:  # noqa: BLE001 - a hook that raises helps nobody; reconciling does its work later
        LOG.warning("the catalog does not know yet that flow run %s is %s: %s", flow_run.name, state.name, error)


def expected_backups(
    installation: Installation, flow_name: str, parameters: dict[str, Any]
) -> tuple[ExpectedBackup, ...]:
    """What a run of a backup flow with these parameters takes; nothing for the other flows."""
    settings = installation.settings
    destination = parameters.get("destination") or settings.backup.destination
    engine = parameters.get("engine") or settings.backup.engine
    physical = physical_engine(parameters.get("engine"), settings.backup.engine)
    configuration = ExpectedBackup(BackupType.CONFIG, CONFIGURATION, destination)
    match flow_name:
        case "full-backup":
            database = ExpectedBackup(type_by_engine(BackupType.FULL, engine), engine, destination)
            return database, configuration
        case "differential-backup":
            return (ExpectedBackup(BackupType.DIFFERENTIAL, physical, destination),)
        case "incremental-backup":
            return (ExpectedBackup(BackupType.INCREMENTAL, physical, destination),)
        case "logical-backup":
            return (ExpectedBackup(BackupType.LOGICAL, "pg_dump", destination),)
        case "config-export":
            return (configuration,)
    return ()


def _begin(installation: Installation, flow_run: FlowRun, expected: Iterable[ExpectedBackup]) -> None:
    for backup in expected:
        installation.catalog.backups.record_started(
            backup.id_in(flow_run.id),
            set_id=flow_run.id,
            type=backup.type,
            engine=backup.engine,
            cluster=installation.settings.platform.cluster,
            destination=backup.destination,
            started_at=flow_run.start_time or datetime.now(UTC),
            flow_run_id=flow_run.id,
        )


def _end(installation: Installation, flow_run: FlowRun, state: State[Any], expected: Iterable[ExpectedBackup]) -> None:
    backups = installation.catalog.backups
    for backup in expected:
        identifier = backup.id_in(flow_run.id)
        row = backups.get(identifier)
        if row is None or row.status not in {"completed", "expired"}:
            _adopt(installation, identifier, backup.destination)
    status = "skipped" if state.name == SKIPPED else _STATUS[state.type]
    backups.record_flow_run_ended(flow_run.id, status=status, error=state.message or f"the flow run is {state.name}")


def _adopt(installation: Installation, identifier: UUID, destination: str) -> None:
    repository = installation.repository(destination)
    try:
        stored = find_backup(repository, str(identifier))
    except NoSuchBackup:
        return
    installation.catalog.backups.record_completed(
        stored.manifest, destination=destination, manifest_sha256=stored.manifest_sha256
    )
