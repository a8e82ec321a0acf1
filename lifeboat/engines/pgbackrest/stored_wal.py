"""One stored WAL segment of a repository: what its ends tell of it, and its plain text."""

import bz2
import gzip
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, BinaryIO

from lifeboat import commands
from lifeboat.engines.pgbackrest.frames import is_whole
from lifeboat.wal.archive import WalDamaged
from lifeboat.wal.coverage import ArchivedFile
from lifeboat.wal.names import ArchiveNameKind

_BLOCK_BYTES = 1024 * 1024
_UNPACK_SECONDS = 600
# OpenSSL's format, which pgBackRest writes: this word, a salt of 8 bytes, blocks of 16.
_ENCRYPTED = b"Salted__"
_CIPHER_BLOCK_BYTES = 16
_MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "lz4": b"\x04\x22\x4d\x18", "zst": b"\x28\xb5\x2f\xfd"}
_WHOLE = (ArchiveNameKind.SEGMENT, ArchiveNameKind.PARTIAL)
_TOOLS = {"lz4": "lz4", "zst": "zstd"}


def fault_of(item: ArchivedFile, *, thorough: bool = False) -> str | None:
    """What the size and the ends of a stored file say against it; None where they say nothing.

    A cut is seen in every compression (in all of lz4 if `thorough`, otherwise in nearly all), and mostly in encrypted
    files; what keeps its length takes reading it.
    """
    if item.stored_bytes == 0:
        return "empty"
    if item.parsed.kind not in _WHOLE or item.parsed.segment is None:
        return None
    try:
        with item.path.open("rb", buffering=0) as stream:
            return _fault(stream, item, item.parsed.segment.size_bytes, thorough=thorough)
    except OSError:
        # The account that runs pgBackRest may read what ours may not.
        return None


def _fault(stream: BinaryIO, item: ArchivedFile, size_bytes: int, *, thorough: bool) -> str | None:
    suffix, stored_bytes = _suffix(item.path.name), item.stored_bytes
    head = stream.read(len(_ENCRYPTED))
    if head == _ENCRYPTED:
        return "cut short" if stored_bytes % _CIPHER_BLOCK_BYTES else None
    if suffix not in _MAGIC:
        return "cut short, or not a whole segment" if stored_bytes != size_bytes else None
    if not head.startswith(_MAGIC[suffix]):
        return f"not a {suffix} file ({stored_bytes} bytes)"
    if not is_whole(stream.fileno(), suffix, stored_bytes, size_bytes, thorough=thorough):
        return "cut short, or not a whole segment"
    return None


def unpack(stored: Path, plain: Path, name: str) -> None:
    """Decompress a stored file as the suffix of `name` says; raises WalDamaged, ToolMissing."""
    suffix = _suffix(name)
    try:
        if suffix in _TOOLS:
            with stored.open("rb") as stream:
                words = [_TOOLS[suffix], "-d", "-c"]
                commands.run(words, timeout_seconds=_UNPACK_SECONDS, stdin=stream, stdout_path=plain)
            return
        openers: dict[str, Callable[[Path], Any]] = {"gz": gzip.open, "bz2": bz2.open}
        with openers.get(suffix, _open_plain)(stored) as opened, plain.open("wb") as out:
            shutil.copyfileobj(opened, out, _BLOCK_BYTES)
    except (OSError, EOFError, zlib.error, commands.CommandFailed) as error:
        raise WalDamaged(f"{name} cannot be decompressed: {error}") from error


def _suffix(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2]


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")
