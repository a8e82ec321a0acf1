"""What lies where in an archive, and the settings that lead there.

`<path>/<cluster>/wal/<first 16 digits>/<segment>-<sha256 of the plain text>.gz`; `.history` and `.backup`
files are in `wal/history/`, and a marker, `wal/archive.json`, says whose archive it is.
"""

from __future__ import annotations  # Python 3.9 cannot evaluate `X | None`

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator

FORMAT_VERSION = 1
MARKER_NAME = "archive.json"
HISTORY_FOLDER = "history"
FILE_MODE = 0o640
FOLDER_MODE = 0o750
SMALL_FILE_LIMIT_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18
GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
_NAME = re.compile(
    r"(?P<timeline>[0-9A-F]{8})(?:(?P<history>\.history)"
    r"|(?P<log>[0-9A-F]{8})(?P<segment>[0-9A-F]{8})(?:\.(?P<offset>[0-9A-F]{8})\.backup|(?P<partial>\.partial))?)"
)
_ENTRY = re.compile(r"(?P<name>[0-9A-Za-z.]+)-(?P<sha256>[0-9a-f]{64})\.gz")


class ArchiveError(Exception):
    """The file was not archived or not delivered; the hint says what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Config:
    """The values of wal.json, whose sense `install.py` checks; other keys or types raise ValueError here."""

    format: int
    path: str
    cluster: str
    system_identifier: str
    segment_size_bytes: int
    compression_level: int
    retries: int
    retry_delay_seconds: float
    minimum_free_bytes: int

    def __init__(self, values: object) -> None:
        kinds = type(self).__annotations__
        if not isinstance(values, dict) or values.keys() != kinds.keys():
            raise ValueError(f"it must have exactly the keys {', '.join(kinds)}")
        for key, kind in kinds.items():
            if type(values[key]).__name__ != kind:
                raise ValueError(f"{key} must be of type {kind}")
            setattr(self, key, values[key])
        if self.format != FORMAT_VERSION:
            raise ValueError(f"format {self.format} is not {FORMAT_VERSION}")
        self.archive = archive_folder(self.path, self.cluster)


def archive_folder(path: str, cluster: str) -> str:
    """The folder of a cluster's WAL archive at the destination `path`."""
    return os.path.join(path, cluster, "wal")


def load_config(path: str) -> Config:
    """Read wal.json; raises ArchiveError that names the first fault."""
    try:
        with open(path, encoding="utf-8") as stream:
            return Config(json.load(stream))
    except (OSError, ValueError) as error:
        raise ArchiveError(f"cannot use {path}: {error}", "Install the archive program again.") from error


def name_kind(name: str, segment_size_bytes: int) -> str | None:
    """`segment`, `partial`, `backup` or `history`; None for what no server of this segment size archives."""
    match = _NAME.fullmatch(name)
    if match is None or int(match["timeline"], 16) == 0:
        return None
    if match["history"]:
        return "history"
    if int(match["segment"], 16) >= (1 << 32) // segment_size_bytes:
        return None
    if match["offset"]:
        return "backup" if int(match["offset"], 16) < segment_size_bytes else None
    return "partial" if match["partial"] else "segment"


def require_kind(config: Config, name: str) -> str:
    """The kind of the archive file `name`; raises ArchiveError for a name that is none."""
    kind = name_kind(name, config.segment_size_bytes)
    if kind is None:
        raise ArchiveError(
            f"{name!r} is not the name of a WAL file with segments of {config.segment_size_bytes} bytes",
            "The last two arguments are %p and %f, in this order; a new segment size needs a new archive.",
        )
    return kind


def folder_name(name: str) -> str:
    """The folder below `wal/` that holds the archive file `name`: its first 16 digits, or `history`."""
    return HISTORY_FOLDER if name.endswith((".history", ".backup")) else name[:16]


def split_entry(entry: str) -> tuple[str, str] | None:
    """The archive file's name and its plain text's SHA-256 from a stored file's name; None for others."""
    match = _ENTRY.fullmatch(entry)
    return (match["name"], match["sha256"]) if match and _NAME.fullmatch(match["name"]) else None


def find_entries(folder: str, name: str) -> list[str]:
    """The stored files of `folder` that hold the archive file `name`; more than one is a conflict."""
    return sorted(e for e in os.listdir(folder) if e.startswith(name + "-") and split_entry(e) is not None)


def read_marker(archive: str) -> tuple[str, int]:
    """System identifier and segment size in bytes of an archive; raises ArchiveError and OSError.

    The marker also tells an archive from an empty mount point, where every file would look absent.
    """
    path = os.path.join(archive, MARKER_NAME)
    try:
        with open(path, encoding="utf-8") as stream:
            marker = json.load(stream)
        return str(marker["system_identifier"]), int(marker["segment_size_bytes"])
    except FileNotFoundError as error:
        hint = "Is the destination mounted? Installing the archive program prepares a new archive."
        raise ArchiveError(f"there is no WAL archive: {path} is missing", hint) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "Install the archive program again."
        raise ArchiveError(f"cannot understand {path}: {error}", hint) from error


def require_owner(archive: str, system_identifier: str, segment_size_bytes: int) -> None:
    """Refuse an archive of another system (ArchiveError)."""
    system, size_bytes = read_marker(archive)
    if (system, size_bytes) != (system_identifier, segment_size_bytes):
        raise ArchiveError(
            f"the archive {archive} belongs to system {system} with segments of {size_bytes} bytes, "
            f"not to system {system_identifier} with segments of {segment_size_bytes}",
            "Give each server its own cluster name; after initdb or pg_upgrade choose a new one.",
        )


def read_entry(path: str, segment_size_bytes: int) -> Iterator[bytes]:
    """The plain text of a stored file, in bounded pieces.

    Raises ArchiveError, at the end at the latest, unless it is one whole gzip file of the size and SHA-256.
    """

    def damaged(what: str) -> ArchiveError:
        hint = "Take this file from another copy of the archive, or take a new full backup."
        return ArchiveError(f"{path} {what}", hint)

    name, expected = split_entry(os.path.basename(path)) or ("", "")
    is_small = folder_name(name) == HISTORY_FOLDER
    limit_bytes = SMALL_FILE_LIMIT_BYTES if is_small else segment_size_bytes
    inflater, digest, size_bytes = zlib.decompressobj(GZIP_WINDOW_BITS), hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while not inflater.eof and size_bytes <= limit_bytes:
            packed = inflater.unconsumed_tail or stream.read(CHUNK_BYTES)
            if not packed:
                raise damaged("ends too early")
            try:
                plain = inflater.decompress(packed, CHUNK_BYTES)
            except zlib.error as error:
                raise damaged(f"is damaged: {error}") from error
            size_bytes += len(plain)
            digest.update(plain)
            yield plain
        if inflater.eof and (inflater.unused_data or stream.read(1)):
            raise damaged("has bytes after its end")
    if size_bytes > limit_bytes or not (is_small or size_bytes == segment_size_bytes):
        raise damaged(f"does not hold {segment_size_bytes} bytes")
    if digest.hexdigest() != expected:
        raise damaged(f"does not have the SHA-256 of its name but {digest.hexdigest()}")
