"""What an archive holds: contiguous ranges per timeline, gaps, damaged files; and the wait for a segment."""

import os
import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import psycopg

from lifeboat.errors import TransientError
from lifeboat.wal.archive_program import durable, layout
from lifeboat.wal.names import (
    ArchiveName,
    ArchiveNameKind,
    Segment,
    parse_archive_name,
    parse_lsn,
    segment_before,
)

_GZIP_MAGIC = b"\x1f\x8b\x08"
_SMALLEST_GZIP_BYTES = 20
SCRUB_NAME = "scrub.json"  # beside the marker: what `wal verify` found (lifeboat.wal.scrub_record)
_OURS = frozenset({layout.MARKER_NAME, durable.LOCK_NAME, SCRUB_NAME})


class ArchiveUnreadable(TransientError):
    """The archive cannot be listed, so nothing can be said about what it holds."""


class WalNotArchived(TransientError):
    """A WAL file that is needed did not reach the archive in time."""


@dataclass(frozen=True)
class ArchivedFile:
    """One stored file; `stored_bytes` is its compressed size, `sha256` that of the plain text by its name."""

    parsed: ArchiveName
    path: Path
    stored_bytes: int
    sha256: str


@dataclass(frozen=True)
class DamagedFile:
    """A stored file that cannot be what its name says; a fetch of it fails."""

    name: str
    path: Path
    reason: str


@dataclass(frozen=True)
class SegmentRange:
    """Consecutive segments of one timeline, first and last included."""

    first: Segment
    last: Segment

    @property
    def timeline(self) -> int:
        """The timeline of every segment in the range."""
        return self.first.timeline

    @property
    def count(self) -> int:
        """How many segments it spans."""
        return self.last.number - self.first.number + 1

    def contains(self, segment: Segment) -> bool:
        """Whether a segment lies in the range."""
        return self.first <= segment <= self.last


@dataclass(frozen=True)
class ArchiveListing:
    """What a scan found. Only sound, unambiguous segments count for `ranges`; `gaps` lie between them."""

    archive: Path
    system_identifier: str
    segment_size_bytes: int
    files: tuple[ArchivedFile, ...]
    ranges: tuple[SegmentRange, ...]
    gaps: tuple[SegmentRange, ...]
    damaged: tuple[DamagedFile, ...]
    unfinished: tuple[Path, ...]
    unknown: tuple[Path, ...]

    @property
    def timelines(self) -> tuple[int, ...]:
        """Timelines that have segments, in order."""
        return tuple(sorted({item.timeline for item in self.ranges}))

    @property
    def history_timelines(self) -> tuple[int, ...]:
        """Timelines whose history file is there, in order."""
        return tuple(f.parsed.timeline for f in self.files if f.parsed.kind is ArchiveNameKind.HISTORY)

    @property
    def stored_bytes(self) -> int:
        """The compressed size of all sound files."""
        return sum(item.stored_bytes for item in self.files)

    def covers(self, first: Segment, last: Segment) -> bool:
        """Whether every segment from `first` to `last`, of one timeline, is there."""
        return any(item.contains(first) and item.contains(last) for item in self.ranges)


def scan_archive(root: Path, cluster: str) -> ArchiveListing:
    """List the WAL archive of `cluster` at the destination `root`; raises ArchiveUnreadable.

    Cheap: each file's first and last bytes show empty and cut ones; whole contents are for `wal verify`.
    """
    archive = Path(layout.archive_folder(str(root), cluster))
    try:
        system_identifier, size_bytes = layout.read_marker(str(archive))
        found = list(_stored_files(archive, size_bytes))
        files, damaged = _sort_out([item for item in found if isinstance(item, ArchivedFile)])
        # What vanished meanwhile has expired, unless the archive went away as a whole.
        layout.read_marker(str(archive))
    except (OSError, layout.ArchiveError) as error:
        raise _unreadable(archive, error) from error
    segments = [f.parsed.segment for f in files if f.parsed.kind is ArchiveNameKind.SEGMENT and f.parsed.segment]
    ranges = contiguous_ranges(segments)
    others = [item for item in found if isinstance(item, Path)]
    return ArchiveListing(
        archive=archive,
        system_identifier=system_identifier,
        segment_size_bytes=size_bytes,
        files=tuple(files),
        ranges=ranges,
        gaps=gaps_between(ranges),
        damaged=tuple(damaged),
        unfinished=tuple(path for path in others if durable.is_temporary(path.name)),
        unknown=tuple(path for path in others if not durable.is_temporary(path.name)),
    )


def contiguous_ranges(segments: Iterable[Segment]) -> tuple[SegmentRange, ...]:
    """The longest runs of consecutive segments, by timeline and position."""
    in_order = sorted(set(segments))
    runs = groupby(enumerate(in_order), key=lambda item: (item[1].timeline, item[1].number - item[0]))
    members = ([segment for _, segment in run] for _, run in runs)
    return tuple(SegmentRange(run[0], run[-1]) for run in members)


def gaps_between(ranges: Iterable[SegmentRange]) -> tuple[SegmentRange, ...]:
    """What is missing between ranges of the same timeline."""
    return tuple(
        SegmentRange(older.last.following(), newer.first.following(-1))
        for older, newer in pairwise(sorted(ranges, key=lambda item: item.first))
        if older.timeline == newer.timeline
    )


def has_segment(root: Path, cluster: str, name: str) -> bool:
    """Whether the archive holds one sound file `name`; raises ArchiveUnreadable and InvalidWalName."""
    size_bytes = _segment_size(root, cluster)
    return _find(root, cluster, parse_archive_name(name, size_bytes)) is not None


def wait_for_segment(  # noqa: PLR0913 - where, which, how long
    root: Path,
    cluster: str,
    *,
    timeline: int,
    lsn: str,
    timeout_seconds: float,
    connection: psycopg.Connection[Any] | None = None,
    poll_seconds: float = 0.2,
) -> Segment:
    """Wait until the archive holds, durably, the last segment that a backup with the stop LSN `lsn` needs.

    Raises WalNotArchived after `timeout_seconds`, ArchiveUnreadable and InvalidLsn. With a connection to the
    server the hint quotes pg_stat_archiver.
    """
    size_bytes = _segment_size(root, cluster)
    segment = segment_before(parse_lsn(lsn), timeline, size_bytes)
    parsed = parse_archive_name(segment.name, size_bytes)
    deadline = time.monotonic() + timeout_seconds
    while (path := _find(root, cluster, parsed)) is None:
        remaining_seconds = deadline - time.monotonic()
        if remaining_seconds <= 0:
            raise WalNotArchived(
                f"{segment.name} did not reach the archive of {cluster} within {timeout_seconds:g} s",
                hint=_archiver_hint(connection),
            )
        time.sleep(min(poll_seconds, remaining_seconds))
    # A renamed file is seen before it is on disk: nothing may be built on it earlier.
    durable.sync_path(str(path))
    durable.sync_path(str(path.parent))
    return segment


def _segment_size(root: Path, cluster: str) -> int:
    archive = Path(layout.archive_folder(str(root), cluster))
    try:
        return layout.read_marker(str(archive))[1]
    except (OSError, layout.ArchiveError) as error:
        raise _unreadable(archive, error) from error


def _find(root: Path, cluster: str, parsed: ArchiveName) -> Path | None:
    archive = Path(layout.archive_folder(str(root), cluster))
    leaf = layout.folder_name(parsed.name)
    try:
        entries = layout.find_entries(str(archive / leaf), parsed.name) if leaf in os.listdir(archive) else []
    except OSError as error:
        raise _unreadable(archive, error) from error
    path = archive / leaf / entries[0] if len(entries) == 1 else None
    with suppress(FileNotFoundError):
        return path if path is not None and _fault(path, parsed) is None else None
    return None


def _unreadable(archive: Path, error: OSError | layout.ArchiveError) -> ArchiveUnreadable:
    hint = error.hint if isinstance(error, layout.ArchiveError) else None
    return ArchiveUnreadable(
        f"cannot read the WAL archive {archive}: {error}",
        hint=hint or "Check that the destination is mounted and that this account may list it.",
    )


def _stored_files(archive: Path, size_bytes: int) -> Iterator[ArchivedFile | Path]:
    for folder in sorted(archive.iterdir()):
        if folder.is_dir():
            with suppress(FileNotFoundError):
                yield from _files_of(folder, size_bytes)
        elif folder.name not in _OURS and folder.exists():
            yield folder


def _files_of(folder: Path, size_bytes: int) -> Iterator[ArchivedFile | Path]:
    for path in folder.iterdir():
        parts = layout.split_entry(path.name)
        kind = layout.name_kind(parts[0], size_bytes) if parts else None
        if parts is not None and kind is not None and layout.folder_name(parts[0]) == folder.name:
            with suppress(FileNotFoundError):
                yield ArchivedFile(parse_archive_name(parts[0], size_bytes), path, path.stat().st_size, parts[1])
        elif path.name not in _OURS:
            yield path


def _sort_out(found: list[ArchivedFile]) -> tuple[list[ArchivedFile], list[DamagedFile]]:
    versions: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
    for item in found:
        versions[item.parsed.name].append(item)
    sound: list[ArchivedFile] = []
    damaged: list[DamagedFile] = []
    for name in sorted(versions):
        for item in versions[name]:
            several = f"{len(versions[name])} different versions" if len(versions[name]) > 1 else None
            with suppress(FileNotFoundError):
                if reason := _fault(item.path, item.parsed) or several:
                    damaged.append(DamagedFile(name, item.path, reason))
                else:
                    sound.append(item)
    return sound, damaged


def _fault(path: Path, parsed: ArchiveName) -> str | None:
    """What shows that a stored file is damaged; raises FileNotFoundError for one that has expired."""
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_GZIP_MAGIC))
            stored_bytes = stream.seek(0, os.SEEK_END)
            if stored_bytes < _SMALLEST_GZIP_BYTES or head != _GZIP_MAGIC:
                return f"not a gzip file ({stored_bytes} bytes)"
            stream.seek(-4, os.SEEK_END)
            (plain_bytes,) = struct.unpack("<I", stream.read(4))  # ISIZE of RFC 1952
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    whole = parsed.kind in {ArchiveNameKind.SEGMENT, ArchiveNameKind.PARTIAL}
    expected = parsed.segment.size_bytes if whole and parsed.segment else None
    if plain_bytes == 0 or (expected is not None and plain_bytes != expected):
        return "cut short, or not a whole segment"
    return None


def _archiver_hint(connection: psycopg.Connection[Any] | None) -> str:
    advice = "The server's log has archive_command's error; `lifeboat doctor` tries it as the server's account."
    if connection is None:
        return advice
    try:
        row = connection.execute(
            "SELECT last_failed_wal, last_failed_time, last_archived_wal, last_archived_time, failed_count"
            " FROM pg_catalog.pg_stat_archiver"
        ).fetchone()
    except psycopg.Error as error:
        return f"pg_stat_archiver cannot be read ({str(error).strip()}). {advice}"
    if row is None or row[0] is None:
        last = f"last archived is {row[2]}" if row and row[2] else "nothing was archived yet"
        return f"The archiver reports no failure, {last}: is archive_mode on, and is it keeping up? {advice}"
    failed = f"The archiver failed {row[4]} times, last with {row[0]} at {row[1]}"
    return f"{failed}; last archived is {row[2]} at {row[3]}. {advice}"
