"""The end of WAL that only a stopped server's own pg_wal holds: saved before its data directory is moved away.

With it a restore to the latest moment loses nothing that the archive lacks.
"""

import os
import shutil
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.storage.durable import fsync_directory, fsync_file
from lifeboat.wal.archive import WalArchive, WalFileMissing
from lifeboat.wal.archive_program.layout import name_kind
from lifeboat.wal.coverage import ArchivedFile, ArchiveListing, contiguous_ranges, gaps_between
from lifeboat.wal.names import (
    ArchiveNameKind,
    Segment,
    TimelineSwitch,
    history_name,
    parse_archive_name,
    parse_history,
)

# XLogLongPageHeaderData: magic, flags, timeline, page address, remaining length, system identifier, segment size.
_LONG_HEADER = struct.Struct("=HHIQI4xQI")
_LONG_HEADER_FLAG = 0x0002


def save_tail(pg_wal: Path, folder: Path, listing: ArchiveListing, user: str | None) -> list[Path]:
    """Copy the WAL files of a stopped server that the archive lacks into `folder`, durably; returns the copies.

    Segments that were kept to be used again hold older WAL than their names say, and are left. Raises OSError.
    """
    make_private_dir(folder, user)
    archived = {item.parsed.name for item in listing.files}
    saved = []
    for path in sorted(pg_wal.iterdir()) if pg_wal.is_dir() else []:
        if path.name in archived or not _is_whole(path, listing):
            continue
        part, target = folder / f".{path.name}.part", folder / path.name
        shutil.copyfile(path, part)
        give_to(part, user)
        fsync_file(part)
        part.replace(target)
        saved.append(target)
    fsync_directory(folder)
    return saved


def _is_whole(path: Path, listing: ArchiveListing) -> bool:
    kind = name_kind(path.name, listing.segment_size_bytes)
    if kind == ArchiveNameKind.HISTORY:
        return True
    if kind != ArchiveNameKind.SEGMENT or path.stat().st_size != listing.segment_size_bytes:
        return False
    segment = parse_archive_name(path.name, listing.segment_size_bytes).segment
    with path.open("rb") as file:
        head = file.read(_LONG_HEADER.size)
    if len(head) < _LONG_HEADER.size or segment is None:
        return False
    _, flags, timeline, address, _, system, size_bytes = _LONG_HEADER.unpack(head)
    return bool(
        flags & _LONG_HEADER_FLAG
        and address == segment.start_lsn
        and 0 < timeline <= segment.timeline
        and (str(system), size_bytes) == (listing.system_identifier, listing.segment_size_bytes)
    )


@dataclass(frozen=True)
class ArchiveWithTail:
    """An archive, and behind it the tail of a server's pg_wal, saved or still there; implements WalArchive."""

    archive: WalArchive
    folder: Path

    def describe(self) -> str:
        """Both in a few words."""
        return f"{self.archive.describe()} with the tail in {self.folder}"

    def listing(self) -> ArchiveListing:
        """The archive's listing, with what only the tail holds; raises ArchiveUnreadable."""
        found = self.archive.listing()
        files = [*found.files, *self._files(found)]
        segments = [f.parsed.segment for f in files if f.parsed.kind is ArchiveNameKind.SEGMENT and f.parsed.segment]
        ranges = contiguous_ranges(segments)
        return replace(found, files=tuple(files), ranges=ranges, gaps=gaps_between(ranges))

    def fetch(self, name: str, target: Path) -> None:
        """Write the plain file to `target`, from the archive first; raises as WalArchive.fetch does."""
        try:
            self.archive.fetch(name, target)
        except WalFileMissing:
            if not (self.folder / name).is_file():
                raise
            shutil.copyfile(self.folder / name, target)

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        """The ancestors of a timeline; raises as WalArchive.history does."""
        name = history_name(timeline)
        try:
            return self.archive.history(timeline)
        except WalFileMissing:
            if not (self.folder / name).is_file():
                raise
            return parse_history(name, (self.folder / name).read_text("utf-8", "replace"))

    def open_ended(self, listing: ArchiveListing) -> frozenset[Segment]:
        """The tail's segments: the last one stops in its midst."""
        return frozenset(
            item.parsed.segment
            for item in self._files(listing)
            if item.parsed.kind is ArchiveNameKind.SEGMENT and item.parsed.segment is not None
        )

    def _files(self, listing: ArchiveListing) -> list[ArchivedFile]:
        known = {item.parsed.name for item in listing.files if item.path.parent != self.folder}
        names = [name for name in sorted(os.listdir(self.folder)) if _is_whole(self.folder / name, listing)]
        return [
            ArchivedFile(
                parse_archive_name(name, listing.segment_size_bytes),
                self.folder / name,
                (self.folder / name).stat().st_size,
                "",
            )
            for name in names
            if name not in known
        ]
