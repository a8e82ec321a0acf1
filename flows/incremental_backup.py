"""Incremental backup: what changed since the newest backup."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import backup_flow
from lifeboat.operations.results import BackupTaken
from lifeboat.storage.manifest import BackupType
from tasks.back_up_database import back_up_database
from tasks.engines import PhysicalEngine
from tasks.staleness import skip_if_stale


@backup_flow("incremental-backup")
def incremental_backup(
    engine: PhysicalEngine = "basebackup", destination: str | None = None
) -> BackupTaken | State[Any]:
    """Back up what changed since the newest backup; where that is impossible, take a full one and say why.

    Args:
        engine: basebackup; dumps know nothing of the kind.
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    if stale := skip_if_stale():
        return stale
    return back_up_database(BackupType.INCREMENTAL, engine, destination)
