"""What is inside one segment, page by page: pure, on its plain bytes.

Formats: XLogPageHeaderData and XLogLongPageHeaderData (access/xlog_internal.h), XLogRecord (access/xlogrecord.h). The
rules are those of XLogReaderValidatePageHeader (access/transam/xlogreader.c), and one more: pages of zeros are only
right behind a switch record, which CopyXLogRecordToWAL (access/transam/xlog.c) lets them follow to the segment's end.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from mmap import mmap

from lifeboat.wal.names import Segment

# XLOG_PAGE_MAGIC of each major version that Lifeboat supports.
MAJOR_BY_MAGIC = {0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
_SHORT = struct.Struct("=HHIQI4x")
_LONG = struct.Struct("=HHIQI4xQII")
_FIRST_IS_CONTINUED, _LONG_HEADER, _ALL_FLAGS = 0x0001, 0x0002, 0x000F
_SMALLEST_PAGE_BYTES, _LARGEST_PAGE_BYTES = 1 << 10, 1 << 16  # --with-wal-blocksize
_RECORD = struct.Struct("=IIQBB2xI")
_ALIGNMENT_BYTES = 8
_SWITCH, _INFO_BITS, _XLOG_MANAGER = 0x40, 0xF0, 0
_CRC32C_POLYNOMIAL = 0x82F63B78
_ZEROS = bytes(1 << 20)


class PageFaultKind(StrEnum):
    """What a segment's pages can have wrong."""

    ZEROED = "zeroed"
    FOREIGN = "foreign"
    PAGE = "page"


@dataclass(frozen=True)
class PageFault:
    """The first thing wrong with a segment, at a position in WAL."""

    kind: PageFaultKind
    lsn: int
    reason: str


@dataclass(frozen=True)
class SegmentPages:
    """What the pages of a segment show: the first fault, and which version of PostgreSQL wrote them."""

    fault: PageFault | None = None
    magic: int = 0


@dataclass(frozen=True)
class FirstRecord:
    """The first record that begins in a segment; `overhang_bytes` of it lie in the segments behind."""

    length_bytes: int
    overhang_bytes: int


def check_pages(
    content: bytes | mmap, segment: Segment, system_identifier: str, *, magic: int | None = None
) -> SegmentPages:
    """Check every page header of a segment's plain text; without `magic`, that of any supported version is right."""
    if len(content) != segment.size_bytes:
        return SegmentPages(
            PageFault(PageFaultKind.PAGE, segment.start_lsn, f"{len(content)} bytes, not {segment.size_bytes}")
        )
    found_magic, _, _, _, _, system, size_bytes, page_bytes = _LONG.unpack_from(content)
    fault = _first_page_fault(content, segment, (system, system_identifier), magic)
    if fault is None and (size_bytes != segment.size_bytes or not _is_page_size(page_bytes)):
        reason = f"it says segments of {size_bytes} bytes with pages of {page_bytes}, not of {segment.size_bytes} bytes"
        fault = PageFault(PageFaultKind.PAGE, segment.start_lsn, reason)
    if fault is None:
        fault = _other_pages_fault(content, segment, found_magic, page_bytes)
    return SegmentPages(fault) if fault is not None else SegmentPages(None, found_magic)


def continued_bytes(content: bytes | mmap) -> int:
    """How much of a record that began before a segment is still to come at its first page."""
    return int(_LONG.unpack_from(content)[4])


def record_room_bytes(content: bytes | mmap) -> int:
    """How many bytes of records fit into a segment, by its first page."""
    *_, size_bytes, page_bytes = _LONG.unpack_from(content)
    return int(size_bytes - _LONG.size - (size_bytes // page_bytes - 1) * _SHORT.size)


def first_record(content: bytes | mmap) -> FirstRecord | None:
    """The first record that begins in a segment whose pages are sound; None inside one that is longer than it."""
    page_bytes = int(_LONG.unpack_from(content)[-1])
    # In front of the record lies, besides page headers, the rest of another one, padded to the alignment.
    before = -(-continued_bytes(content) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    room = record_room_bytes(content)
    if before >= room:
        return None
    offset = _LONG.size + before
    if before >= page_bytes - _LONG.size:
        pages, rest = divmod(before - (page_bytes - _LONG.size), page_bytes - _SHORT.size)
        offset = (pages + 1) * page_bytes + _SHORT.size + rest
    (length,) = struct.unpack_from("=I", content, offset)
    return FirstRecord(int(length), max(0, length - (room - before)))


def _is_zero(content: bytes | mmap, offset: int, count: int) -> bool:
    found = content[offset : offset + count]
    return found == (_ZEROS if len(found) == len(_ZEROS) else bytes(len(found)))


def _is_zero_from(content: bytes | mmap, offset: int) -> bool:
    return all(_is_zero(content, start, len(_ZEROS)) for start in range(offset, len(content), len(_ZEROS)))


def _is_page_size(size_bytes: int) -> bool:
    return _SMALLEST_PAGE_BYTES <= size_bytes <= _LARGEST_PAGE_BYTES and size_bytes & (size_bytes - 1) == 0


def _first_page_fault(
    content: bytes | mmap, segment: Segment, systems: tuple[int, str], wanted_magic: int | None
) -> PageFault | None:
    found, wanted = systems
    if _is_zero(content, 0, _SMALLEST_PAGE_BYTES):
        whole = _is_zero_from(content, 0)
        what = "it holds nothing but zeros" if whole else "it begins with zeros"
        return PageFault(PageFaultKind.ZEROED, segment.start_lsn, what)
    magic = int(_LONG.unpack_from(content)[0])
    if magic not in ({wanted_magic} if wanted_magic is not None else MAJOR_BY_MAGIC):
        return PageFault(PageFaultKind.PAGE, segment.start_lsn, _wrong_magic(magic, wanted_magic))
    if not int(_LONG.unpack_from(content)[1]) & _LONG_HEADER:
        return PageFault(PageFaultKind.PAGE, segment.start_lsn, "its first page lacks the long header")
    if str(found) != wanted:
        return PageFault(PageFaultKind.FOREIGN, segment.start_lsn, f"it is of system {found}, not of {wanted}")
    return _header_fault(content, 0, segment, magic, 0)


def _other_pages_fault(content: bytes | mmap, segment: Segment, magic: int, page_bytes: int) -> PageFault | None:
    timeline = int(_LONG.unpack_from(content)[2])
    for offset in range(page_bytes, segment.size_bytes, page_bytes):
        if content[offset : offset + 2] == b"\0\0" and _is_zero(content, offset, page_bytes):
            return _zeros_fault(content, offset, segment, page_bytes)
        if fault := _header_fault(content, offset, segment, magic, timeline):
            return fault
        timeline = int(_SHORT.unpack_from(content, offset)[2])
    return None


def _header_fault(
    content: bytes | mmap, offset: int, segment: Segment, wanted_magic: int, oldest_timeline: int
) -> PageFault | None:
    magic, flags, timeline, address, remaining_bytes = _SHORT.unpack_from(content, offset)
    lsn = segment.start_lsn + offset
    reason = None
    if magic != wanted_magic:
        reason = _wrong_magic(magic, wanted_magic)
    elif address != lsn:
        reason = f"its address is {address:X}, not {lsn:X}"
    # After a switch of timelines the first pages are a copy of the old timeline's: lower is right, never higher.
    elif not max(oldest_timeline, 1) <= timeline <= segment.timeline:
        reason = f"its timeline is {timeline}, in a segment of timeline {segment.timeline}"
    elif flags & ~_ALL_FLAGS or bool(flags & _LONG_HEADER) != (offset == 0):
        reason = f"its flags are {flags:#06x}"
    elif bool(flags & _FIRST_IS_CONTINUED) != (remaining_bytes > 0):
        reason = f"its flags are {flags:#06x}, and {remaining_bytes} bytes of a record are said to go on"
    return PageFault(PageFaultKind.PAGE, lsn, f"page at offset {offset}: {reason}") if reason else None


def _wrong_magic(magic: int, wanted: int | None) -> str:
    told = f"not {wanted:04X}" if wanted is not None else "of no supported PostgreSQL version"
    return f"its magic number is {magic:04X}, {told}"


def _zeros_fault(content: bytes | mmap, offset: int, segment: Segment, page_bytes: int) -> PageFault | None:
    def fault(what: str) -> PageFault:
        return PageFault(PageFaultKind.ZEROED, segment.start_lsn + offset, f"page at offset {offset}: {what}")

    if not _is_zero_from(content, offset):
        return fault("it is zeroed, and others behind it are not")
    if not _follows_switch(content, offset, page_bytes):
        return fault("zeros from here to the end, without a switch record in front of them")
    return None


def _follows_switch(content: bytes | mmap, end: int, page_bytes: int) -> bool:
    """Whether the last record before the page at `end` is a switch, by its fields and its CRC-32C."""
    page = end - page_bytes
    used = page + len(content[page:end].rstrip(b"\0"))
    # The record ends aligned, and xl_info in its last eight bytes is not zero.
    behind = -(-used // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    here = page + (_LONG.size if page == 0 else _SHORT.size)
    record = content[max(here, behind - _RECORD.size) : behind]
    if missing := _RECORD.size - len(record):
        if page == 0:
            # It began in the segment before: only its end can be seen here, and how much of it the header announces.
            announced = int(_LONG.unpack_from(content)[4])
            return announced == len(record) > 0 and record[-8] & _INFO_BITS == _SWITCH and record[-7] == _XLOG_MANAGER
        record = content[page - missing : page] + record
    length, _, _, info, manager, checksum = _RECORD.unpack(record)
    is_switch = (length, info & _INFO_BITS, manager) == (_RECORD.size, _SWITCH, _XLOG_MANAGER)
    return is_switch and crc32c(record[:-4]) == checksum


def crc32c(data: bytes) -> int:
    """The checksum of WAL records (Castagnoli); a plain loop, for short data only."""
    table, value = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@cache
def _crc32c_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901 - the usual form
        table.append(value)
    return tuple(table)
