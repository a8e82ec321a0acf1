"""Pins: a pinned backup and all that it needs stay, whatever retention's rules say."""

import getpass
from datetime import UTC, datetime

from lifeboat.operations.backup.selection import find_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.recording import best_effort
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.manifest import Manifest


def set_pinned(
    installation: Installation, wanted: str, pinned: bool, *, destination: str | None = None, actor: str | None = None
) -> tuple[Manifest, bool]:
    """Pin or unpin a backup: first the signed event in storage, then the catalog.

    Returns its manifest and whether anything changed. Raises NoSuchBackup, ManifestError and the destination's errors.
    """
    repository = installation.writable_repository(destination)
    stored = find_backup(repository, wanted)
    manifest = stored.manifest
    who = actor or f"lifeboat command of {getpass.getuser()}"
    changed = stored.state.pinned is not pinned
    if changed:
        kind = EventKind.PINNED if pinned else EventKind.UNPINNED
        detail = {"actor": who}
        repository.append_event(
            Event(kind=kind, at=datetime.now(UTC), backup_id=manifest.id, label=manifest.label, detail=detail)
        )
    with best_effort(f"the {'pin' if pinned else 'end of the pin'} of {manifest.label}"):
        installation.catalog.backups.set_pinned(manifest.id, pinned)
        if changed:
            installation.catalog.audit.append(
                actor=who,
                action="pin" if pinned else "unpin",
                object=f"backup {manifest.label}",
                before={"pinned": stored.state.pinned},
                after={"pinned": pinned},
            )
    return manifest, changed
