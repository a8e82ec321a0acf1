"""WAL positions (LSN), segments, timelines, and the names they have in an archive.

Formats: PostgreSQL's access/xlog_internal.h (names), pg_lsn (positions) and timeline.c (history files).
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from lifeboat.errors import PermanentError
from lifeboat.wal.archive_program.layout import name_kind

DEFAULT_SEGMENT_SIZE_BYTES = 16 * 1024 * 1024
LAST_LSN = (1 << 64) - 1
LAST_TIMELINE = (1 << 32) - 1
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class InvalidLsn(PermanentError):
    """A text is not a WAL position."""


class InvalidWalName(PermanentError):
    """A name does not belong into a WAL archive, or a history file is malformed."""


class ArchiveNameKind(StrEnum):
    """The kinds of files a server archives."""

    SEGMENT = "segment"
    PARTIAL = "partial"
    BACKUP = "backup"
    HISTORY = "history"


def parse_lsn(text: str) -> int:
    """A position like `0/16B3748` as a byte offset; raises InvalidLsn."""
    match = _LSN.fullmatch(text)
    if match is None:
        raise InvalidLsn(f"{text!r} is not a WAL position", hint="A position looks like 0/16B3748.")
    return (int(match[1], 16) << 32) | int(match[2], 16)


def format_lsn(position: int) -> str:
    """A byte offset as PostgreSQL writes it: `0/16B3748`; raises InvalidLsn."""
    if not 0 <= position <= LAST_LSN:
        raise InvalidLsn(f"{position} is not a WAL position", hint="Positions have 64 bits.")
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def is_segment_size(size_bytes: int) -> bool:
    """Whether initdb's --wal-segsize allows it: a power of two from 1 MB to 1 GB."""
    return 1 << 20 <= size_bytes <= 1 << 30 and size_bytes & (size_bytes - 1) == 0


@dataclass(frozen=True, order=True)
class Segment:
    """One WAL segment: its timeline, its number from the start of WAL, and the size all segments have."""

    timeline: int
    number: int
    size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES

    def __post_init__(self) -> None:
        last_number = LAST_LSN // self.size_bytes if is_segment_size(self.size_bytes) else -1
        if not (1 <= self.timeline <= LAST_TIMELINE and 0 <= self.number <= last_number):
            raise InvalidWalName(
                f"no segment {self.number} of {self.size_bytes} bytes on timeline {self.timeline}",
                hint="Timelines count from 1, segments have a power of two from 1 MB to 1 GB.",
            )

    @property
    def name(self) -> str:
        """The 24 digits of its file name."""
        per_log = (1 << 32) // self.size_bytes
        return f"{self.timeline:08X}{self.number // per_log:08X}{self.number % per_log:08X}"

    @property
    def start_lsn(self) -> int:
        """The position of its first byte."""
        return self.number * self.size_bytes

    @property
    def end_lsn(self) -> int:
        """The position after its last byte."""
        return self.start_lsn + self.size_bytes

    def following(self, count: int = 1) -> "Segment":
        """The segment `count` later on the same timeline; before it if negative."""
        return Segment(self.timeline, self.number + count, self.size_bytes)


def parse_segment(name: str, size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> Segment:
    """The segment of a 24-digit name; raises InvalidWalName."""
    parsed = parse_archive_name(name, size_bytes)
    if parsed.kind is not ArchiveNameKind.SEGMENT or parsed.segment is None:
        raise InvalidWalName(f"{name!r} is a {parsed.kind} file, not a WAL segment")
    return parsed.segment


def segment_at(position: int, timeline: int, size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> Segment:
    """The segment that holds the byte at `position`."""
    return Segment(timeline, position // size_bytes, size_bytes)


def segment_before(position: int, timeline: int, size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> Segment:
    """The segment with the byte before `position`: the last one that a backup with this stop LSN needs."""
    return segment_at(max(position - 1, 0), timeline, size_bytes)


@dataclass(frozen=True)
class ArchiveName:
    """What the name of a file in the archive says; history files have no segment."""

    name: str
    kind: ArchiveNameKind
    timeline: int
    segment: Segment | None


def parse_archive_name(name: str, size_bytes: int = DEFAULT_SEGMENT_SIZE_BYTES) -> ArchiveName:
    """Understand a segment, `.partial`, `.backup` or `.history` name; raises InvalidWalName for others."""
    kind = name_kind(name, size_bytes) if is_segment_size(size_bytes) else None
    if kind is None:
        raise InvalidWalName(
            f"{name!r} is not the name of a WAL file with segments of {size_bytes} bytes",
            hint="Names are 24 hexadecimal digits in capitals, with .partial or .backup, or 8 with .history.",
        )
    timeline = int(name[:8], 16)
    segment = None
    if kind != ArchiveNameKind.HISTORY:
        number = int(name[8:16], 16) * ((1 << 32) // size_bytes) + int(name[16:24], 16)
        segment = Segment(timeline, number, size_bytes)
    return ArchiveName(name, ArchiveNameKind(kind), timeline, segment)


def history_name(timeline: int) -> str:
    """The name of a timeline's history file."""
    return f"{timeline:08X}.history"


@dataclass(frozen=True)
class TimelineSwitch:
    """One line of a history file: `timeline` ended at `switch_lsn`, and the next one began there."""

    timeline: int
    switch_lsn: int
    reason: str


def parse_history(name: str, text: str) -> tuple[TimelineSwitch, ...]:
    """The ancestors of a timeline, oldest first; raises InvalidWalName for a malformed file."""
    switches: list[TimelineSwitch] = []
    for line in (raw.strip() for raw in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        fields = line.split(None, 2)
        if len(fields) < 2 or not fields[0].isascii() or not fields[0].isdigit():
            raise InvalidWalName(f"{name} has a malformed line: {line!r}")
        reason = fields[2] if len(fields) > 2 else ""
        switches.append(TimelineSwitch(int(fields[0]), parse_lsn(fields[1]), reason))
    timelines = [0, *(switch.timeline for switch in switches), int(name[:8], 16)]
    if any(older >= newer for older, newer in pairwise(timelines)):
        raise InvalidWalName(f"{name} does not list older timelines in order")
    return tuple(switches)
