"""What the scrub remembers and what is due: every segment is read in time, and nothing twice."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.wal.coverage import contiguous_ranges
from lifeboat.wal.names import Segment
from lifeboat.wal.scrub_record import (
    FindingKind,
    ScrubFinding,
    ScrubRecord,
    ScrubRecordDamaged,
    Window,
    checked_ranges,
    due_windows,
    load_record,
    segments_named,
    store_record,
)

SIZE = 1 << 20
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
MONTH = timedelta(days=30)
numbers = st.tuples(st.integers(1, 2), st.integers(0, 15))
segment_sets = st.sets(numbers, max_size=12).map(lambda found: {Segment(*each, SIZE) for each in found})
read_days_ago = st.dictionaries(numbers, st.integers(0, 60), max_size=12).map(
    lambda found: {Segment(*each, SIZE): days for each, days in found.items()}
)


def plan(
    there: set[Segment], days_ago: dict[Segment, int], doubtful: set[Segment], window_segments: int = 4
) -> list[Window]:
    times = {segment: NOW - timedelta(days=days) for segment, days in days_ago.items()}
    return due_windows(
        contiguous_ranges(there), times, doubtful, now=NOW, max_age=MONTH, window_segments=window_segments
    )


@given(segment_sets, read_days_ago, segment_sets, st.integers(1, 6))
def test_what_is_due_is_read_once_and_nothing_else(
    there: set[Segment], days_ago: dict[Segment, int], doubtful: set[Segment], window_segments: int
) -> None:
    windows = plan(there, days_ago, doubtful, window_segments)
    read = [segment for window in windows for segment in window.segments]
    assert len(read) == len(set(read))
    assert set(read) == {each for each in there if each in doubtful or days_ago.get(each, 30) >= 30}
    for window in windows:
        assert 1 <= len(window.segments) <= window_segments
        assert list(window.segments) == [window.segments[0].following(step) for step in range(len(window.segments))]
        before = window.segments[0].number - 1
        lead = Segment(window.segments[0].timeline, before, SIZE) if before >= 0 else None
        assert window.lead == (lead if lead in there else None)


@given(segment_sets, read_days_ago, segment_sets)
def test_doubtful_comes_first_then_new_then_the_oldest(
    there: set[Segment], days_ago: dict[Segment, int], doubtful: set[Segment]
) -> None:
    def urgency(segment: Segment) -> int:
        return 0 if segment in doubtful else 2 if segment in days_ago else 1

    windows = plan(there, days_ago, doubtful)
    order = [urgency(segment) for window in windows for segment in window.segments]
    assert order == sorted(order)
    ages = [max(days_ago[each] for each in window.segments) for window in windows if urgency(window.segments[0]) == 2]
    assert ages == sorted(ages, reverse=True)


@given(read_days_ago)
def test_the_record_gives_back_what_it_was_given(days_ago: dict[Segment, int]) -> None:
    times = {segment: NOW - timedelta(days=days) for segment, days in days_ago.items()}
    record = ScrubRecord(system_identifier="7", segment_size_bytes=SIZE, checked=checked_ranges(times))
    again = ScrubRecord.model_validate_json(record.model_dump_json())
    assert again.checked_at() == times


def test_a_month_of_runs_takes_a_few_lines() -> None:
    times = {Segment(1, number, SIZE): NOW + timedelta(days=number // 1000) for number in range(30_000)}
    assert len(checked_ranges(times)) == 30


def test_only_segments_are_named_as_damaged() -> None:
    names = ["000000010000000000000003", "00000002.history", "000000010000000000000004.partial", "nonsense"]
    assert segments_named(names, SIZE) == {Segment(1, 3, SIZE)}


def test_the_record_lies_at_the_destination(tmp_path: Path) -> None:
    destination = FilesystemDestination("primary", tmp_path)
    finding = ScrubFinding(name="0" * 23 + "1", kind=FindingKind.ZEROED, reason="it holds nothing", found_at=NOW)
    record = ScrubRecord(system_identifier="7", segment_size_bytes=SIZE, findings=(finding,))
    assert load_record(destination, "studio/wal/scrub.json") is None
    store_record(destination, "studio/wal/scrub.json", record)
    assert load_record(destination, "studio/wal/scrub.json") == record
    (tmp_path / "studio/wal/scrub.json").write_text('{"format_version": 1')
    with pytest.raises(ScrubRecordDamaged, match="cannot understand"):
        load_record(destination, "studio/wal/scrub.json")
