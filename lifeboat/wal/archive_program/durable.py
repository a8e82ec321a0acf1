"""Files that are whole and on disk, or not there at all."""

from __future__ import annotations  # Python 3.9 cannot evaluate `X | None`

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter

from lifeboat.wal.archive_program.layout import FILE_MODE, ArchiveError

LOCK_NAME = ".lock"
LOCK_TIMEOUT_SECONDS = 30.0
LEFTOVER_AGE_SECONDS = 3600
_PREFIX, _SUFFIX = ".lifeboat-", ".tmp"


def is_temporary(name: str) -> bool:
    """Whether a file of this name is the unfinished work of a push or fetch."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@contextmanager
def temporary_file(folder: str, base: str, mode: int) -> Iterator[tuple[str, BufferedWriter]]:
    """A new file of `folder`, as path and stream; gone at the end of the block unless it was renamed."""
    path = os.path.join(folder, f"{_PREFIX}{base}.{os.getpid()}.{os.urandom(4).hex()}{_SUFFIX}")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            settle(stream.fileno(), mode, folder)
            yield path, stream
    finally:
        with suppress(OSError):
            os.unlink(path)


def finish(stream: BufferedWriter) -> None:
    """Make what was written durable."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_path(path: str) -> None:
    """Make a file's content, or a folder's entries, durable."""
    with opened(path, os.O_RDONLY) as handle:
        os.fsync(handle)


@contextmanager
def opened(path: str, flags: int, mode: int = 0) -> Iterator[int]:
    """A file handle for the block; a symbolic link is not followed."""
    handle = os.open(path, flags | os.O_NOFOLLOW, mode)
    try:
        yield handle
    finally:
        os.close(handle)


def settle(handle: int, mode: int, parent: str) -> None:
    """Set the mode whatever the umask, keep a set-group-ID bit; what root makes is the parent's owner's."""
    if os.geteuid() == 0:
        owner = os.stat(parent)
        os.fchown(handle, owner.st_uid, owner.st_gid)
    os.fchmod(handle, mode | (os.fstat(handle).st_mode & stat.S_ISGID))


def remove_leftovers(folder: str) -> None:
    """Remove what killed runs left more than an hour ago; what cannot be removed does not matter."""
    oldest = time.time() - LEFTOVER_AGE_SECONDS
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Alone in `folder` for the block; raises ArchiveError after 30 s of waiting."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    # A lock file and not the folder itself: NFS locks only what is open for writing.
    with opened(os.path.join(folder, LOCK_NAME), os.O_RDWR | os.O_CREAT, FILE_MODE) as handle:
        if os.geteuid() == 0:
            settle(handle, FILE_MODE, folder)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    hint = "Look for one that hangs."
                    raise ArchiveError(f"{folder} is locked by another push", hint) from error
                time.sleep(0.05)
        yield
