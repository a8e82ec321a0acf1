"""Which backup somebody means by `latest`, a label or an id."""

from uuid import UUID

from lifeboat.catalog.store import BackupRow, BackupStatus, CatalogError
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.storage.manifest import BackupType
from lifeboat.storage.repository import BackupRepository, StoredBackup


class NoSuchBackup(PermanentError):
    """The destination has no such finished backup."""


def tell_fault(error: LifeboatError) -> None:
    """Log a backup that cannot be trusted and is passed over."""
    LOG.error("passed over: %s", error.message)


def find_backup(repository: BackupRepository, wanted: str) -> StoredBackup:
    """The backup named by label or id, or for `latest` the newest of the database; read from storage alone.

    Raises NoSuchBackup, ManifestError.
    """
    where = f"of cluster {repository.cluster} at {repository.destination.describe()}"
    if wanted == "latest":
        databases = [
            item for item in repository.sound_backups(tell_fault) if item.manifest.type is not BackupType.CONFIG
        ]
        if not databases:
            raise NoSuchBackup(
                f"there is no finished backup {where}", hint="Take one: `lifeboat backup run --type full`."
            )
        return max(databases, key=lambda item: item.manifest.started_at)
    if wanted in repository.labels():
        return repository.load(wanted)
    try:
        identifier = UUID(wanted)
    except ValueError:
        identifier = None
    for item in repository.sound_backups(tell_fault) if identifier else []:
        if item.manifest.id == identifier:
            return item
    raise NoSuchBackup(f"there is no backup {wanted} {where}", hint="`lifeboat backup list` shows what is there.")


def find_run(installation: Installation, wanted: str) -> BackupRow | None:
    """The catalog's row of a run that left no backup, or whose backup has expired; None where none is known."""
    try:
        row = installation.catalog.backups.find(wanted, cluster=installation.settings.platform.cluster)
    except CatalogError:
        return None
    # Of a completed backup that storage does not have, the row alone would look as if all were well.
    return None if row is None or row.status is BackupStatus.COMPLETED else row
