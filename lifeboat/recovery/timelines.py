"""The way that WAL takes over timelines: pure, from the history files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lifeboat.errors import PermanentError
from lifeboat.wal.names import Segment, TimelineSwitch, history_name

Histories = Mapping[int, tuple[TimelineSwitch, ...]]


class TimelineUnknown(PermanentError):
    """The archive knows nothing of a timeline."""


@dataclass(frozen=True)
class Stretch:
    """The part of a path that lies on one timeline: positions from `begin_lsn` up to, not with, `end_lsn`."""

    timeline: int
    begin_lsn: int
    end_lsn: int | None


@dataclass(frozen=True)
class TimelinePath:
    """All of WAL that leads to one timeline, oldest stretch first."""

    stretches: tuple[Stretch, ...]

    @property
    def timeline(self) -> int:
        """The timeline that it leads to."""
        return self.stretches[-1].timeline

    def stretch(self, timeline: int) -> Stretch | None:
        """The part on that timeline, if it is on the way."""
        return next((item for item in self.stretches if item.timeline == timeline), None)

    def switches_behind(self, lsn: int) -> tuple[int, ...]:
        """Where the path goes over to a newer timeline at `lsn` or later, in order."""
        return tuple(item.begin_lsn for item in self.stretches[1:] if item.begin_lsn >= lsn)

    def leaves(self, other: "TimelinePath") -> int:
        """The position from which it goes another way than `other` does; 0 where they have nothing in common."""
        lsn = 0
        for mine, theirs in zip(self.stretches, other.stretches, strict=False):
            if mine.timeline != theirs.timeline:
                break
            ends = [item.end_lsn for item in (mine, theirs) if item.end_lsn is not None]
            lsn = min(ends, default=mine.begin_lsn)
            if mine.end_lsn != theirs.end_lsn:
                break
        return lsn

    def holds(self, timeline: int, lsn: int) -> bool:
        """Whether a backup that ended there can follow this path: what ends where a timeline ends still can."""
        found = self.stretch(timeline)
        return found is not None and found.begin_lsn <= lsn and (found.end_lsn is None or lsn <= found.end_lsn)

    def segment(self, number: int, size_bytes: int) -> Segment:
        """The segment of that number: a timeline's first segment repeats what came before the switch.

        PostgreSQL prefers the newest timeline whose first segment is not later (XLogFileReadAnyTLI).
        """
        for item in reversed(self.stretches):
            if item.begin_lsn // size_bytes <= number:
                return Segment(item.timeline, number, size_bytes)
        return Segment(self.stretches[0].timeline, number, size_bytes)


def path_to(timeline: int, histories: Histories, known: Collection[int]) -> TimelinePath:
    """The path to a timeline; raises TimelineUnknown when the archive lacks it or its history.

    `known` are the timelines of archived segments and of backups. Timeline 1 has no history file.
    """
    if timeline not in known and timeline not in histories:
        listed = ", ".join(str(each) for each in sorted({*known, *histories})) or "none"
        raise TimelineUnknown(f"there is no timeline {timeline}", hint=f"The archive knows these timelines: {listed}.")
    switches = histories.get(timeline)
    if switches is None and timeline > 1:
        raise TimelineUnknown(
            f"the archive has no {history_name(timeline)}, so nothing says where timeline {timeline} began",
            hint="Copy that file from the server's pg_wal into the archive with `lifeboat wal push`.",
        )
    stretches: list[Stretch] = []
    begin = 0
    for switch in switches or ():
        stretches.append(Stretch(switch.timeline, begin, switch.switch_lsn))
        begin = switch.switch_lsn
    return TimelinePath((*stretches, Stretch(timeline, begin, None)))


def current_timeline(histories: Histories, known: Collection[int]) -> int:
    """The timeline that the cluster is on: a promotion always takes a number above all that the archive has."""
    return max({*known, *histories}, default=1)
