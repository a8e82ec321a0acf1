"""Whether a compressed file ends where its format says, told without decompressing it."""

import os
import struct
from collections.abc import Callable

_GZ_END_BYTES = 4
_BZ2_END, _BZ2_END_BYTES = 0x177245385090, 11
_LZ4_FLAGS_AT = 4
_LZ4_DICTIONARY, _LZ4_CHECKSUM, _LZ4_CONTENT_SIZE, _LZ4_BLOCK_CHECKSUMS = 0x01, 0x04, 0x08, 0x10
_ZST_FLAGS_AT, _ZST_CHECKSUM = 4, 0x04
_ZST_END = b"\x01\x00\x00"
_READ_AT_ONCE_BYTES = 1024 * 1024
_DISK_BLOCK_BYTES = 512

Peek = Callable[[int, int], bytes]
"""Bytes of a file: from a position on, so many."""


def is_whole(descriptor: int, suffix: str, stored_bytes: int, plain_bytes: int, *, thorough: bool = False) -> bool:
    """Whether the file ends where a file of that kind (gz, bz2, lz4, zst) does. Of gz its plain size is looked at too.

    The file's begin was found to be right. Walking through all blocks of lz4 and zst takes 20 times as long as looking
    at the end, and is done where that is in doubt, or if `thorough`. Raises OSError.
    """

    def peek(at: int, count: int) -> bytes:
        return os.pread(descriptor, count, max(at, 0))

    if suffix == "gz":
        # ISIZE of RFC 1952
        return peek(stored_bytes - _GZ_END_BYTES, _GZ_END_BYTES) == struct.pack("<I", plain_bytes)
    if suffix == "bz2":
        return _has_bz2_end(peek(stored_bytes - _BZ2_END_BYTES, _BZ2_END_BYTES))
    seems, walk = (_lz4_seems_whole, _lz4_is_whole) if suffix == "lz4" else (_zst_seems_whole, _zst_is_whole)
    return (not thorough and seems(peek, stored_bytes)) or walk(_at_hand(peek, stored_bytes), stored_bytes)


def _has_bz2_end(tail: bytes) -> bool:
    # Its end mark and checksum begin at any bit; up to seven bits fill the last byte.
    bits = int.from_bytes(tail, "big") >> 32
    return any((bits >> padding) & (1 << 48) - 1 == _BZ2_END for padding in range(8))


def _lz4_seems_whole(peek: Peek, stored_bytes: int) -> bool:
    # A frame ends in a block of no bytes, four zeros, and a checksum, as pgBackRest writes it. One in some hundred cuts
    # leaves four zeros there too; but cuts are mostly where a disk's block ends, and one within the end leaves five.
    *mark, after = peek(stored_bytes - 8, 5)
    return mark == [0] * 4 and after != 0 and stored_bytes % _DISK_BLOCK_BYTES != 0


def _lz4_is_whole(peek: Peek, stored_bytes: int) -> bool:
    flags = peek(_LZ4_FLAGS_AT, 1)[0] if stored_bytes > _LZ4_FLAGS_AT else 0
    at = 7 + (8 if flags & _LZ4_CONTENT_SIZE else 0) + (4 if flags & _LZ4_DICTIONARY else 0)
    while at + 4 <= stored_bytes:
        size_bytes = int.from_bytes(peek(at, 4), "little") & 0x7FFFFFFF
        if size_bytes == 0:
            return at + 4 + (4 if flags & _LZ4_CHECKSUM else 0) == stored_bytes
        at += 4 + size_bytes + (4 if flags & _LZ4_BLOCK_CHECKSUMS else 0)
    return False


def _zst_seems_whole(peek: Peek, stored_bytes: int) -> bool:
    # pgBackRest ends a frame with an empty block.
    return peek(stored_bytes - len(_ZST_END), len(_ZST_END)) == _ZST_END


def _zst_is_whole(peek: Peek, stored_bytes: int) -> bool:
    # RFC 8878, 3.1.1
    flags = peek(_ZST_FLAGS_AT, 1)[0] if stored_bytes > _ZST_FLAGS_AT else 0
    single = flags >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
    while at + 3 <= stored_bytes:
        header = int.from_bytes(peek(at, 3), "little")
        if not header:
            # Nobody writes an empty block that is not the last: zeros, as a crash may leave them.
            return False
        # A block of type 1 is one byte, repeated.
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
        if header & 1:
            return at + (4 if flags & _ZST_CHECKSUM else 0) == stored_bytes
    return False


def _at_hand(peek: Peek, stored_bytes: int) -> Peek:
    """The same of a small file, which is read once."""
    if stored_bytes > _READ_AT_ONCE_BYTES:
        return peek
    content = peek(0, stored_bytes)
    return lambda at, count: content[at : at + count]
