"""Reading an object and comparing it with its manifest in the same pass."""

import hashlib
from typing import BinaryIO

from lifeboat.errors import PermanentError
from lifeboat.storage.manifest import BackupObject

_BLOCK_BYTES = 1024 * 1024


class BackupDamaged(PermanentError):
    """Objects of a backup are missing or differ from its manifest."""


class CheckedReader:
    """A stream over an object that is hashed as it is read; `finish` compares it with the manifest."""

    def __init__(self, stream: BinaryIO, item: BackupObject, where: str) -> None:
        self._stream, self._item, self._where = stream, item, where
        self._digest, self._size = hashlib.sha256(), 0

    @property
    def size_bytes(self) -> int:
        """How much was read so far."""
        return self._size

    def read(self, size: int = -1) -> bytes:
        """Read and hash the next bytes."""
        block = self._stream.read(size)
        self._digest.update(block)
        self._size += len(block)
        return block

    def finish(self) -> None:
        """Read what is left and raise BackupDamaged unless size and SHA-256 are the manifest's."""
        while self.read(_BLOCK_BYTES):
            pass
        if (self._size, self._digest.hexdigest()) != (self._item.size_bytes, self._item.sha256):
            raise BackupDamaged(
                f"{self._where} is not what was backed up: {self._size:,} bytes, the manifest says "
                f"{self._item.size_bytes:,}, and the SHA-256 differs",
                hint="Restore from another backup or another copy, and see whether the storage has other damage.",
            )
