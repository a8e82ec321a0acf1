"""A model of a cluster's history: timelines, commits, backups and the segments of them that are archived."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from lifeboat.recovery.planning import RestorePlan, WalPoint, plan_restore
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import TimelinePath
from lifeboat.wal.coverage import contiguous_ranges
from lifeboat.wal.names import Segment, TimelineSwitch

SIZE = 1 << 20
BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
# One commit in the middle of each segment, a minute apart: segment 7 commits at 00:07 on timeline 1, and a timeline
# that began in segment s at minute m commits in segment s + k at minute m + k.
Fork = tuple[int, int]


@dataclass(frozen=True)
class World:
    """A cluster's history: timeline 1 ran from minute 0; each fork left the one before at a segment, at a minute."""

    forks: tuple[Fork, ...]
    last_minute: int
    missing: frozenset[Segment] = frozenset()
    backups: tuple[BackupPoint, ...] = ()
    commits: tuple[WalPoint, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = []
        for timeline in range(1, len(self.forks) + 2):
            first, minute = self.begin(timeline)
            until = self.forks[timeline - 1][1] if timeline <= len(self.forks) else self.last_minute
            found += [
                WalPoint(
                    BEGIN + timedelta(minutes=minute + k), (first + k) * SIZE + SIZE // 2, timeline, 700 + first + k
                )
                for k in range(until - minute)
            ]
        object.__setattr__(self, "commits", tuple(found))

    def begin(self, timeline: int) -> Fork:
        return (0, 0) if timeline == 1 else self.forks[timeline - 2]

    @property
    def histories(self) -> dict[int, tuple[TimelineSwitch, ...]]:
        # A fork leaves at the segment's first byte: its commits are behind the switch.
        every = [TimelineSwitch(number, segment * SIZE, "") for number, (segment, _) in enumerate(self.forks, 1)]
        return {number + 1: tuple(every[:number]) for number in range(1, len(every) + 1)}

    @property
    def wal(self) -> ArchivedWal:
        segments = {Segment(point.timeline, point.lsn // SIZE, SIZE) for point in self.commits} - self.missing
        return ArchivedWal.of(contiguous_ranges(segments), (), self.histories, SIZE)

    def on(self, path: TimelinePath) -> list[WalPoint]:
        """The commits on a path, in the order of replay."""
        return sorted(
            (p for p in self.commits if path.segment(p.lsn // SIZE, SIZE).timeline == p.timeline), key=lambda p: p.lsn
        )

    def reached(self, span: Span) -> list[WalPoint]:
        numbers = range(span.first_number, span.last_number + 1)
        return [p for p in self.on(span.path) if p.lsn // SIZE in numbers and p.lsn >= span.backup.stop_lsn]

    def last_commit(self, span: Span, before_lsn: int | None = None) -> WalPoint | None:
        found = [p for p in self.reached(span) if before_lsn is None or p.lsn < before_lsn]
        return found[-1] if found else None

    def first_commit(self, span: Span, from_lsn: int) -> WalPoint | None:
        return next((p for p in self.reached(span) if p.lsn >= from_lsn), None)

    def last_record_lsn(self, span: Span) -> int:
        last = self.last_commit(span)
        return last.lsn if last is not None else span.backup.stop_lsn

    def find_name(self, name: str, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        return next((p for p in self.on(path) if name == f"p{p.xid}" and p.lsn >= from_lsn), None)

    def find_commit(self, xid: int, path: TimelinePath, from_lsn: int = 0) -> WalPoint | None:
        return next((p for p in self.on(path) if p.xid == xid and p.lsn >= from_lsn), None)


def backup(timeline: int, segment: int, minute: int, *, own_wal: bool = True) -> BackupPoint:
    """A backup that took from the beginning to a quarter of a segment."""
    stop = segment * SIZE + SIZE // 4
    label = f"B{timeline}-{segment}"
    at = BEGIN + timedelta(minutes=minute, seconds=-15)
    return BackupPoint(label, "basebackup", timeline, segment * SIZE, stop, at, (label,), own_wal)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Up to two forks, some segments missing, some backups."""
    first = draw(st.integers(4, 12))
    forks: list[Fork] = []
    if draw(st.booleans()):
        forks.append((draw(st.integers(2, first - 1)), first))
        if draw(st.booleans()):
            second = first + draw(st.integers(3, 8))
            forks.append((forks[0][0] + draw(st.integers(1, second - first - 1)), second))
    end = (forks[-1][1] if forks else 0) + draw(st.integers(3, 10))
    bare = World(tuple(forks), end)
    every = sorted({Segment(p.timeline, p.lsn // SIZE, SIZE) for p in bare.commits})
    missing = draw(st.sets(st.sampled_from(every), max_size=3))
    places = draw(
        st.lists(st.sampled_from(bare.commits), min_size=1, max_size=4, unique_by=lambda p: p.lsn + p.timeline)
    )
    own_wal = draw(st.booleans())
    points = tuple(
        backup(p.timeline, p.lsn // SIZE, int((p.at - BEGIN).total_seconds() // 60), own_wal=own_wal) for p in places
    )
    return World(tuple(forks), end, frozenset(missing), points)


PLAIN = World((), 12, backups=(backup(1, 2, 2), backup(1, 6, 6)))


def at_minute(minute: float, timeline: int | None = None) -> RecoveryTarget:
    """A target by time, in minutes after BEGIN."""
    return RecoveryTarget(TargetKind.TIME, at=BEGIN + timedelta(minutes=minute), timeline=timeline)


def plan(target: RecoveryTarget, world: World = PLAIN, backups: Sequence[BackupPoint] | None = None) -> RestorePlan:
    """Plan the way to a target in a world."""
    return plan_restore(target, world.backups if backups is None else backups, world.wal, world)
