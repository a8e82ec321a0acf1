"""What planning asks of archived WAL, answered by pg_waldump of the server's major version.

Some segments at a time lie unpacked in a private folder, all under the names of the path's last timeline, since
pg_waldump follows one timeline by file names only. Records cross segments: each window holds the segment behind it
too, so that a record which begins in its last segment is whole there.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path

from lifeboat.commands import CommandFailed
from lifeboat.errors import PermanentError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import make_private_dir
from lifeboat.recovery.planning import WalPoint
from lifeboat.recovery.spans import ArchivedWal, Span
from lifeboat.recovery.timelines import TimelinePath
from lifeboat.recovery.unpacked_wal import SegmentUnusable, Take, UnpackedWal, WholeLines
from lifeboat.wal.activity.records import Record, other_records, to_datetime
from lifeboat.wal.archive import WalArchive
from lifeboat.wal.names import Segment, format_lsn, parse_lsn, parse_segment

_WINDOW_BYTES = 64 * 1024 * 1024
_XID_MASK = (1 << 32) - 1
_ABORTS = frozenset({b"ABORT", b"ABORT_PREPARED"})
_COMMITS = frozenset({b"COMMIT", b"COMMIT_PREPARED"})
_ENDS = _COMMITS | _ABORTS
_RESTORE_POINT = re.compile(
    rb"^rmgr: XLOG .*?, lsn: ([0-9A-F]+/[0-9A-F]+), prev [^,]+, desc: RESTORE_POINT (.*)$", re.M
)
_ANY_LSN = re.compile(rb"^rmgr: \w+ .*?, lsn: ([0-9A-F]+/[0-9A-F]+), prev ", re.M)
_NO_RECORD = "could not find a valid record"
_FAULT_SEGMENT = re.compile(r"\b(?:WAL|log) segment ([0-9A-F]{24})\b")  # `log` before 16
_FAULT_LSN = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+)")

Tell = Callable[[int, int], None]


class CommitTooFar(PermanentError):
    """So much WAL has no commit that looking for one is not worth the time."""


@dataclass(frozen=True)
class NotedPlace:
    """Where something was noted to be: it is looked for there first, and counts only if the WAL there has it."""

    timeline: int
    lsn: int
    at: datetime


@dataclass(frozen=True)
class ArchivedWalReader:
    """Implements planning.WalReader on an archive.

    `tools` are of the server's major version, and their account must reach `scratch_dir`. `open_ended` segments may
    stop in their midst (the tail of a server's own pg_wal). `noted` are places of what is asked for by name or by
    transaction, the newest first; else the archive is read backwards, and `on_read` is told the bytes read, and all
    there are. Methods raise SegmentUnusable, ArchiveUnreadable, CommandTimeout, ToolMissing.
    """

    archive: WalArchive
    wal: ArchivedWal
    tools: PgTools
    scratch_dir: Path
    open_ended: frozenset[Segment] = frozenset()
    timeout_seconds: float | None = None
    window_bytes: int = _WINDOW_BYTES
    noted: tuple[NotedPlace, ...] = ()
    on_read: Tell | None = None
    _ends: dict[tuple[TimelinePath, int, int, int], WalPoint | None] = field(default_factory=dict)

    def last_commit(self, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        """The last end of a transaction, by commit or abort, behind the backup's stop; replay stops at both."""
        end_lsn = (span.last_number + 1) * self.wal.segment_size_bytes if before_lsn is None else before_lsn
        key = (span.path, span.first_number, end_lsn, span.backup.stop_lsn)
        if key not in self._ends:
            last_number = min(span.last_number, (end_lsn - 1) // self.wal.segment_size_bytes)
            numbers = range(span.first_number, last_number + 1)
            self._ends[key] = self._last_end(span.path, numbers, range(span.backup.stop_lsn, end_lsn), _ENDS)
        return self._ends[key]

    def replayed_commit(self, span: Span, end_lsn: int, within_bytes: int) -> WalPoint | None:
        """The last commit that was replayed up to a position, which may lie behind the span; a rollback is none.

        Replay begins with the backup: commits before its end count too. Raises CommitTooFar where so much WAL before
        the position has none, or where WAL from the backup's begin on is not archived.
        """
        size_bytes, start_lsn = self.wal.segment_size_bytes, span.backup.start_lsn
        last_number = (end_lsn - 1) // size_bytes
        first_number = min(span.first_number, last_number)
        while first_number > start_lsn // size_bytes and self.wal.range_of(
            span.path.segment(first_number - 1, size_bytes)
        ):
            first_number -= 1
        first_number = max(first_number, last_number - within_bytes // size_bytes)
        numbers = range(first_number, last_number + 1)
        found = self._last_end(span.path, numbers, range(start_lsn, end_lsn), _COMMITS)
        if found is None and first_number > start_lsn // size_bytes:
            raise CommitTooFar(f"no commit in the WAL from {span.path.segment(first_number, size_bytes).name} on")
        return found

    def _last_end(self, path: TimelinePath, numbers: range, lsns: range, ends: frozenset[bytes]) -> WalPoint | None:
        newest: list[Record] = []
        latest = [b""]

        def take(chunk: bytes) -> None:
            for record in other_records(chunk):
                if record.what in ends and record.lsn in lsns:
                    newest[:] = [record]
                    latest[0] = max(latest[0], record.time())

        for _ in self._backward(path, numbers, ("Transaction",), take):
            if newest:
                return replace(self._point(newest[0], path), latest_at=to_datetime(latest[0]))
        return None

    def first_commit(
        self, span: Span, from_lsn: int, *, rolled_back: bool = True, within_bytes: int | None = None
    ) -> WalPoint | None:
        """The first commit at or behind a position of a span; with `rolled_back` an abort counts too.

        Raises CommitTooFar where `within_bytes` behind the position have none, and the span goes on.
        """
        found, wanted = list[Record](), _ENDS if rolled_back else _COMMITS

        def take(chunk: bytes) -> None:
            if not found:
                ends = (each for each in other_records(chunk) if each.what in wanted and each.lsn >= from_lsn)
                found.extend(islice(ends, 1))

        first, stop, count = from_lsn // self.wal.segment_size_bytes, span.last_number + 1, 1
        with self._unpacked(span.path) as segments:
            while first < stop and not found:
                # With the segment behind: a record that begins in the last one of them is whole there.
                window = range(first, min(first + count + 1, stop))
                self._decode_from(segments, window, first, ("Transaction",), take)
                first, count = first + count, min(count * 2, self._per_window)
                segments.keep(range(first, first + 1))
                if within_bytes is not None and not found and first * segments.size_bytes > from_lsn + within_bytes:
                    raise CommitTooFar(f"no commit from {format_lsn(from_lsn)} on for {within_bytes:,} bytes of WAL")
        return self._point(found[0], span.path) if found else None

    def last_record_lsn(self, span: Span) -> int:
        """Where the last record of a span begins; the backup's stop when nothing lies behind it."""
        newest = [span.backup.stop_lsn]

        def take(chunk: bytes) -> None:
            start = chunk.rfind(b"\n", 0, len(chunk) - 1) + 1
            if found := _ANY_LSN.match(chunk, start):
                newest[0] = max(newest[0], parse_lsn(found[1].decode()))

        for _ in self._backward(span.path, span.numbers, (), take) if span.needs_archive else ():
            if newest[0] > span.backup.stop_lsn:
                break
        return newest[0]

    def find_name(self, name: str, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        """The named restore point on a path; where several have the name, the one that was noted, or the newest."""
        wanted, found = name.encode(), list[int]()

        def take(chunk: bytes) -> None:
            found.extend(parse_lsn(lsn.decode()) for lsn, text in _RESTORE_POINT.findall(chunk) if text == wanted)

        for segments, noted in self._newest_first(path, "XLOG", take, from_lsn):
            if noted is not None and segments is None:
                return WalPoint(noted.at, noted.lsn, noted.timeline)
            # A place is noted by the record's end.
            if segments and (lsns := [lsn for lsn in found if noted is None or lsn < noted.lsn]):
                at = segments.restore_point_time(max(lsns))
                return WalPoint(at, max(lsns), self._timeline(max(lsns), path))
            found.clear()
        return None

    def find_commit(self, xid: int, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        """The end, by commit or abort, of a transaction on a path; the newest where its number was used again."""
        found: list[Record] = []

        def take(chunk: bytes) -> None:
            for record in other_records(chunk):
                if record.what in _ENDS and record.transaction() == xid & _XID_MASK:
                    found.append(record)

        for segments, _ in self._newest_first(path, "Transaction", take, from_lsn):
            if segments is not None and found:
                return self._point(max(found, key=lambda record: record.lsn), path)
        return None

    def _newest_first(
        self, path: TimelinePath, manager: str, take: Take, from_lsn: int
    ) -> Iterator[tuple["UnpackedWal | None", NotedPlace | None]]:
        """Decode the noted places, then the path backwards to `from_lsn`; returns to the caller after each window.

        There are no segments for a noted place that the archive lacks.
        """
        size_bytes = self.wal.segment_size_bytes
        runs = [range(max(run.start, from_lsn // size_bytes), run.stop) for run in self.wal.runs_on(path)]
        runs = [run for run in runs if run]
        with self._unpacked(path) as segments:
            for place in self.noted:
                if not path.holds(place.timeline, place.lsn):
                    continue
                # The byte before: a position at a segment's begin may be the end of a record in the one before.
                number = (place.lsn - 1) // size_bytes
                run = next((each for each in runs if number in each), None)
                if run is None:
                    yield None, place
                    continue
                window = range(max(run.start, number - 1), min(run.stop, number + 2))
                self._decode_from(segments, window, run.start, (manager,), take)
                yield segments, place
                segments.keep(range(0))
        done, total = 0, sum(map(len, runs)) * size_bytes
        for run in reversed(runs):
            for begin, unpacked in self._windows_backward(path, run, (manager,), take):
                if self.on_read is not None:
                    self.on_read(done + (run.stop - begin) * size_bytes, total)
                yield unpacked, None
            done += len(run) * size_bytes

    def _point(self, record: Record, path: TimelinePath) -> WalPoint:
        return WalPoint(
            to_datetime(record.time()),
            record.lsn,
            self._timeline(record.lsn, path),
            record.transaction(),
            rolled_back=record.what in _ABORTS,
        )

    def _timeline(self, lsn: int, path: TimelinePath) -> int:
        return next(item.timeline for item in reversed(path.stretches) if item.begin_lsn <= lsn)

    @property
    def _per_window(self) -> int:
        return max(1, self.window_bytes // self.wal.segment_size_bytes)

    def _backward(self, path: TimelinePath, run: range, managers: tuple[str, ...], take: Take) -> Iterator[None]:
        """Decode a run of segments from its end to its beginning; returns to the caller after each window.

        Before the first one it decodes only the end of the last segment.
        """
        with self._unpacked(path) as segments:
            numbers = range(run.stop - 1, run.stop) if run else run
            if numbers and self._decode(segments, numbers, managers, take, near_end=True):
                yield
            for _ in self._windows(segments, run, managers, take):
                yield

    def _windows_backward(
        self, path: TimelinePath, run: range, managers: tuple[str, ...], take: Take
    ) -> Iterator[tuple[int, UnpackedWal]]:
        """As `_backward`: the first segment's number of each window, and what lies unpacked."""
        with self._unpacked(path) as segments:
            for first in self._windows(segments, run, managers, take):
                yield first, segments

    def _windows(self, segments: UnpackedWal, run: range, managers: tuple[str, ...], take: Take) -> Iterator[int]:
        count, last = 2, run.stop - 1
        upto = last
        while last >= run.start:
            first = max(run.start, last - count + 1)
            self._decode_from(segments, range(first, upto + 1), run.start, managers, take)
            yield first
            last, upto = first - 1, first
            count = min(count * 2, self._per_window)
            segments.keep(range(first, first + 1))

    def _decode_from(
        self, segments: UnpackedWal, numbers: range, floor: int, managers: tuple[str, ...], take: Take
    ) -> None:
        """Decode these segments, from an earlier one not below `floor` where pg_waldump finds no beginning.

        It finds none in a segment that holds the middle of a long record, or only the end of a switch.
        """
        for start in (*range(numbers.start, floor - 1, -1), *range(numbers.start + 1, numbers.stop)):
            if self._decode(segments, range(start, numbers.stop), managers, take):
                return

    def _decode(
        self,
        segments: UnpackedWal,
        numbers: range,
        managers: tuple[str, ...],
        take: Take,
        *,
        near_end: bool = False,
    ) -> bool:
        """Feed whole lines of pg_waldump's output on these segments to `take`; False where no record begins there.

        With `near_end` only what the last of them ends with.
        """
        for number in numbers:
            segments.fetch(number)
        size_bytes, lines = segments.size_bytes, WholeLines(take)
        start_lsn = segments.near_end(numbers.stop - 1) if near_end else numbers.start * size_bytes
        words: list[str | Path] = ["--path", segments.folder, "--timeline", str(segments.path.timeline)]
        words += ["--start", format_lsn(start_lsn), "--end", format_lsn(numbers.stop * size_bytes)]
        words += [word for manager in managers for word in ("--rmgr", manager)]
        words += [segments.name(numbers.start), segments.name(numbers.stop - 1)]
        try:
            self.tools.run(
                "pg_waldump", words, env={"TZ": "UTC"}, timeout_seconds=self.timeout_seconds, on_stdout=lines.feed
            )
        except CommandFailed as failure:
            last = segments.path.segment(numbers.stop - 1, size_bytes)
            if last in self.open_ended:
                lines.end()
                return True
            if _NO_RECORD in failure.stderr_tail and _FAULT_SEGMENT.search(failure.stderr_tail) is None:
                return False
            raise SegmentUnusable(self._at_fault(segments, failure, last), failure.stderr_tail) from failure
        lines.end()
        return True

    def _at_fault(self, segments: UnpackedWal, failure: CommandFailed, last: Segment) -> Segment:
        named, at = _FAULT_SEGMENT.search(failure.stderr_tail), _FAULT_LSN.search(failure.stderr_tail)
        if named is not None:
            number = parse_segment(named[1], segments.size_bytes).number
        elif at is not None:
            number = parse_lsn(at[1]) // segments.size_bytes
        else:
            return last
        return segments.path.segment(number, segments.size_bytes)

    @contextmanager
    def _unpacked(self, path: TimelinePath) -> Iterator[UnpackedWal]:
        with tempfile.TemporaryDirectory(prefix="wal-read-", dir=self.scratch_dir) as folder:
            private = make_private_dir(Path(folder), self.tools.user)
            yield UnpackedWal(self.archive, path, self.wal.segment_size_bytes, private, self.tools.user)
