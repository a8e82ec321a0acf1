"""What page headers tell of a segment: damage, zeros, foreign WAL; and what a server writes is accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.wal.names import Segment
from lifeboat.wal.pages import (
    FirstRecord,
    PageFaultKind,
    SegmentPages,
    check_pages,
    continued_bytes,
    crc32c,
    first_record,
    record_room_bytes,
)
from tests.support.wal import SEGMENT_BYTES, SYSTEM
from tests.support.wal_pages import LONG_BYTES, MAGIC, PAGE_BYTES, SHORT_BYTES, paged_segment, switched_segment

SEGMENT = Segment(3, 7, SEGMENT_BYTES)
FULL = bytes(paged_segment(SEGMENT))
PAGES = SEGMENT_BYTES // PAGE_BYTES
PAGE_STARTS = range(0, SEGMENT_BYTES, PAGE_BYTES)
ROOM = SEGMENT_BYTES - LONG_BYTES - (PAGES - 1) * SHORT_BYTES
CHECKED_BYTES = 20  # of a page header; four of padding follow in memory


def check(content: bytes | bytearray, *, magic: int | None = None) -> SegmentPages:
    return check_pages(bytes(content), SEGMENT, SYSTEM, magic=magic)


def reason(content: bytes | bytearray, **options: int) -> str:
    fault = check(content, **options).fault
    assert fault is not None
    return f"{fault.kind}: {fault.reason}"


def test_a_full_segment_is_sound() -> None:
    assert check(FULL) == SegmentPages(None, MAGIC)
    assert check(FULL, magic=MAGIC).fault is None


def test_the_checksum_of_records_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C in RFC 3720, B.4


@given(st.integers(0, PAGES - 1), st.integers(0, CHECKED_BYTES - 1), st.integers(0, 7))
def test_flipped_bits_of_page_headers_are_found(page: int, byte: int, bit: int) -> None:
    content = bytearray(FULL)
    content[page * PAGE_BYTES + byte] ^= 1 << bit
    fault = check(content).fault
    if fault is None:
        # A segment may begin with pages of an older timeline, and two flags are free to be set.
        older = page == 0 and byte == 4 and content[4] in {1, 2}
        assert older or (byte == 2 and bit in {2, 3})
    else:
        assert SEGMENT.start_lsn <= fault.lsn < SEGMENT.end_lsn


@given(st.integers(24, LONG_BYTES - 1), st.integers(0, 7))
def test_every_flipped_bit_of_the_long_header_is_found(byte: int, bit: int) -> None:
    content = bytearray(FULL)
    content[byte] ^= 1 << bit
    fault = check(content).fault
    assert fault is not None
    assert (fault.kind is PageFaultKind.FOREIGN) == (byte < 32)


@given(st.integers(0, PAGES - 1), st.integers(1, PAGES))
def test_zeroed_pages_are_found_wherever_they_are(first: int, count: int) -> None:
    content = bytearray(FULL)
    end = min(first + count, PAGES) * PAGE_BYTES
    content[first * PAGE_BYTES : end] = bytes(end - first * PAGE_BYTES)
    fault = check(content).fault
    assert fault is not None
    assert (fault.kind, fault.lsn) == (PageFaultKind.ZEROED, SEGMENT.start_lsn + first * PAGE_BYTES)


@given(st.integers(0, 3 * PAGE_BYTES // 8) | st.just((SEGMENT_BYTES - 2 * PAGE_BYTES) // 8))
def test_zeros_behind_a_switch_are_what_a_server_writes(eighths: int) -> None:
    assert check(switched_segment(SEGMENT, eighths * 8)).fault is None


@given(st.integers(0, 3 * PAGE_BYTES // 8), st.integers(0, 19), st.integers(0, 7))
def test_a_damaged_switch_record_excuses_no_zeros(eighths: int, byte: int, bit: int) -> None:
    content = switched_segment(SEGMENT, eighths * 8)
    start = (len(content[: 5 * PAGE_BYTES].rstrip(b"\0")) + 7 & ~7) - 24
    # Where headers lie in between, the record is in two pieces: only whole ones are damaged here.
    if start // PAGE_BYTES == (start + 23) // PAGE_BYTES and start % PAGE_BYTES >= LONG_BYTES:
        content[start + byte] ^= 1 << bit
        assert "zeroed" in reason(content)


@pytest.mark.parametrize("here", [8, 16])
def test_a_switch_that_began_in_the_segment_before(here: int) -> None:
    assert check(switched_segment(SEGMENT, 0, remaining_bytes=here)).fault is None


def test_what_is_not_a_segment_at_all() -> None:
    assert reason(bytes(SEGMENT_BYTES)) == "zeroed: it holds nothing but zeros"
    assert reason(bytes(PAGE_BYTES) + FULL[PAGE_BYTES:]) == "zeroed: it begins with zeros"
    assert "bytes, not" in reason(FULL[:-1])
    assert "no supported PostgreSQL version" in reason(b"\x5a" * SEGMENT_BYTES)
    assert "not D110" in reason(FULL, magic=0xD110)


def test_a_segment_of_another_cluster() -> None:
    fault = check(paged_segment(SEGMENT, system="6000000000000000001")).fault
    assert fault is not None
    assert fault.kind is PageFaultKind.FOREIGN
    assert fault.reason == f"it is of system 6000000000000000001, not of {SYSTEM}"


def test_another_segments_content_is_told_by_its_addresses() -> None:
    assert "its address is 800000, not 700000" in reason(paged_segment(SEGMENT.following()))


def test_a_timeline_begins_with_pages_of_the_one_before() -> None:
    content = bytearray(FULL)
    content[4] = 2
    assert check(content).fault is None
    content = bytearray(FULL)
    content[5 * PAGE_BYTES + 4] = 2
    assert "its timeline is 2" in reason(content)
    assert "its timeline is 4" in reason(paged_segment(Segment(4, 7, SEGMENT_BYTES)))


@given(st.integers(0, 3 * PAGE_BYTES) | st.integers(ROOM - 64, 3 * ROOM), st.integers(24, 2 * ROOM))
def test_the_first_record_of_a_segment(continued: int, length: int) -> None:
    stream = b"".join(FULL[at + (SHORT_BYTES if at else LONG_BYTES) : at + PAGE_BYTES] for at in PAGE_STARTS)
    before = (continued + 7) // 8 * 8
    record = length.to_bytes(4, "little")
    stream = stream[:before] + record + stream[before + 4 :]
    headers = [FULL[at : at + (SHORT_BYTES if at else LONG_BYTES)] for at in PAGE_STARTS]
    headers[0] = headers[0][:16] + continued.to_bytes(4, "little") + headers[0][20:]
    content, position = b"", 0
    for header in headers:
        room = PAGE_BYTES - len(header)
        content += header + stream[position : position + room]
        position += room
    assert (continued_bytes(content), record_room_bytes(content)) == (continued, ROOM)
    expected = FirstRecord(length, max(0, length - (ROOM - before))) if before < ROOM else None
    assert first_record(content) == expected
