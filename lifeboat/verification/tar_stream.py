"""The files in a tar archive, plain or gzip, read once from a stream with bounded memory."""

import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

BLOCK_BYTES = 1024 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"


class ArchiveDamaged(Exception):
    """The archive cannot be read to its end; says why."""


class Readable(Protocol):
    """A binary stream; it is read in blocks of 1 MiB and never sought."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end."""
        ...


@contextmanager
def opened(source: Path | Readable) -> Iterator[Readable]:
    """The stream itself, or the file opened for reading."""
    if isinstance(source, Path):
        with source.open("rb", buffering=0) as stream:
            yield stream
    else:
        yield source


def tar_files(stream: Readable) -> Iterator[tuple[str, int, Readable]]:
    """Name, size in bytes and content of each regular file; read a content before asking for the next.

    Whether the stream is compressed is seen from its first bytes. Raises ArchiveDamaged.
    """
    head = stream.read(len(_GZIP_MAGIC))
    plain: Readable = _Prefixed(head, stream)
    if head == _GZIP_MAGIC:
        plain = _Inflated(plain)
    try:
        # Mode "r|" only reads.
        with tarfile.open(fileobj=cast("IO[bytes]", plain), mode="r|", bufsize=BLOCK_BYTES) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isreg() else None
                if content is not None:
                    yield member.name.removeprefix("./"), member.size, _Content(content)
        # What follows the end of the archive still belongs to the gzip stream, and to its checksum.
        while plain.read(BLOCK_BYTES):
            pass
    except tarfile.TarError as error:
        raise ArchiveDamaged(str(error)) from error


class _Content:
    """One file in the archive; the archive's damage shows while it is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes. Raises ArchiveDamaged."""
        try:
            return self._stream.read(size)
        except tarfile.TarError as error:
            raise ArchiveDamaged(str(error)) from error


class _Prefixed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: Readable) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; less only at the end."""
        parts = [self._head[:size]]
        self._head = self._head[size:]
        size -= len(parts[0])
        while size > 0 and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


class _Inflated:
    """The uncompressed bytes of a gzip stream, in larger blocks than gzip.GzipFile's."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._inflater = zlib.decompressobj(_GZIP)
        self._pending = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; less only at the end. Raises ArchiveDamaged."""
        parts: list[bytes] = []
        while size > 0 and (part := self._inflate(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _inflate(self, size: int) -> bytes:
        while True:
            if self._inflater.eof:
                # gzip allows another member to follow.
                self._pending = self._inflater.unused_data or self._stream.read(BLOCK_BYTES)
                if not self._pending:
                    return b""
                self._inflater = zlib.decompressobj(_GZIP)
            elif not self._pending:
                self._pending = self._stream.read(BLOCK_BYTES)
                if not self._pending:
                    raise ArchiveDamaged("the compressed stream ends too early")
            try:
                part = self._inflater.decompress(self._pending, size)
            except zlib.error as error:
                raise ArchiveDamaged(str(error)) from error
            self._pending = self._inflater.unconsumed_tail
            if part:
                return part
