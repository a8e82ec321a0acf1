"""Reads an archive that may come from anywhere: everything in it must be announced, small enough, and stay inside."""

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

from pydantic import ValidationError

from lifeboat.configuration.archive import FILES, member_name
from lifeboat.configuration.content import (
    AnyContent,
    Archive,
    FileItem,
    FilesSection,
    RowsSection,
    decode_rows,
    in_key_order,
)
from lifeboat.configuration.folders import link_leaves
from lifeboat.configuration.index import (
    FORMAT_VERSION,
    INDEX_NAME,
    RESTORE_SQL_NAME,
    ArchiveIndex,
    ConfigurationError,
    FileKind,
    SectionIndex,
)
from lifeboat.configuration.jsontext import JsonInvalid, Number, parse
from lifeboat.errors import PermanentError
from lifeboat.settings.configuration import ConfigurationSettings

_DEFAULTS = ConfigurationSettings()
_INDEX_MAX_BYTES = 64 * 1024**2
_COMPRESSED_SLACK_BYTES = 1024**2
_CHUNK_BYTES = 64 * 1024


class ArchiveInvalid(PermanentError):
    """A configuration archive is damaged, of a newer format, or holds what it must not."""

    def __init__(self, problem: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"cannot read the configuration archive: {problem}",
            hint=hint
            or "Do not unpack it as root; take another copy of it, and check the signature of its backup's manifest.",
        )


def read_archive(path: Path, *, max_total_bytes: int = _DEFAULTS.max_total_bytes) -> Archive:
    """Read and check an archive file. Raises ArchiveInvalid, or OSError when the file cannot be opened."""
    with path.open("rb") as file:
        return decode_archive(file, max_total_bytes=max_total_bytes)


def decode_archive(stream: IO[bytes], *, max_total_bytes: int = _DEFAULTS.max_total_bytes) -> Archive:
    """Read and check an archive from a stream; nothing is written to disk. Raises ArchiveInvalid."""
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as packed:
            bounded = _Bounded(packed, max_total_bytes)
            with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|") as tar:
                archive = _Reader(tar).read()
            # The checksum of the whole, the index included, stands at the very end.
            while bounded.read(_CHUNK_BYTES):
                pass
            return archive
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError, OverflowError) as error:
        raise ArchiveInvalid(f"it is not a whole .tar.gz ({error})") from error
    except (ConfigurationError, JsonInvalid) as error:
        raise ArchiveInvalid(error.message) from error


class _Bounded:
    """Stops a small file that unpacks to an absurd size."""

    def __init__(self, stream: gzip.GzipFile, limit_bytes: int) -> None:
        # Headers and padding come on top of the contents.
        self._stream, self._left, self._limit = stream, limit_bytes * 2 + _COMPRESSED_SLACK_BYTES, limit_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveInvalid(f"it unpacks to more than {self._limit} bytes")
        return data


class _Reader:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._data: dict[str, bytes] = {}
        self._seen: dict[str, tarfile.TarInfo] = {}

    def read(self) -> Archive:
        index = self._index()
        announced = _announced(index)
        while (member := self._tar.next()) is not None:
            name = member.name
            if name in self._seen:
                raise ArchiveInvalid(f"{name!r} is in it twice")
            self._seen[name] = member
            if name not in announced:
                raise ArchiveInvalid(f"it holds {name!r}, which its index does not announce")
            if (
                member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE}
                or member.issparse()
            ):
                raise ArchiveInvalid(f"{name!r} is not a file, a link or a directory")
            self._data[name] = self._content(member, announced[name]) if member.isreg() else b""
        missing = sorted(set(announced) - set(self._seen))
        if missing:
            raise ArchiveInvalid(f"{missing[0]} is announced in the index and missing")
        if hashlib.sha256(self._data[RESTORE_SQL_NAME]).hexdigest() != index.restore_sql_sha256:
            raise ArchiveInvalid(f"{RESTORE_SQL_NAME} differs from its checksum")
        return Archive(index, {name: self._section(name, each) for name, each in index.sections.items()})

    def _index(self) -> ArchiveIndex:
        first = self._tar.next()
        if first is None or first.name != INDEX_NAME or not first.isreg() or first.size > _INDEX_MAX_BYTES:
            raise ArchiveInvalid(f"it does not start with {INDEX_NAME}")
        data = self._content(first, None)
        version = parse(data.decode())
        found = version.get("format_version") if isinstance(version, dict) else None
        if isinstance(found, Number) and found != str(FORMAT_VERSION):
            hint = "Read it with the Lifeboat version that wrote it, or a later one."
            raise ArchiveInvalid(f"it has format {found}, this Lifeboat reads {FORMAT_VERSION}", hint=hint)
        try:
            index = ArchiveIndex.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in fault["loc"])
            raise ArchiveInvalid(f"its index is wrong at {where}: {fault['msg']}") from None
        return index

    def _content(self, member: tarfile.TarInfo, size_bytes: int | None) -> bytes:
        if size_bytes is not None and member.size != size_bytes:
            raise ArchiveInvalid(f"{member.name!r} has {member.size} bytes, its index says {size_bytes}")
        file = self._tar.extractfile(member)
        data = file.read() if file is not None else b""
        if len(data) != member.size:
            raise ArchiveInvalid(f"{member.name!r} is cut short")
        return data

    def _section(self, name: str, section: SectionIndex) -> AnyContent:
        if section.has_files:
            return self._files(name, section)
        data = self._data[member_name(name)]
        if hashlib.sha256(data).hexdigest() != section.sha256:
            raise ArchiveInvalid(f"the section {name} differs from its checksum")
        rows = decode_rows(data)
        strange = sorted({column for row in rows for column in row} - set(section.columns))
        if len(rows) != section.item_count or strange:
            raise ArchiveInvalid(f"the section {name} does not hold what its index says")
        if rows and rows != in_key_order(name, rows, section.key_columns):
            raise ArchiveInvalid(f"the section {name} is not in the order of its keys")
        return RowsSection(
            section.source, section.kind, section.columns, tuple(section.key_columns), rows, section.target
        )

    def _files(self, name: str, section: SectionIndex) -> FilesSection:
        kinds = {record.path: record.kind for record in section.files}
        files = []
        for record in section.files:
            member = self._seen[member_name(name, record.path)]
            item = FileItem(
                record.path,
                record.kind,
                member.mode,
                self._data.get(member.name, b""),
                member.linkname if member.issym() else None,
            )
            if _kind(member) != record.kind or item.record != record:
                raise ArchiveInvalid(f"the file {name}/{record.path} differs from what its index says")
            if record.kind == "link" and link_leaves(record.path, record.target or ""):
                raise ArchiveInvalid(f"the link {name}/{record.path} leaves its folder")
            _check_above(name, record.path, kinds)
            files.append(item)
        return FilesSection(section.source, section.kind, section.path or "/", tuple(files))


def _announced(index: ArchiveIndex) -> dict[str, int | None]:
    """Every member and its size in bytes, None where the checksum alone decides."""
    names: dict[str, int | None] = {RESTORE_SQL_NAME: None}
    for name, section in index.sections.items():
        if not section.has_files:
            names[member_name(name)] = None
            continue
        for record in section.files:
            if member_name(name, record.path) in names:
                raise ArchiveInvalid(f"the index names {FILES}/{name}/{record.path} twice")
            names[member_name(name, record.path)] = record.size_bytes
    return names


def _kind(member: tarfile.TarInfo) -> str:
    return "directory" if member.isdir() else "link" if member.issym() else "file"


def _check_above(name: str, path: str, kinds: Mapping[str, FileKind]) -> None:
    """Nothing may lie below a file or a link: unpacking would follow it."""
    above = path.rpartition("/")[0]
    while above:
        if kinds.get(above, "directory") != "directory":
            raise ArchiveInvalid(f"the file {name}/{path} lies below {above}, which is no directory")
        above = above.rpartition("/")[0]
