"""Store one WAL file so that success means durable."""

from __future__ import annotations  # Python 3.9 cannot evaluate `X | None`

import hashlib
import os
import stat
import struct
import zlib
from contextlib import suppress
from io import BufferedWriter

from lifeboat.wal.archive_program import durable, layout
from lifeboat.wal.archive_program.layout import ArchiveError, Config

_LONG_HEADER = struct.Struct("=HHIQI4xQI")  # XLogLongPageHeaderData of PostgreSQL's access/xlog_internal.h
_LONG_HEADER_FLAG = 0x0002  # XLP_LONG_HEADER


def push(config: Config, source: str, name: str) -> str | None:
    """Archive the file `source` as `name`, durably; returns a remark for the log, if any.

    An identical file is accepted again, a different one refused. Raises ArchiveError and OSError.
    """
    kind = layout.require_kind(config, name)
    layout.require_owner(config.archive, config.system_identifier, config.segment_size_bytes)
    folder = _make_folder(config.archive, layout.folder_name(name))
    _require_space(folder, config.minimum_free_bytes)
    durable.remove_leftovers(folder)
    with durable.temporary_file(folder, name, layout.FILE_MODE) as (temporary, stream):
        sha256 = _compress(config, source, name, kind, stream)
        durable.finish(stream)
        return _publish(folder, name, sha256, temporary, config.segment_size_bytes)


def try_to_write(config: Config) -> None:
    """Do all that a push does but the segment; raises ArchiveError and OSError."""
    folder = _make_folder(config.archive, layout.HISTORY_FOLDER)
    _require_space(folder, config.minimum_free_bytes)
    with durable.locked(folder), durable.temporary_file(folder, "probe", layout.FILE_MODE) as (_, stream):
        stream.write(b"probe")
        durable.finish(stream)
    # Segments go into folders that are made when they are needed.
    probe = os.path.join(config.archive, f".probe-{os.getpid()}")
    os.mkdir(probe, layout.FOLDER_MODE)
    os.rmdir(probe)


def _make_folder(archive: str, leaf: str) -> str:
    folder = os.path.join(archive, leaf)
    with suppress(FileExistsError):
        os.mkdir(folder, layout.FOLDER_MODE)
        with durable.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as handle:
            durable.settle(handle, layout.FOLDER_MODE, archive)
        for other in os.listdir(archive):
            durable.remove_leftovers(os.path.join(archive, other))
    # Whoever made it may have been killed before this: a file is only as durable as its folder.
    durable.sync_path(archive)
    return folder


def _require_space(folder: str, minimum_free_bytes: int) -> None:
    space = os.statvfs(folder)
    free_bytes = space.f_bavail * space.f_frsize
    if free_bytes < minimum_free_bytes:
        raise ArchiveError(
            f"{folder} has {free_bytes} bytes free, below the minimum of {minimum_free_bytes}",
            "Free or add space there: until then the server keeps its WAL and its own disk fills up.",
        )


def _compress(config: Config, source: str, name: str, kind: str, packed: BufferedWriter) -> str:
    digest, read_bytes = hashlib.sha256(), 0
    packer = zlib.compressobj(config.compression_level, zlib.DEFLATED, layout.GZIP_WINDOW_BITS)
    with open(source, "rb") as plain:
        before = os.fstat(plain.fileno())
        chunk = plain.read(layout.CHUNK_BYTES)
        _check_source(config, name, kind, before, chunk)
        while chunk:
            read_bytes += len(chunk)
            digest.update(chunk)
            packed.write(packer.compress(chunk))
            chunk = plain.read(layout.CHUNK_BYTES)
    packed.write(packer.flush())
    after = os.stat(source)
    was = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns)
    if was != (after.st_dev, after.st_ino, after.st_size, after.st_mtime_ns) or read_bytes != before.st_size:
        hint = "Only the server may write there; it will try again."
        raise ArchiveError(f"{source} changed while it was read", hint)
    return digest.hexdigest()


def _check_source(config: Config, name: str, kind: str, status: os.stat_result, head: bytes) -> None:
    def refuse(what: str) -> ArchiveError:
        return ArchiveError(f"the source {what}", "Nothing was archived: compare it with the server's file.")

    if not stat.S_ISREG(status.st_mode):
        raise refuse("is not a regular file")
    if kind in {"history", "backup"}:
        if not head.strip() or b"\0" in head or status.st_size > layout.SMALL_FILE_LIMIT_BYTES:
            raise refuse(f"is empty or not text ({status.st_size} bytes)")
        return
    if status.st_size != config.segment_size_bytes:
        raise refuse(f"has {status.st_size} bytes, a segment has {config.segment_size_bytes}")
    _, flags, timeline, address, _, system, segment_size = _LONG_HEADER.unpack_from(head)
    if not flags & _LONG_HEADER_FLAG:
        raise refuse("does not start with the header of a WAL segment")
    if system != int(config.system_identifier) or segment_size != config.segment_size_bytes:
        raise refuse(
            f"is of system {system} with segments of {segment_size} bytes, "
            f"this archive of system {config.system_identifier} with segments of {config.segment_size_bytes}"
        )
    said_timeline, log, number = (int(name[i : i + 8], 16) for i in (0, 8, 16))
    start = (log << 32) + number * segment_size
    # After a switch the first page is a copy of the old timeline's: the header may be lower, never higher.
    if address != start or not 0 < timeline <= said_timeline:
        raise refuse(f"starts at {address:X} on timeline {timeline}, not at {start:X} on {said_timeline} as named")


def _publish(folder: str, name: str, sha256: str, temporary: str, segment_size_bytes: int) -> str | None:
    entry = f"{name}-{sha256}.gz"
    final = os.path.join(folder, entry)
    remark = None
    with durable.locked(folder):
        entries = layout.find_entries(folder, name)
        if others := [other for other in entries if other != entry]:
            raise ArchiveError(
                f"a different file of this name is archived: {others[0]}; this one has sha256 {sha256}",
                "Two servers share this archive, or one went back in time: give each a cluster name.",
            )
        if entries and _is_intact(final, segment_size_bytes):
            durable.sync_path(final)  # who wrote it may have been killed before it was on disk
        else:
            remark = "the archived copy was damaged and has been replaced" if entries else None
            os.rename(temporary, final)
        durable.sync_path(folder)
    return remark


def _is_intact(path: str, segment_size_bytes: int) -> bool:
    try:
        for _ in layout.read_entry(path, segment_size_bytes):
            pass
    except ArchiveError:
        return False
    return True
