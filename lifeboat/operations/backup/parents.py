"""Which backup a differential or incremental one builds on."""

from lifeboat.engines.engine import IncrementalImpossible
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository, StoredBackup

_PHYSICAL = {BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}


def choose_parent(
    repository: BackupRepository, engine: str, kind: BackupType, *, system_identifier: str | None = None
) -> Manifest:
    """The newest full backup for a differential one, the newest physical one for an incremental one.

    Suspect backups and those whose chain is broken or suspect are passed over, and with `system_identifier` those of
    other clusters. Raises IncrementalImpossible when none is left.
    """
    backups = {
        stored.manifest.label: stored
        for stored in repository.sound_backups(tell_fault)
        if stored.manifest.engine == engine
    }
    wanted = {BackupType.FULL} if kind is BackupType.DIFFERENTIAL else _PHYSICAL
    sound = [
        stored.manifest
        for stored in backups.values()
        if stored.manifest.type in wanted
        and system_identifier in {None, stored.manifest.system_identifier}
        and _chain_is_sound(stored, backups)
    ]
    if not sound:
        raise IncrementalImpossible(f"there is no sound backup that a {kind} one could build on")
    return max(sound, key=lambda manifest: manifest.started_at)


def _chain_is_sound(stored: StoredBackup, backups: dict[str, StoredBackup]) -> bool:
    current: StoredBackup | None = stored
    while current is not None:
        failed = current.state.failed_drill_at is not None and not current.state.verified
        if current.state.suspect or failed:
            return False
        if current.manifest.parent_label is None:
            return True
        current = backups.get(current.manifest.parent_label)
    return False
