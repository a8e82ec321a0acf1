"""Checks what a tool left behind before it counts as a backup."""

from pathlib import Path

from lifeboat.engines.basebackup_restore import PAYLOAD_FOLDER
from lifeboat.engines.engine import Taken
from lifeboat.errors import LifeboatError
from lifeboat.settings.root import Settings
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.integrity import check_tar


def check_payload(settings: Settings, directory: Path, taken: Taken) -> None:
    """Compare a base backup's files with PostgreSQL's own manifest of them; raises BackupDamaged naming the faults."""
    if taken.engine != "basebackup" or not settings.engines.basebackup.check_after:
        return
    faults = _base_backup_faults(directory / PAYLOAD_FOLDER)
    if faults:
        raise BackupDamaged(
            f"the base backup differs from PostgreSQL's manifest of it: {'; '.join(faults[:5])}",
            hint="Take it again; if it happens twice, look at the disks and the memory of this host.",
        )


def check_backup(repository: BackupRepository, manifest: Manifest) -> list[str]:
    """Read a stored backup and its chain and name every object that is not as its manifest says."""
    faults: list[str] = []
    try:
        chain = repository.chain(manifest.label)
    except LifeboatError as error:
        return [error.message]
    for link in chain:
        faults += repository.check_objects(link)
    return faults


def _base_backup_faults(folder: Path) -> list[str]:
    archives = {path.name: path for path in sorted(folder.iterdir()) if ".tar" in path.suffixes}
    return [str(problem) for problem in check_tar(archives, folder / "backup_manifest").problems]
