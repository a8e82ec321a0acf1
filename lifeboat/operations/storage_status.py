"""How full each destination is, and what of it is ours."""

import shutil
from collections import Counter
from dataclasses import dataclass

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archives import wal_archive


@dataclass(frozen=True)
class DestinationStatus:
    """One destination. Sizes are in bytes; `fault` says why nothing else is known."""

    name: str
    location: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    usable_bytes: int | None = None
    backups: dict[str, int] | None = None
    backups_bytes: int | None = None
    wal_bytes: int | None = None
    unfinished: tuple[str, ...] = ()
    fault: str | None = None


def storage_status(installation: Installation) -> list[DestinationStatus]:
    """Measure every destination; one that is away is told as such."""
    return [_status(installation, name) for name in installation.settings.destinations]


def _status(installation: Installation, name: str) -> DestinationStatus:
    repository = installation.repository(name)
    destination = installation.destination(name)
    try:
        backups = [stored.manifest for stored in repository.backups()]
        usage = shutil.disk_usage(destination.path)
        return DestinationStatus(
            name=name,
            location=destination.describe(),
            total_bytes=usage.total,
            free_bytes=usage.free,
            usable_bytes=destination.free_bytes(),
            backups=dict(Counter(manifest.type.value for manifest in backups)),
            backups_bytes=sum(manifest.size_bytes for manifest in backups),
            wal_bytes=_wal_bytes(installation, name),
            unfinished=tuple(repository.unfinished_labels()),
        )
    except LifeboatError as error:
        return DestinationStatus(name, destination.describe(), fault=error.message)


def _wal_bytes(installation: Installation, name: str) -> int | None:
    wal = installation.settings.wal
    if not wal.archive or wal.destination != name:
        return None
    try:
        return wal_archive(installation).listing().stored_bytes
    except LifeboatError:
        # Nothing was archived yet: `wal status` is the command that judges the archive.
        return 0
