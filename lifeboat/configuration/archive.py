"""The archive as a file: a tar.gz that stock tar opens, and the same bytes for the same configuration."""

import gzip
import hashlib
import io
import os
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from lifeboat.configuration.content import AnyContent, Archive, RowsSection
from lifeboat.configuration.index import ARCHIVE_NAME, INDEX_NAME, RESTORE_SQL_NAME, ArchiveIndex
from lifeboat.configuration.restore_sql import restore_sql
from lifeboat.storage.durable import fsync_directory

SECTIONS, FILES = "sections", "files"
# 1980-01-01: tar warns of an implausibly old time stamp for 0.
_MODIFIED_AT = 315_532_800
_OWN_MODE = 0o600
_COMPRESSION_LEVEL = 9


@dataclass(frozen=True)
class WrittenArchive:
    """What was written: the index, and the file with its size in bytes and SHA-256."""

    index: ArchiveIndex
    path: Path
    size_bytes: int
    sha256: str


def encode_archive(archive: Archive) -> bytes:
    """The bytes of the archive file."""
    buffer = io.BytesIO()
    _write(archive, buffer)
    return buffer.getvalue()


def write_archive(archive: Archive, directory: Path) -> WrittenArchive:
    """Write `configuration.tar.gz` into a folder: whole, durable and mode 0600, or not at all. Raises OSError."""
    path = directory / ARCHIVE_NAME
    temporary = directory / f".{ARCHIVE_NAME}.{uuid.uuid4().hex}.tmp"
    try:
        with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWN_MODE), "w+b") as file:
            _write(archive, file)
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(directory)
    return WrittenArchive(archive.index, path, size_bytes, sha256)


def encode_index(index: ArchiveIndex) -> bytes:
    """The bytes of `index.json`: indented, readable with any pager."""
    return index.model_dump_json(indent=2).encode() + b"\n"


def member_name(section: str, path: str | None = None) -> str:
    """The name inside the tar of a section of rows, or of a file of a section."""
    return f"{SECTIONS}/{section}.json" if path is None else f"{FILES}/{section}/{path}"


def _write(archive: Archive, stream: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=_COMPRESSION_LEVEL, fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=cast(IO[bytes], packed), mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for member, data in _members(archive):
            tar.addfile(member, io.BytesIO(data))


def _members(archive: Archive) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    yield _file(INDEX_NAME, encode_index(archive.index), _OWN_MODE)
    yield _file(RESTORE_SQL_NAME, restore_sql(archive.index).encode(), _OWN_MODE)
    for name in sorted(archive.sections):
        content = archive.sections[name]
        if isinstance(content, RowsSection):
            yield _file(member_name(name), content.data, _OWN_MODE)
    for name in sorted(archive.sections):
        yield from _section_files(name, archive.sections[name])


def _section_files(name: str, content: AnyContent) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    if isinstance(content, RowsSection):
        return
    for item in content.files:
        member, data = _file(member_name(name, item.path), item.content, item.mode)
        if item.kind == "directory":
            member.type = tarfile.DIRTYPE
        elif item.kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, item.target or ""
        yield member, data


def _file(name: str, data: bytes, mode: int) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), mode, _MODIFIED_AT
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member, data
