"""Whether the records of consecutive segments hold together, as PostgreSQL's own reader sees them.

pg_waldump of the source's major version checks each record's length, back link and CRC-32C, in C: 16 MB take it less
than 0.1 s, where Python would need many seconds. It stops at the first fault, so it runs once a window and once more
behind each fault. It has to see segments together: alone, one hides a record that begins in it and ends in the next.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.names import Segment, parse_lsn, parse_segment
from lifeboat.wal.pages import continued_bytes, first_record, record_room_bytes

_TIMEOUT_SECONDS = 600.0
_LSN = re.compile(r"\b[0-9A-F]{1,8}/[0-9A-F]{1,8}\b")
_NO_BEGINNING = "could not find a valid record after"
_NAMED = re.compile(r"in (?:WAL|log) segment ([0-9A-F]{24})")


class RecordsNotReadable(PermanentError):
    """pg_waldump failed in a way that says nothing of the WAL."""


@dataclass(frozen=True)
class RecordFault:
    """The segment in which a damaged record begins, and what pg_waldump says of it."""

    segment: Segment
    reason: str


def check_records(tools: PgTools, folder: Path, segments: Sequence[Segment]) -> list[RecordFault]:
    """All faults in consecutive segments that lie in `folder` under their names, readable by `tools.user`.

    Their pages are sound. A record that goes on behind the last segment is not checked. Raises RecordsNotReadable,
    CommandTimeout, ToolMissing.
    """
    faults: list[RecordFault] = []
    remaining = list(segments)
    while remaining:
        if not begins_record(folder, remaining[0]):
            # In the middle of a huge record pg_waldump has nothing to begin with.
            remaining = remaining[1:]
            continue
        fault = _first_fault(tools, folder, remaining)
        if fault is None:
            break
        faults.append(fault)
        remaining = [segment for segment in remaining if segment > fault.segment]
    return faults


def begins_record(folder: Path, segment: Segment) -> bool:
    """Whether any record begins in a segment, whose pages are sound."""
    return first_record(_content(folder, segment)) is not None


def _first_fault(tools: PgTools, folder: Path, segments: Sequence[Segment]) -> RecordFault | None:
    first, last = segments[0], segments[-1]
    arguments: list[str | Path] = ["--quiet", "--path", folder, "--timeline", str(first.timeline)]
    try:
        tools.run("pg_waldump", [*arguments, first.name, last.name], timeout_seconds=_TIMEOUT_SECONDS)
    except commands.CommandFailed as error:
        said = " ".join(error.stderr_tail.split()).removeprefix("pg_waldump: error: ")
        if said.startswith(_NO_BEGINNING) and _goes_on_behind(folder, segments):
            return None
        return RecordFault(_where(said, segments), said)
    return None


def _goes_on_behind(folder: Path, segments: Sequence[Segment]) -> bool:
    """Whether the first record of these segments ends behind them, as far as they agree about that."""
    overhang = record.overhang_bytes if (record := first_record(_content(folder, segments[0]))) is not None else 0
    for segment in segments[1:]:
        content = _content(folder, segment)
        if overhang == 0 or continued_bytes(content) != overhang:
            return False
        overhang = max(0, overhang - record_room_bytes(content))
    return overhang > 0


def _content(folder: Path, segment: Segment) -> mmap:
    with (folder / segment.name).open("rb") as stream:
        return mmap(stream.fileno(), 0, access=ACCESS_READ)


def _where(said: str, segments: Sequence[Segment]) -> Segment:
    size_bytes = segments[0].size_bytes
    named, positions = _NAMED.search(said), _LSN.findall(said)
    if named is None and not positions:
        raise RecordsNotReadable(
            f"pg_waldump cannot read {segments[0].name}: {said}",
            hint="Check that `platform.bin_dir` has the programs of the server's major version.",
        )
    # The last position is that of the fault; those before it tell how far all was well.
    number = parse_segment(named[1], size_bytes).number if named else parse_lsn(positions[-1]) // size_bytes
    number = min(max(number, segments[0].number), segments[-1].number)
    return Segment(segments[0].timeline, number, size_bytes)
