"""Who works at a destination: readers of a backup hold a lease on it, retention holds the destination alone.

Leases are locks on files below the state folder, so that a killed process gives them back.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lifeboat.errors import TransientError
from lifeboat.operations.installation import Installation
from lifeboat.storage.repository import BackupRepository


class DestinationBusy(TransientError):
    """Somebody else expires backups there."""


@contextmanager
def lease(installation: Installation, repository: BackupRepository, labels: Sequence[str]) -> Iterator[None]:
    """Hold backups for reading: retention keeps what is leased."""
    files = [_open(_folder(installation, repository) / f"{label}.lease") for label in labels]
    try:
        for file in files:
            fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        for file in files:
            os.close(file)


def labels_in_use(installation: Installation, repository: BackupRepository) -> list[str]:
    """The labels that somebody holds for reading."""
    used = []
    for path in _folder(installation, repository).glob("*.lease"):
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            used.append(path.stem)
        finally:
            os.close(file)
    return used


@contextmanager
def claim(installation: Installation, repository: BackupRepository, label: str) -> Iterator[bool]:
    """Hold a backup alone, to take it away; yields False when somebody reads it."""
    file = _open(_folder(installation, repository) / f"{label}.lease")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


@contextmanager
def writing_lock(installation: Installation, repository: BackupRepository) -> Iterator[None]:
    """Only one expiry at a destination at a time; raises DestinationBusy."""
    file = _open(_folder(installation, repository) / "expiry.lock")
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DestinationBusy(
                f"another run expires backups at {repository.destination.name}", hint="Wait until it has ended."
            ) from None
        yield
    finally:
        os.close(file)


def _folder(installation: Installation, repository: BackupRepository) -> Path:
    folder = installation.settings.state_dir / "leases" / repository.destination.name / repository.cluster
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
