"""The segments that decoding reads: the way over timelines, what is there of it, and the few that lie unpacked."""

from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.names import Segment, TimelineSwitch

_FETCHERS = 2


@dataclass(frozen=True)
class SegmentPath:
    """The segments that lead along a timeline: before its beginning those of its ancestors."""

    timeline: int
    switches: tuple[TimelineSwitch, ...]
    size_bytes: int

    @property
    def begin_lsn(self) -> int:
        """Where the timeline itself begins; 0 for the first."""
        return self.switches[-1].switch_lsn if self.switches else 0

    def segment(self, number: int) -> Segment:
        """The segment of that number: a timeline's first one repeats what came before the switch.

        PostgreSQL prefers the newest timeline whose first segment is not later (XLogFileReadAnyTLI).
        """
        timeline = self.timeline
        for switch in reversed(self.switches):
            if switch.switch_lsn // self.size_bytes <= number:
                break
            timeline = switch.timeline
        return Segment(timeline, number, self.size_bytes)

    def local_name(self, number: int) -> str:
        """The name under which a segment lies unpacked: pg_waldump follows one timeline by file names only."""
        return Segment(self.timeline, number, self.size_bytes).name

    def contiguous(self, number: int, stored: Collection[str]) -> int:
        """How many segments from `number` on are stored without a gap."""
        count = 0
        while self.segment(number + count).name in stored:
            count += 1
        return count


class UnpackedSegments:
    """A folder with the segments of a path that are needed now, fetched by threads, a few ahead."""

    def __init__(self, archive: WalArchive, path: SegmentPath, folder: Path, user: str | None) -> None:
        self._archive, self._path, self.folder, self._user = archive, path, folder, user
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="wal-fetch")
        self._fetched: dict[int, Future[None]] = {}

    def __enter__(self) -> Self:
        make_private_dir(self.folder, self._user)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def want(self, numbers: Sequence[int]) -> None:
        """Fetch these in the background."""
        for number in numbers:
            if number not in self._fetched:
                self._fetched[number] = self._pool.submit(self._fetch, number)

    def wait(self, numbers: Sequence[int]) -> tuple[int, WalFileMissing | WalDamaged | None]:
        """Wait for these; returns the first number that cannot be had, and why, or the one behind the last.

        Raises ArchiveUnreadable.
        """
        self.want(numbers)
        for number in numbers:
            try:
                self._fetched[number].result()
            except (WalFileMissing, WalDamaged) as error:
                return number, error
        return numbers[-1] + 1, None

    def drop_before(self, number: int) -> None:
        """Remove those before `number`."""
        for old in [each for each in self._fetched if each < number]:
            future = self._fetched.pop(old)
            if not future.cancel():
                future.exception()
            self._target(old).unlink(missing_ok=True)

    def _fetch(self, number: int) -> None:
        target = self._target(number)
        self._archive.fetch(self._path.segment(number).name, target)
        give_to(target, self._user)

    def _target(self, number: int) -> Path:
        return self.folder / self._path.local_name(number)
