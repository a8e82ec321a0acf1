"""Which archived WAL a preview's counts lack, by the index's positions."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.catalog.wal_values import IndexState
from lifeboat.operations.preview.doubts import unread_wal
from lifeboat.recovery.spans import BackupPoint, Span, SpanEnd
from lifeboat.recovery.timelines import Stretch, TimelinePath
from lifeboat.wal.coverage import ArchiveListing, contiguous_ranges
from lifeboat.wal.names import Segment

SIZE = 1 << 20
AT = datetime(2026, 11, 23, tzinfo=UTC)
SWITCH = 9 * SIZE + 500
PATH = TimelinePath((Stretch(1, 0, SWITCH), Stretch(2, SWITCH, None)))
BACKUP = BackupPoint("full", "basebackup", 1, 3 * SIZE, 4 * SIZE, AT, ("full",))
SPAN = Span(BACKUP, PATH, 4, 12, Segment(2, 13, SIZE), SpanEnd.ARCHIVE)
ONE = IndexState(SIZE, 9 * SIZE - 40, 9 * SIZE - 40, read_to_lsn=9 * SIZE, latest_at=AT)
TWO = IndexState(SIZE, 13 * SIZE - 40, 13 * SIZE - 40, read_to_lsn=13 * SIZE, began_at=AT, latest_at=AT)


def listing() -> ArchiveListing:
    segments = [Segment(1, number, SIZE) for number in range(2, 9)] + [
        Segment(2, number, SIZE) for number in range(9, 13)
    ]
    return ArchiveListing(Path("/archive"), "1", SIZE, (), contiguous_ranges(segments), (), (), (), ())


def doubts(one: IndexState | None = ONE, two: IndexState | None = TWO, span: Span = SPAN) -> list[str]:
    return unread_wal(span, listing(), {number: state for number, state in ((1, one), (2, two)) if state is not None})


def test_an_index_that_has_read_all_leaves_no_doubt() -> None:
    assert doubts() == []


def test_an_end_that_is_not_read_is_a_doubt() -> None:
    (told,) = doubts(two=replace(TWO, read_to_lsn=12 * SIZE))
    assert told.startswith("the index ends at 0/C00000 of timeline 2, and WAL goes on up to 0/D00000")
    # Never read as a whole: only the position is known.
    assert len(doubts(two=replace(TWO, read_to_lsn=None))) == 1


def test_an_earlier_timeline_has_to_be_read_up_to_where_it_was_left() -> None:
    assert "timeline 1" in doubts(one=replace(ONE, read_to_lsn=8 * SIZE))[0]
    # Behind the backup nothing of it counts.
    later = replace(SPAN, backup=replace(BACKUP, timeline=2, start_lsn=10 * SIZE, stop_lsn=11 * SIZE))
    assert doubts(one=replace(ONE, read_to_lsn=8 * SIZE), two=replace(TWO, began_at=None), span=later) == []


def test_a_timeline_that_was_indexed_without_its_past_is_a_doubt() -> None:
    assert "without timeline 1" in doubts(two=replace(TWO, began_at=None))[0]


def test_what_is_not_indexed_at_all_is_told_by_the_index() -> None:
    assert doubts(one=None, two=None) == []
