"""A destination in a local folder or on a network mount."""

import errno
import os
import pwd
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lifeboat import commands
from lifeboat.storage.destination import (
    DestinationDenied,
    DestinationFull,
    DestinationUnavailable,
    ObjectMissing,
)
from lifeboat.storage.durable import fsync_directory, fsync_file, make_directories, write_durably

_DIRECTORY_MODE = 0o750
_GONE = {errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO}


class FilesystemDestination:
    """Objects are files below `path`; a backup is staged in place, so that nothing is copied.

    `owner` is the account that PostgreSQL's programs run as where we are root: it owns what we write.
    """

    def __init__(
        self, name: str, path: Path, *, minimum_free_bytes: int = 0, owner: str | None = None, mount: bool = False
    ) -> None:
        self._name, self.path, self.minimum_free_bytes = name, path, minimum_free_bytes
        self._owner, self._mount = owner if os.geteuid() == 0 else None, mount

    @property
    def name(self) -> str:
        """The name that settings and the catalog give it."""
        return self._name

    def describe(self) -> str:
        """The folder."""
        return str(self.path)

    def check(self) -> None:
        """Create the folder where needed and prove that the tools' account can write, read and remove there."""
        self.require_mount()
        with self._errors("prepare"):
            for folder in make_directories(self.path, mode=_DIRECTORY_MODE):
                self._give(folder)
        probe = self.path / f".probe-{uuid.uuid4().hex}"
        try:
            commands.run(
                ["sh", "-c", 'echo lifeboat > "$1" && test -s "$1" && rm "$1"', "sh", probe],
                timeout_seconds=30,
                user=self._owner,
            )
        except commands.CommandFailed as error:
            raise self._explain_probe(error) from error
        finally:
            probe.unlink(missing_ok=True)
        self.require_free(0)

    def require_mount(self) -> None:
        """Raise DestinationUnavailable where settings say that it is a mount, and it is not mounted."""
        if self._mount and not any(os.path.ismount(path) for path in (self.path, *list(self.path.parents)[:-1])):
            raise DestinationUnavailable(
                f"destination {self._name}: nothing is mounted at {self.path} or above it",
                hint="Mount it; settings say `mount = true`, so writing to the bare folder is refused.",
            )

    def free_bytes(self) -> int:
        """Bytes that may still be used above the minimum that settings keep free; never negative."""
        with self._errors("measure"):
            return max(0, shutil.disk_usage(self._existing()).free - self.minimum_free_bytes)

    def require_free(self, size_bytes: int) -> None:
        """Raise DestinationFull unless `size_bytes` fit above the minimum that is kept free."""
        with self._errors("measure"):
            free = shutil.disk_usage(self._existing()).free
        if free < size_bytes + self.minimum_free_bytes or free == 0:
            raise DestinationFull(
                f"destination {self._name} ({self.path}) has {free:,} bytes free, needs {size_bytes:,} and keeps "
                f"{self.minimum_free_bytes:,} free",
                hint="Free space, look at what retention would expire (`lifeboat retention plan`), or go elsewhere.",
            )

    def read(self, key: str) -> bytes:
        """The whole of a small object."""
        with self._errors("read", key):
            return (self.path / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        """A stream over a large object."""
        with self._errors("read", key):
            return (self.path / key).open("rb")

    def put(self, key: str, data: bytes, *, mode: int = 0o640, exclusive: bool = False) -> None:
        """Store a small object at once; with `exclusive` raises FileExistsError instead of replacing."""
        target = self.path / key
        with self._errors("write", key):
            for folder in make_directories(target.parent, mode=_DIRECTORY_MODE):
                self._give(folder)
            write_durably(target, data, mode=mode, exclusive=exclusive)
            self._give(target)

    def rename(self, key: str, new_key: str) -> None:
        """Give an object another key, atomically."""
        with self._errors("rename", key):
            (self.path / key).replace(self.path / new_key)
            fsync_directory((self.path / new_key).parent)

    def exists(self, key: str) -> bool:
        """Whether the object is there; raises DestinationUnavailable when the destination itself is not."""
        with self._errors("look at", key):
            try:
                (self.path / key).stat()
            except FileNotFoundError:
                return False
            return True

    def names(self, prefix: str) -> list[str]:
        """The names of files and folders directly below `prefix`, sorted; empty when there is none."""
        with self._errors("list", prefix):
            try:
                return sorted(os.listdir(self.path / prefix))
            except FileNotFoundError:
                self._existing()
                return []

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of all files below `prefix`."""
        with self._errors("list", prefix):
            for folder, folders, files in os.walk(self.path / prefix):
                folders.sort()
                for file in sorted(files):
                    yield (Path(folder) / file).relative_to(self.path).as_posix()

    def delete(self, key: str) -> None:
        """Remove one object; one that is gone is no error."""
        with self._errors("delete", key):
            target = self.path / key
            target.unlink(missing_ok=True)
            if target.parent.exists():
                fsync_directory(target.parent)

    def delete_folder(self, prefix: str) -> None:
        """Remove an object, or everything below `prefix` and the folder; an interrupted call can be repeated."""
        with self._errors("delete", prefix):
            target = self.path / prefix
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
            if target.parent.exists():
                fsync_directory(target.parent)

    def stage(self, prefix: str) -> Path:
        """A new folder in place; raises FileExistsError when it is taken."""
        target = self.path / prefix
        with self._errors("write", prefix):
            for folder in make_directories(target.parent, mode=_DIRECTORY_MODE):
                self._give(folder)
            target.mkdir(mode=0o700)
            self._give(target)
            fsync_directory(target.parent)
        return target

    def upload(self, prefix: str, directory: Path) -> None:
        """Flush every file and folder below the staged folder: it is in place already."""
        if directory != self.path / prefix:
            raise ValueError(f"{directory} was not staged for {prefix}")
        with self._errors("flush", prefix):
            for folder, _, files in os.walk(directory, topdown=False):
                for file in files:
                    fsync_file(Path(folder) / file)
                fsync_directory(Path(folder))

    def _existing(self) -> Path:
        self.require_mount()
        if not self.path.is_dir():
            raise DestinationUnavailable(
                f"destination {self._name}: the folder {self.path} is not there",
                hint="Mount it or create it; a destination that is away must not look like an empty one.",
            )
        return self.path

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            entry = pwd.getpwnam(self._owner)
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)

    def _explain_probe(self, error: commands.CommandFailed) -> DestinationDenied | DestinationFull:
        if "No space left" in error.stderr_tail:
            return DestinationFull(
                f"destination {self._name} ({self.path}) is full", hint="Free space or let retention expire backups."
            )
        who = self._owner or pwd.getpwuid(os.geteuid()).pw_name
        return DestinationDenied(
            f"destination {self._name}: the account {who} cannot write to {self.path}: {error.stderr_tail}",
            hint=f"Give {who} the right to write there and to pass through every folder above it.",
        )

    @contextmanager
    def _errors(self, verb: str, key: str = "") -> Iterator[None]:
        what = f"{self.path}/{key}" if key else str(self.path)
        try:
            yield
        except FileExistsError:
            raise
        except FileNotFoundError as error:
            self._existing()
            raise ObjectMissing(f"destination {self._name}: {what} is not there") from error
        except PermissionError as error:
            raise DestinationDenied(
                f"destination {self._name}: may not {verb} {what}: {error.strerror}",
                hint="Check the owner and the mode of the folder and of those above it.",
            ) from error
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DestinationFull(
                    f"destination {self._name}: no space left to {verb} {what}",
                    hint="Free space, let retention expire backups, or use another destination.",
                ) from error
            if error.errno == errno.EROFS:
                raise DestinationDenied(f"destination {self._name}: {what} is on a read-only filesystem") from error
            kind = DestinationUnavailable if error.errno in _GONE else DestinationDenied
            raise kind(f"destination {self._name}: cannot {verb} {what}: {error.strerror}") from error
