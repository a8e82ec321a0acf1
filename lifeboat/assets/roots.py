"""The folders that hold the files: nothing outside is read, and a lost mount is not taken for lost files."""

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lifeboat.errors import TransientError

# O_NONBLOCK: a FIFO in the place of a file must not hang the check.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_PLAIN_FOLDERS_MAX = 10_000
_HINT = "Mount it, or correct `assets.roots`: a root that is away says nothing about the files below it."


class AssetRootMissing(TransientError):
    """A root is away, empty, not mounted, or became another folder during the check."""


class PathRefused(ValueError):
    """A path leaves every root, or cannot be a path at all; the message says which."""


class FileAbsent(FileNotFoundError):
    """There is nothing at the path below any root."""


@dataclass(frozen=True)
class _Root:
    path: str
    real_path: str
    device: int
    inode: int


class AssetRoots:
    """One or several roots; a relative path is looked up in each, in order."""

    def __init__(self, paths: Sequence[Path], *, mount: bool = False) -> None:
        """Raises AssetRootMissing unless every root is a folder that is not empty (with `mount`: mounted)."""
        if not paths:
            raise ValueError("an asset check needs a root")
        self._roots = [_inspect(path, mount=mount) for path in paths]
        self._plain_folders: set[str] = set()
        self._real_paths = tuple(root.real_path for root in self._roots)

    def require_unchanged(self) -> None:
        """Raise AssetRootMissing when a root is no longer what it was at the start."""
        for root in self._roots:
            if _inspect(Path(root.path), mount=False) != root:
                raise AssetRootMissing(f"the asset root {root.path} was replaced during the check", hint=_HINT)

    def open(self, path: str) -> int:
        """A file descriptor for the file, which may be no regular one.

        Raises FileAbsent, PathRefused, or OSError when it cannot be opened.
        """
        return self._open(path)[0]

    def open_quickly(self, path: str) -> int:
        """A file descriptor like `open` gives, without asking again where a folder leads.

        Only a folder without links is remembered; a link in it is refused with OSError. What fails here is for
        `open` to judge.
        """
        folder = path.rpartition("/")[0]
        if folder in self._plain_folders:
            return os.open(f"{self._roots[0].path}/{path}", _OPEN_FLAGS | os.O_NOFOLLOW)
        descriptor, opened_path = self._open(path)
        if opened_path == self._roots[0].real_path + path:
            if len(self._plain_folders) >= _PLAIN_FOLDERS_MAX:
                self._plain_folders.clear()
            self._plain_folders.add(folder)
        return descriptor

    def _open(self, path: str) -> tuple[int, str]:
        if not path or "\0" in path:
            raise PathRefused("is no file name")
        for root in self._roots:
            # Where it leads, by `..`, links or a leading slash, is checked on what was opened.
            full_path = path if path[0] == "/" else f"{root.path}/{path}"
            try:
                descriptor = os.open(full_path, _OPEN_FLAGS)
            except OSError as error:
                self._require_inside(full_path)
                if error.errno not in _ABSENT:
                    raise
                continue
            opened_path = _opened_path(descriptor, full_path)
            if self._contains(opened_path):
                return descriptor, opened_path
            os.close(descriptor)
            raise PathRefused("leads out of the asset roots")
        raise FileAbsent(errno.ENOENT, "is not there")

    def _require_inside(self, full_path: str) -> None:
        with suppress(OSError):
            if not self._contains(os.path.realpath(full_path)):
                raise PathRefused("leads out of the asset roots")

    def _contains(self, real_path: str) -> bool:
        return real_path.startswith(self._real_paths)


def _inspect(path: Path, *, mount: bool) -> _Root:
    try:
        found = path.stat()
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except OSError as error:
        raise AssetRootMissing(f"the asset root {path} is not there: {error.strerror}", hint=_HINT) from error
    if empty:
        raise AssetRootMissing(f"the asset root {path} is empty", hint=_HINT)
    if mount and not any(os.path.ismount(folder) for folder in (path, *list(path.parents)[:-1])):
        raise AssetRootMissing(f"nothing is mounted at the asset root {path} or above it", hint=_HINT)
    return _Root(str(path), os.path.join(os.path.realpath(path), ""), found.st_dev, found.st_ino)


def _opened_path(descriptor: int, path: str) -> str:
    # What was really opened, whatever links lead there and whoever changes them. A bare chroot has no /proc.
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)


def describe_type(mode: int) -> str:
    """What a `st_mode` that is not a regular file's stands for."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")
