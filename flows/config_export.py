"""Configuration export: an archive of what the platform is configured to do."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import backup_flow
from lifeboat.operations.results import BackupTaken
from tasks.export_configuration import export_configuration
from tasks.staleness import skip_if_stale


@backup_flow("config-export")
def config_export(destination: str | None = None) -> BackupTaken | State[Any]:
    """Export the platform's configuration, the server's own settings and the schedules; no secrets in it.

    Args:
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    if stale := skip_if_stale():
        return stale
    return export_configuration(destination)
