"""Doctor's check of a destination whose folder is not there: away, or not made yet."""

import os
from pathlib import Path

from lifeboat.catalog.store import BackupFilter, BackupStatus, CatalogError, CatalogNotMigrated
from lifeboat.errors import LifeboatError
from lifeboat.operations.doctor.results import CheckResult, failed, ok
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.postgres.folders import check_reachable
from lifeboat.storage.filesystem import FilesystemDestination


def existing_folder(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there: what decides over a folder that is still to be made."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def check_absent(
    installation: Installation, destination: FilesystemDestination, facts: SourceFacts | None
) -> CheckResult:
    """Is the folder of a destination missing, or will the first backup make it? Nothing is created to find out."""
    title = f"destination {destination.name}"
    try:
        # What settings say of the mount comes first: with it, the folder alone would not do.
        destination.require_mount()
    except LifeboatError as error:
        return failed(title, error.message, error.hint or f"Mount {destination.path}.")
    if why := _was_used(installation, destination.name, facts):
        return failed(title, f"the folder {destination.path} is not there, {why}", "Create it, or mount it.")
    there = existing_folder(destination.path)
    try:
        check_reachable(there, installation.run_as)
        FilesystemDestination(destination.name, there, minimum_free_bytes=destination.minimum_free_bytes).require_free(
            0
        )
    except LifeboatError as error:
        return failed(title, error.message, error.hint or f"Check {there}.")
    if not os.access(there, os.W_OK | os.X_OK):
        return failed(
            title, f"{destination.path} cannot be made: {there} cannot be written", f"chown {os.geteuid()} {there}"
        )
    return ok(title, f"{destination.path} will be created by the first backup")


def _was_used(installation: Installation, name: str, facts: SourceFacts | None) -> str | None:
    """Why something was, or may have been, stored at a destination; None when nothing ever was."""
    settings = installation.settings
    archives_there = settings.wal.archive and installation.destination(settings.wal.destination).name == name
    if archives_there and facts and facts.archiver.last_archived_wal:
        return f"and the server has archived {facts.archiver.last_archived_wal}"
    if settings.catalog.dsn is None and settings.platform.embedded and not installation.embedded.was_created():
        return None
    backups = installation.catalog.backups
    try:
        for status in (BackupStatus.COMPLETED, BackupStatus.EXPIRED):
            chosen = BackupFilter(status=status, cluster=settings.platform.cluster, destination=name)
            if backups.list_backups(chosen, limit=1).rows:
                return "and the catalog knows of backups there"
    except CatalogNotMigrated:
        return None
    except CatalogError as error:
        return f"and whether backups were stored there cannot be asked: {error.message}"
    return None
