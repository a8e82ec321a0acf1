"""Runs pg_waldump over a contiguous range of the archive, some segments at a time, and feeds what it prints.

Records cross segments: each run ends with the last record that is whole, and the next one begins at that record,
with the following segments there. Read one by one, segments lose the records between them.
"""

import signal
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lifeboat import commands
from lifeboat.errors import PermanentError, TransientError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_to
from lifeboat.wal.activity.reading import Reading
from lifeboat.wal.activity.records import MANAGERS
from lifeboat.wal.activity.segments import SegmentPath, UnpackedSegments
from lifeboat.wal.archive import WalArchive
from lifeboat.wal.names import format_lsn
from lifeboat.wal.pages import MAJOR_BY_MAGIC

# What lies unpacked is at most twice this: a run's segments and the next run's.
WINDOW_BYTES = 128 * 1024 * 1024
# How pg_waldump ends when it does not understand WAL, or crashes over it; killed, or never started, it ends otherwise.
_NOT_UNDERSTOOD = frozenset({1, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, -signal.SIGSEGV})
# Decoding begins as soon as these are there.
_FIRST_SEGMENTS = 2


class WalNotDecodable(PermanentError):
    """WAL cannot be decoded behind a position: a segment is missing, damaged, or not what it should be."""


class DecoderKilled(TransientError):
    """pg_waldump did not come to an end of its own: that says nothing about WAL."""


class WrongDecoder(PermanentError):
    """WAL is of another major version than the pg_waldump that is there."""


@dataclass(frozen=True)
class Source:
    """Where WAL comes from and what decodes it: programs of the source's major version, a folder for segments.

    `tools.user` must be able to reach `scratch_dir`. Without `ahead` a window is fetched when the one before it is
    read: for a reader that probably needs no more than the first.
    """

    archive: WalArchive
    tools: PgTools
    scratch_dir: Path
    timeout_seconds: float | None = None
    window_bytes: int = WINDOW_BYTES
    ahead: bool = True


@dataclass(frozen=True)
class Stretch:
    """Segments to decode: `segment_count` from that of `start_lsn` on; up to `read_to_lsn` they were read before."""

    start_lsn: int
    segment_count: int
    read_to_lsn: int | None = None


def decode(
    source: Source, path: SegmentPath, reading: Reading, stretch: Stretch, on_window: Callable[[int], None]
) -> None:
    """Feed `reading` with the records of `stretch`.

    `on_window` is called after each run that went well, with the position up to which segments were read. What was read
    before an error is in `reading`. Raises WalNotDecodable, DecoderKilled, WrongDecoder, Landed, ArchiveUnreadable,
    CommandTimeout, ToolMissing.
    """
    size_bytes = path.size_bytes
    end_number = stretch.start_lsn // size_bytes + stretch.segment_count
    per_window = max(1, source.window_bytes // size_bytes)
    with _unpacked(source, path) as segments:
        # The first run has to go behind what was read before: else one that dies after it would never get on.
        position = stretch.start_lsn
        number = max(position, stretch.read_to_lsn or 0) // size_bytes
        count = min(_FIRST_SEGMENTS, per_window)
        while number < end_number:
            window_end = min(number + count, end_number)
            count = min(count * 2, per_window)
            ahead = range(window_end, min(window_end + count, end_number))
            segments.want(range(position // size_bytes, window_end))
            if source.ahead:
                segments.want(ahead)
            good_end, trouble = segments.wait(range(position // size_bytes, window_end))
            if good_end > number:
                _run(source, path, reading, segments.folder, position, good_end)
                on_window(good_end * size_bytes)
            if trouble is not None:
                raise WalNotDecodable(
                    f"timeline {path.timeline} cannot be read on: {trouble.message}",
                    hint="Take a new full backup; what lies between is neither indexed nor restorable.",
                ) from trouble
            # Nothing printed (a long stretch of index records): the next run begins at the same place.
            position = max(position, reading.last_lsn or 0)
            number = window_end
            segments.drop_before(position // size_bytes)


@contextmanager
def _unpacked(source: Source, path: SegmentPath) -> Iterator[UnpackedSegments]:
    with tempfile.TemporaryDirectory(prefix="wal-index-", dir=source.scratch_dir) as folder:
        give_to(Path(folder), source.tools.user)
        with UnpackedSegments(source.archive, path, Path(folder), source.tools.user) as segments:
            yield segments


def _run(  # noqa: PLR0913 - which WAL, from where to where, for whom
    source: Source, path: SegmentPath, reading: Reading, folder: Path, start_lsn: int, end_number: int
) -> None:
    _refuse_other_major(source.tools, folder / path.local_name(start_lsn // path.size_bytes))
    arguments: list[str | Path] = ["--path", folder, "--timeline", str(path.timeline)]
    arguments += ["--start", format_lsn(start_lsn), "--end", format_lsn(end_number * path.size_bytes)]
    for manager in MANAGERS:
        arguments += ["--rmgr", manager]
    # Without a segment's name pg_waldump takes the segment size from any file there.
    arguments.append(path.local_name(start_lsn // path.size_bytes))
    arguments.append(path.local_name(end_number - 1))
    try:
        source.tools.run(
            "pg_waldump",
            arguments,
            env={"TZ": "UTC"},
            timeout_seconds=source.timeout_seconds,
            on_stdout=reading.feed,
        )
    except commands.CommandFailed as error:
        if error.returncode not in _NOT_UNDERSTOOD:
            raise DecoderKilled(
                f"the WAL of timeline {path.timeline} was not read to its end: {error.message}",
                hint="Nothing is lost: run it again. If it is killed each time, the machine may lack memory.",
            ) from error
        reading.end()
        reached = format_lsn(reading.last_lsn or start_lsn)
        raise WalNotDecodable(
            f"the WAL of timeline {path.timeline} behind {reached} cannot be decoded: {error.stderr_tail}",
            hint="`lifeboat wal verify` reads the segments' contents; a new full backup is a new beginning.",
        ) from error
    reading.end()


def _refuse_other_major(tools: PgTools, segment: Path) -> None:
    # pg_waldump would call it invalid, which sounds like damage.
    with segment.open("rb") as file:
        (magic,) = struct.unpack("=H", file.read(2))
    of, ours = MAJOR_BY_MAGIC.get(magic), tools.version("pg_waldump").major
    if of is not None and of != ours:
        raise WrongDecoder(
            f"the archived WAL is of PostgreSQL {of}, and pg_waldump here of {ours}",
            hint=f"Set `platform.bin_dir` to the programs of PostgreSQL {of}.",
        )
