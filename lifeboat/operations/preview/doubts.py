"""Why a quick preview's counts may be wrong: a way that the server has left, and archived WAL that was not read."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

from lifeboat.catalog.wal_values import IndexState
from lifeboat.operations.restore.planning import RecoveryMaterial
from lifeboat.recovery.spans import Span
from lifeboat.recovery.timelines import Stretch, current_timeline
from lifeboat.wal.coverage import ArchiveListing
from lifeboat.wal.names import format_lsn


def other_timeline(timeline: int, material: RecoveryMaterial) -> list[str]:
    """That a target on `timeline` leaves the way that the server is on: the index counts along one way only."""
    wal, begun = material.wal, material.listing.history_timelines if material.listing is not None else ()
    current = current_timeline(wal.histories, {*wal.timelines, *begun, *(each.timeline for each in material.points)})
    if timeline == current:
        return []
    return [
        f"the server is on timeline {current}, the target on timeline {timeline}: what was committed on the way to "
        f"timeline {current} is not counted, and rows that come back count as changed since; `--deep` compares both"
    ]


def unread_wal(span: Span, listing: ArchiveListing, states: Mapping[int, IndexState]) -> list[str]:
    """What of the WAL behind a backup, along its path, the index had not read when it had these states.

    Whether anything was committed in it is not known: WAL that holds no commit counts too. A timeline without a state
    is left to whoever asks the index for it.
    """
    size_bytes = listing.segment_size_bytes
    stretches = [each for each in span.path.stretches if each.timeline >= span.backup.timeline]
    doubts = [*_not_continued(stretches, states)]
    for stretch in stretches:
        state = states.get(stretch.timeline)
        if state is None:
            continue
        if stretch.end_lsn is not None:
            # The segment of a switch is repeated at the beginning of the next timeline, and read there.
            end_lsn = stretch.end_lsn // size_bytes * size_bytes
        else:
            own = [item.last.end_lsn for item in listing.ranges if item.timeline == stretch.timeline]
            end_lsn = max(own, default=0)
        read_to_lsn = state.read_to_lsn if state.read_to_lsn is not None else state.next_lsn
        if read_to_lsn < end_lsn:
            doubts.append(
                f"the index ends at {format_lsn(read_to_lsn)} of timeline {stretch.timeline}, and WAL goes on up to "
                f"{format_lsn(end_lsn)}: what was committed there is not counted"
            )
    return doubts


def _not_continued(stretches: list[Stretch], states: Mapping[int, IndexState]) -> Iterator[str]:
    for older, newer in pairwise(stretches):
        state = states.get(newer.timeline)
        # It began afresh where nothing could be taken over: then it does not know that it has a past.
        if state is not None and state.began_at is None:
            yield (
                f"timeline {newer.timeline} was indexed without timeline {older.timeline}, on which it goes on: what "
                "was committed there is not counted"
            )
