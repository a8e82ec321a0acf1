"""A folder below the state folder for one run at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lifeboat.errors import TransientError
from lifeboat.postgres.folders import make_private_dir


@contextmanager
def alone(folder: Path, user: str | None, busy: TransientError) -> Iterator[Path]:
    """A folder for segments that are being read, for one run at a time; what a killed one left goes.

    Raises `busy` where another run holds it, and FolderUnreachable.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.with_name(f"{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        shutil.rmtree(folder, ignore_errors=True)
        yield make_private_dir(folder, user)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
