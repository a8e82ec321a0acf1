"""Runs about an archive that settings do without."""

from prefect.client.schemas.objects import State
from prefect.states import Completed

from lifeboat.operations.installation import Installation
from tasks.staleness import SKIPPED


def skip_without_archive() -> State[None] | None:
    """The state `Skipped` where `wal.archive` is false, by decision; None everywhere else."""
    if Installation.load().settings.wal.archive:
        return None
    return Completed(name=SKIPPED, message="`wal.archive` is false: there is no WAL archive")
