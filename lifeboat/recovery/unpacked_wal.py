"""Archived segments that lie unpacked for pg_waldump, and what it writes about them, in whole lines."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lifeboat.errors import PermanentError
from lifeboat.postgres.folders import give_to
from lifeboat.recovery.timelines import TimelinePath
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.names import Segment

# Where the last commit nearly always is; decoding two whole segments would take far longer than fetching one does.
_END_BYTES = 2 * 1024 * 1024
# xl_restore_point: a record header of 24 bytes, a header of 2 for less than 256 bytes of data, then the time.
_RESTORE_POINT_TIME_AT = 26
_PAGE_BYTES = 8192
_PAGE_HEADER_BYTES = 24
_LONG_PAGE_HEADER_BYTES = 40
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

Take = Callable[[bytes], None]


class SegmentUnusable(PermanentError):
    """A segment that was listed cannot be had or cannot be decoded: plan again without it."""

    def __init__(self, segment: Segment, why: str) -> None:
        super().__init__(f"the WAL segment {segment.name} cannot be used: {why}")
        self.segment = segment


@dataclass(frozen=True)
class UnpackedWal:
    """The segments of a path that lie unpacked."""

    archive: WalArchive
    path: TimelinePath
    size_bytes: int
    folder: Path
    user: str | None
    here: set[int] = field(default_factory=set)

    def name(self, number: int) -> str:
        return Segment(self.path.timeline, number, self.size_bytes).name

    def fetch(self, number: int) -> None:
        if number in self.here:
            return
        segment, target = self.path.segment(number, self.size_bytes), self.folder / self.name(number)
        try:
            self.archive.fetch(segment.name, target)
        except (WalFileMissing, WalDamaged) as error:
            target.unlink(missing_ok=True)
            raise SegmentUnusable(segment, error.message) from error
        give_to(target, self.user)
        self.here.add(number)

    def near_end(self, number: int) -> int:
        """The begin of a page a little before where a segment's records end: zeroes are behind a switch."""
        with (self.folder / self.name(number)).open("rb") as file:
            end = self.size_bytes
            while end > 0:
                file.seek(max(0, end - _END_BYTES))
                found = file.read(min(end, _END_BYTES)).rstrip(b"\0")
                if found:
                    end = max(0, end - _END_BYTES) + len(found)
                    break
                end -= _END_BYTES
        return number * self.size_bytes + max(0, end - _END_BYTES) // _PAGE_BYTES * _PAGE_BYTES

    def keep(self, numbers: range) -> None:
        """Remove the others."""
        for number in [each for each in self.here if each not in numbers]:
            (self.folder / self.name(number)).unlink()
            self.here.remove(number)

    def restore_point_time(self, lsn: int) -> datetime:
        """The moment in the restore point's record, which pg_waldump does not print."""
        data, position = b"", lsn
        while len(data) < _RESTORE_POINT_TIME_AT + 8:
            if position % _PAGE_BYTES == 0:
                position += _PAGE_HEADER_BYTES if position % self.size_bytes else _LONG_PAGE_HEADER_BYTES
            count = min(_PAGE_BYTES - position % _PAGE_BYTES, _RESTORE_POINT_TIME_AT + 8 - len(data))
            self.fetch(position // self.size_bytes)
            with (self.folder / self.name(position // self.size_bytes)).open("rb") as file:
                file.seek(position % self.size_bytes)
                data += file.read(count)
            position += count
        (microseconds,) = struct.unpack_from("=q", data, _RESTORE_POINT_TIME_AT)
        return _EPOCH + timedelta(microseconds=microseconds)


@dataclass
class WholeLines:
    """Hands on output in whole lines."""

    take: Take
    rest: bytes = b""

    def feed(self, block: bytes) -> None:
        self.rest += block
        whole = self.rest.rfind(b"\n") + 1
        chunk, self.rest = self.rest[:whole], self.rest[whole:]
        if chunk:
            self.take(chunk)

    def end(self) -> None:
        """A line without its end is not taken."""
        self.rest = b""
