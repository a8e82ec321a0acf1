"""Where backups go: the protocol that a filesystem, a network mount and an S3 store share."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from lifeboat.errors import PermanentError, TransientError


class DestinationUnavailable(TransientError):
    """The destination does not answer or its mount is not there."""


class DestinationDenied(PermanentError):
    """The destination refuses us: rights or credentials."""


class DestinationFull(PermanentError):
    """The destination has no room, or less than its settings want to keep free."""


class ObjectMissing(PermanentError):
    """An object that should be there is not."""


class Destination(Protocol):
    """A store of objects named by `/`-separated keys.

    Every write is durable when the call returns. Errors are DestinationUnavailable, DestinationDenied,
    DestinationFull and ObjectMissing.
    """

    @property
    def name(self) -> str:
        """The name that settings and the catalog give it."""
        ...

    def describe(self) -> str:
        """Where it is, for people; without secrets."""
        ...

    def check(self) -> None:
        """Prove that we can write, read and remove an object."""
        ...

    def free_bytes(self) -> int | None:
        """Bytes that may still be used, or None where the store has no limit."""
        ...

    def read(self, key: str) -> bytes:
        """The whole of a small object."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A stream over a large object."""
        ...

    def put(self, key: str, data: bytes, *, mode: int = 0o640, exclusive: bool = False) -> None:
        """Store a small object at once; with `exclusive` raises FileExistsError instead of replacing."""
        ...

    def rename(self, key: str, new_key: str) -> None:
        """Give an object another key, atomically."""
        ...

    def exists(self, key: str) -> bool:
        """Whether the object is there."""
        ...

    def names(self, prefix: str) -> list[str]:
        """The names of objects and folders directly below `prefix`, sorted; empty when there is none."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of all objects below `prefix`."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; one that is gone is no error."""
        ...

    def delete_folder(self, prefix: str) -> None:
        """Remove the object `prefix`, or everything below it and the folder; nothing there is no error."""
        ...

    def stage(self, prefix: str) -> Path:
        """A new local folder, writable by the tools' account, whose files `upload` makes objects below `prefix`.

        Raises FileExistsError when `prefix` is taken.
        """
        ...

    def upload(self, prefix: str, directory: Path) -> None:
        """Make every file of a staged folder a durable object."""
        ...
