"""Writes that survive a power cut: data, then name, then folder."""

import os
import uuid
from pathlib import Path


def fsync_directory(path: Path) -> None:
    """Make the names in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make the contents of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644, exclusive: bool = False) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename, fsync of the folder.

    With `exclusive` an existing file is never replaced: raises FileExistsError. Raises OSError otherwise; no
    temporary file is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, path)
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def make_directories(path: Path, *, mode: int = 0o755) -> list[Path]:
    """Create `path` with its parents, durably; returns those it made, the outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    for folder in missing:
        folder.mkdir(mode=mode, exist_ok=True)
        folder.chmod(mode)
        fsync_directory(folder.parent)
    return missing
