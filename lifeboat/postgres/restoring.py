"""How a restore in place keeps others from starting the server that it replaces.

The restore grows in `<data>.unfinished` beside the data directory, and holds that folder's lock file from before it
stops the server until the restored data have their name. PostgreSQL does not know of it: what Lifeboat itself starts
asks here first, and the restore looks again before it takes the old data away.
"""

import fcntl
import os
from pathlib import Path

from lifeboat.errors import PermanentError, TransientError

UNFINISHED_SUFFIX = ".unfinished"
LOCK_NAME = "lock"
DATA_NAME = "data"


class RestoreInProgress(TransientError):
    """A restore in place holds the data directory."""


class RestoreInterrupted(PermanentError):
    """A restore in place ended after it had taken the old data away, and before the restored ones had their name."""


def refuse_while_restored(data_dir: Path) -> None:
    """Raise RestoreInProgress or RestoreInterrupted unless a server may be made or started in `data_dir`."""
    folder = data_dir.with_name(data_dir.name + UNFINISHED_SUFFIX)
    if _is_held(folder / LOCK_NAME):
        raise RestoreInProgress(
            f"a restore to {data_dir} is under way", hint="Wait until it has ended: the server is started after it."
        )
    if not data_dir.exists() and (folder / DATA_NAME).is_dir():
        raise RestoreInterrupted(
            f"a restore to {data_dir} was interrupted: the old data are moved away, the restored ones not in place",
            hint="Run the same `lifeboat restore run … --to in-place` again: it finishes in a moment.",
        )


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
