"""A backup while it is being written: its label, its folder, and who holds it."""

import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from lifeboat.storage.destination import Destination, ObjectMissing
from lifeboat.storage.labels import make_label
from lifeboat.storage.manifest import BackupObject, BackupType

HOLD_NAME = ".writing"
_LABEL_ATTEMPTS = 120
_GRACE = timedelta(minutes=10)
_BLOCK_BYTES = 1024 * 1024


@dataclass
class UnfinishedBackup:
    """A staged folder that becomes a backup when its manifest is published.

    While the object lives, a lock on `.writing` tells others that a living process writes here.
    """

    destination: Destination
    prefix: str
    label: str
    started_at: datetime
    directory: Path
    published: bool = False
    _hold: IO[str] | None = field(default=None, repr=False)

    def seal(self) -> list[BackupObject]:
        """Hash every file in the folder and make all of them durable; the list is sorted by name."""
        objects = [
            _describe(path, path.relative_to(self.directory).as_posix())
            for path in sorted(self.directory.rglob("*"))
            if path.is_file() and path.name != HOLD_NAME
        ]
        self.destination.upload(self.prefix, self.directory)
        return objects

    def move_to(self, other: "UnfinishedBackup") -> None:
        """Go on as `other`, staged under the label that a tool has given; what this one staged is removed."""
        self.abandon()
        self.prefix, self.label, self.directory, self._hold = other.prefix, other.label, other.directory, other._hold

    def release(self) -> None:
        """Say that nobody writes here any more."""
        if self._hold is not None:
            (self.directory / HOLD_NAME).unlink(missing_ok=True)
            self._hold.close()
            self._hold = None

    def abandon(self) -> None:
        """Remove what was written: a failed backup leaves nothing that looks like one. A published one stays."""
        if self.published:
            return
        try:
            self.destination.delete_folder(self.prefix)
        finally:
            self.release()


def stage_backup(
    destination: Destination, cluster: str, kind: BackupType, started_at: datetime, parent_label: str | None
) -> UnfinishedBackup:
    """Reserve a label, moving on by whole seconds while it is taken; raises FileExistsError after two minutes."""
    for attempt in range(_LABEL_ATTEMPTS):
        label = make_label(kind, started_at + timedelta(seconds=attempt), parent_label)
        try:
            return stage_label(destination, cluster, label, started_at)
        except FileExistsError:
            continue
    raise FileExistsError(f"no free label from {started_at:%Y%m%d-%H%M%S} on at {destination.describe()}")


def stage_label(destination: Destination, cluster: str, label: str, started_at: datetime) -> UnfinishedBackup:
    """Take a label that somebody else has chosen; raises FileExistsError when it is taken."""
    prefix = f"{cluster}/{label}"
    directory = destination.stage(prefix)
    return UnfinishedBackup(destination, prefix, label, started_at, directory, _hold=_take_hold(directory))


def wait_for_free_second(labels: Iterable[str]) -> None:
    """Wait until the clock has passed the second of the newest label: one that a tool gives from now on is free.

    Labels can lie a few seconds ahead of the clock (see `stage_backup`). Those further ahead are left by a clock that
    was put back: nobody can wait for it, and a tool with a repository of its own knows how to go on then.
    """
    newest = max(map(_started_at, labels), default=None)
    if newest is None:
        return
    missing_seconds = (newest + timedelta(seconds=1) - datetime.now(UTC)).total_seconds()
    if 0 < missing_seconds <= _LABEL_ATTEMPTS:
        time.sleep(missing_seconds)


@contextmanager
def hold_left_behind(destination: Destination, prefix: str) -> Iterator[bool]:
    """Take the hold of an unfinished backup; yields False while its writer lives, or may be just about to take it.

    While it is held nobody can publish there, so what is seen of the folder then stays true.
    """
    try:
        file = destination.open(f"{prefix}/{HOLD_NAME}")
    except ObjectMissing:
        # Newborn, or published and released this moment, or from a writer that died before it took its hold.
        yield _started_at(prefix) < datetime.now(UTC) - _GRACE
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _started_at(prefix: str) -> datetime:
    stamp = prefix.rpartition("/")[2].rpartition("_")[2][:15]
    return datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


def _take_hold(directory: Path) -> IO[str]:
    file = (directory / HOLD_NAME).open("w", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    file.flush()
    return file


def _describe(path: Path, name: str) -> BackupObject:
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
    return BackupObject(name=name, size_bytes=size, sha256=digest.hexdigest(), mode=path.stat().st_mode & 0o777)
