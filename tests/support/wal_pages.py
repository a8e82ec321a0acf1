"""Segments whose pages are what a server writes: headers, filling, a switch record, zeros behind it."""

import struct

from lifeboat.wal.names import Segment
from lifeboat.wal.pages import crc32c
from tests.support.wal import SYSTEM

PAGE_BYTES = 8192
LONG_BYTES, SHORT_BYTES = 40, 24
MAGIC = 0xD118


def page_header(segment: Segment, offset: int, *, system: str = SYSTEM, remaining_bytes: int = 0) -> bytes:
    """XLogPageHeaderData, and at the segment's start XLogLongPageHeaderData."""
    flags = (0x0001 if remaining_bytes else 0) | (0x0002 if offset == 0 else 0)
    header = struct.pack("=HHIQI4x", MAGIC, flags, segment.timeline, segment.start_lsn + offset, remaining_bytes)
    return header + struct.pack("=QII", int(system), segment.size_bytes, PAGE_BYTES) if offset == 0 else header


def switch_record() -> bytes:
    """An XLogRecord without data: XLOG_SWITCH of RM_XLOG_ID."""
    head = struct.pack("=IIQBB2x", 24, 0, 0x1234, 0x40, 0)
    return head + struct.pack("=I", crc32c(head))


def paged_segment(segment: Segment, *, system: str = SYSTEM) -> bytearray:
    """A full segment whose records are no records: only for checks that look at pages."""
    content = bytearray()
    for offset in range(0, segment.size_bytes, PAGE_BYTES):
        header = page_header(segment, offset, system=system)
        content += header + b"\x5a" * (PAGE_BYTES - len(header))
    return content


def switched_segment(segment: Segment, used_bytes: int, *, remaining_bytes: int = 0) -> bytearray:
    """A segment that a switch ended: `used_bytes` of records (a multiple of 8) in front of the switch record.

    `remaining_bytes` of the switch record's 24 lie here where it began in the segment before (`used_bytes` is 0 then).
    """
    record = switch_record()
    stream = record[-remaining_bytes:] if remaining_bytes else b"\x5a" * used_bytes + record
    content = bytearray()
    position = 0
    while position < len(stream):
        offset = len(content)
        room = PAGE_BYTES - (LONG_BYTES if offset == 0 else SHORT_BYTES)
        in_record = position > used_bytes
        left = len(stream) - position if in_record else remaining_bytes if offset == 0 else 0
        content += page_header(segment, offset, remaining_bytes=left)
        content += stream[position : position + room].ljust(room, b"\0")
        position += room
    return content + bytes(segment.size_bytes - len(content))
