"""What is missing over timeline switches, against a model: every wanted segment of a path, one by one."""

from hypothesis import given
from hypothesis import strategies as st

from lifeboat.recovery.continuity import switch_gaps
from lifeboat.recovery.timelines import Stretch, TimelinePath
from lifeboat.wal.coverage import SegmentRange, contiguous_ranges, gaps_between
from lifeboat.wal.names import Segment

SIZE = 1 << 20


def path(*switches: int) -> TimelinePath:
    """Timelines 1, 2 and so on, each left at a position."""
    begins = (0, *switches)
    ends = (*switches, None)
    return TimelinePath(
        tuple(Stretch(number, begin, end) for number, (begin, end) in enumerate(zip(begins, ends, strict=True), 1))
    )


def segment(timeline: int, number: int) -> Segment:
    return Segment(timeline, number, SIZE)


def gaps(there: set[Segment], way: TimelinePath) -> list[SegmentRange]:
    return switch_gaps(contiguous_ranges(there), way, SIZE)


def test_a_restore_that_replayed_what_was_never_archived_leaves_a_gap() -> None:
    way = path(9 * SIZE + 1000)
    one, two = {segment(1, number) for number in range(3, 9)}, {segment(2, number) for number in range(9, 12)}
    assert gaps(one | two, way) == []
    assert gaps(one - {segment(1, 8)} | two, way) == [SegmentRange(segment(1, 8), segment(1, 8))]
    assert gaps(one | two - {segment(2, 9)}, way) == [SegmentRange(segment(2, 9), segment(2, 9))]
    # Nothing of the new timeline has come yet: what is on its way is not missing.
    assert gaps(one - {segment(1, 8)}, way) == []
    # WAL of the old timeline behind the switch is not on the way, and what was expired is not missing.
    assert gaps({*one, *two, segment(1, 20)}, way) == []
    assert gaps(two - {segment(2, 9)}, way) == []


def test_a_timeline_without_any_segment_of_its_own_is_missing_as_a_whole() -> None:
    way = path(5 * SIZE, 8 * SIZE + 5)
    there = {segment(1, 4), segment(3, 8)}
    assert gaps(there, way) == [SegmentRange(segment(2, 5), segment(2, 7))]
    # Two switches in one segment: the timeline between has none that is wanted.
    assert gaps({segment(1, 4), segment(3, 5)}, path(5 * SIZE + 10, 5 * SIZE + 20)) == []


switches = st.lists(st.integers(1, 20 * SIZE), max_size=3).map(lambda found: tuple(sorted(found)))


@given(switches, st.sets(st.tuples(st.integers(1, 4), st.integers(0, 22)), max_size=40))
def test_all_that_is_wanted_and_not_there_is_a_gap(left_at: tuple[int, ...], pairs: set[tuple[int, int]]) -> None:
    way = path(*left_at)
    there = {segment(*pair) for pair in pairs}
    # What lies off the way is for listings: gaps between such segments are theirs.
    there = {each for each in there if way.segment(each.number, SIZE) == each}
    ranges = contiguous_ranges(there)
    on_way = [each.number for each in there]
    wanted = {way.segment(number, SIZE) for number in range(min(on_way), max(on_way) + 1)} if on_way else set()
    found = [*gaps_between(ranges), *switch_gaps(ranges, way, SIZE)]
    told = {
        each
        for gap in found
        for each in (gap.first.following(step) for step in range(gap.count))
        if way.segment(each.number, SIZE) == each
    }
    assert told == wanted - there
