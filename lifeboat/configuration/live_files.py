"""Looks at, and changes, files below a folder without ever passing through a symbolic link."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lifeboat.configuration.content import FileItem
from lifeboat.configuration.index import ConfigurationError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def open_folder(root: Path, path: str) -> Iterator[int | None]:
    """A descriptor of the folder `path` below `root` ("" for root itself), None where it does not exist.

    Raises ConfigurationError where the way leads through a link or a file. The root itself may be a link.
    """
    try:
        descriptor = os.open(root, _FOLDER)
    except FileNotFoundError:
        yield None
        return
    try:
        for part in path.split("/") if path else ():
            try:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except FileNotFoundError:
                yield None
                return
            except NotADirectoryError:
                raise ConfigurationError(
                    f"{root / path} leads through a symbolic link or a file",
                    hint="Files are only written to real folders: replace it by a folder, or exclude it.",
                ) from None
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def split_path(path: str) -> tuple[str, str]:
    """The folder and the name of a path with slashes."""
    folder, _, name = path.rpartition("/")
    return folder, name


def look_at(root: Path, path: str) -> FileItem | None:
    """The file, link or directory at `path` as it is now, None where there is nothing. Raises ConfigurationError."""
    folder, name = split_path(path)
    with open_folder(root, folder) as descriptor:
        if descriptor is None:
            return None
        try:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            return FileItem(path, "directory", mode)
        if stat.S_ISLNK(found.st_mode):
            return FileItem(path, "link", 0o777, target=os.readlink(name, dir_fd=descriptor))
        if stat.S_ISREG(found.st_mode):
            return FileItem(path, "file", mode, read_at(descriptor, name))
    raise ConfigurationError(
        f"{root / path} is neither a file nor a link nor a folder", hint="Move it away before the archive is applied."
    )


def read_at(descriptor: int, name: str) -> bytes:
    """The content of a regular file in an open folder."""
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor), "rb") as file:
        return file.read()
