"""Full backup: the database and the configuration, as one set."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import backup_flow
from lifeboat.operations.results import BackupTaken
from lifeboat.storage.manifest import BackupType
from tasks.back_up_database import back_up_database
from tasks.engines import EngineName
from tasks.export_configuration import export_configuration
from tasks.staleness import skip_if_stale


@backup_flow("full-backup")
def full_backup(engine: EngineName | None = None, destination: str | None = None) -> list[BackupTaken] | State[Any]:
    """Back up the whole database and, side by side, the platform's configuration.

    Args:
        engine: basebackup or pgbackrest (physical), or pg_dump (logical); without it, what the settings say.
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    if stale := skip_if_stale():
        return stale
    configuration = export_configuration.submit(destination)
    # Not submitted: a cancel reaches the main thread only, and there it ends the engine's tools at once.
    database = back_up_database(BackupType.FULL, engine, destination, return_state=True)
    configuration.wait()
    return [database.result(), configuration.result()]
