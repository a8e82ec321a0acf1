"""Logical backup: a portable copy of the database."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import backup_flow
from lifeboat.operations.results import BackupTaken
from lifeboat.storage.manifest import BackupType
from tasks.back_up_database import back_up_database
from tasks.staleness import skip_if_stale


@backup_flow("logical-backup")
def logical_backup(destination: str | None = None) -> BackupTaken | State[Any]:
    """Dump the database and the roles with pg_dump: restores into other major versions, and single tables.

    Args:
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    if stale := skip_if_stale():
        return stale
    return back_up_database(BackupType.LOGICAL, "pg_dump", destination)
