"""Differential backup: what changed since the newest full backup."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import backup_flow
from lifeboat.operations.results import BackupTaken
from lifeboat.storage.manifest import BackupType
from tasks.back_up_database import back_up_database
from tasks.engines import PhysicalEngine
from tasks.staleness import skip_if_stale
from tasks.unsupported import skip_if_unsupported


@backup_flow("differential-backup")
def differential_backup(
    engine: PhysicalEngine | None = None, destination: str | None = None
) -> BackupTaken | State[Any]:
    """Back up what changed since the newest full backup; where that is impossible, take a full one and say why.

    A server that never gives such backups (it needs PostgreSQL 17 with summarize_wal on) has scheduled runs skipped
    while the newest full backup is younger than `backup.full_max_age_days`.

    Args:
        engine: basebackup or pgbackrest; without it, what the settings say, where that is no dump.
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    if skipped := skip_if_stale() or skip_if_unsupported(BackupType.DIFFERENTIAL, engine, destination):
        return skipped
    return back_up_database(BackupType.DIFFERENTIAL, engine, destination)
