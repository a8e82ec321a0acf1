"""Whether what is restored fits where it goes."""

import shutil
from pathlib import Path

from lifeboat.errors import PermanentError


class NoRoomForRestore(PermanentError):
    """A filesystem has less space than what is restored to it needs."""


def require_free(needed_bytes: int, folder: Path, what: str) -> None:
    """Raise NoRoomForRestore unless `what` fits below a folder that is there."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise NoRoomForRestore(
            f"{what} needs about {needed_bytes:,} bytes below {folder}, where {free:,} are free",
            hint="Free space there, or restore to another volume.",
        )


def require_free_to_move(tree: Path, folder: Path) -> None:
    """Raise NoRoomForRestore where `tree` is to be copied to another filesystem that it does not fit in.

    `folder` is where it goes, or is there already, empty.
    """
    beside = folder if folder.is_dir() else folder.parent
    if beside.stat().st_dev == tree.stat().st_dev:
        return
    size_bytes = sum(path.lstat().st_size for path in tree.rglob("*") if path.is_file())
    require_free(size_bytes, beside, f"the tablespace in {folder}")
