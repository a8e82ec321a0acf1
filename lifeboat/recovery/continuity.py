"""What is missing where WAL goes over from one timeline to the next: gaps between the ranges of one are in listings."""

from collections.abc import Collection

from lifeboat.recovery.timelines import TimelinePath
from lifeboat.wal.coverage import SegmentRange
from lifeboat.wal.names import Segment


def switch_gaps(ranges: Collection[SegmentRange], path: TimelinePath, size_bytes: int) -> list[SegmentRange]:
    """The segments at the ends and beginnings of a path's timelines that an archive lacks, in order.

    Only between segments that are there: what was expired before the first, and what has not come behind the last,
    is not missing. The segment of a switch is needed on the newer timeline, which repeats what came before.
    """
    found: list[SegmentRange] = []
    wanted: list[SegmentRange] = []  # missing if anything follows
    seen = False
    for stretch in path.stretches:
        first_number = stretch.begin_lsn // size_bytes
        last_number = stretch.end_lsn // size_bytes - 1 if stretch.end_lsn is not None else None
        if last_number is not None and last_number < first_number:
            continue  # one switch followed another in the same segment

        def missing(first: int, last: int, timeline: int = stretch.timeline) -> SegmentRange:
            return SegmentRange(Segment(timeline, first, size_bytes), Segment(timeline, last, size_bytes))

        own = [item for item in ranges if item.timeline == stretch.timeline]
        if last_number is not None:
            own = [item for item in own if item.first.number <= last_number]
        if own:
            found += wanted
            wanted = []
            begins, ends = min(item.first.number for item in own), max(item.last.number for item in own)
            if seen and begins > first_number:
                found.append(missing(first_number, begins - 1))
            seen = True
            if last_number is not None and ends < last_number:
                wanted.append(missing(ends + 1, last_number))
        elif seen and last_number is not None:
            wanted.append(missing(first_number, last_number))
    return found
