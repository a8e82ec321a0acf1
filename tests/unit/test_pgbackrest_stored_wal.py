"""What the ends of a stored WAL segment say against it, and what reading it says."""

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.engines.pgbackrest.stored_wal import fault_of, unpack
from lifeboat.wal.archive import WalDamaged
from lifeboat.wal.coverage import ArchivedFile
from lifeboat.wal.names import parse_archive_name

MEBIBYTE = 1 << 20
NAME = "000000010000000000000003"
PLAIN = bytes(range(256)) * (MEBIBYTE // 256)
PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": ("", bytes),
    "gz": (".gz", gzip.compress),
    "bz2": (".bz2", bz2.compress),
}
LZ4_BLOCK, ZST_BLOCK = 64 * 1024, 128 * 1024


def lz4_frame(content: bytes, *, sizes: bool) -> bytes:
    """A frame of stored blocks, with a checksum at its end as pgBackRest writes it, or with sizes and without that."""
    frame = b"\x04\x22\x4d\x18" + (b"\x58\x40" + len(content).to_bytes(8, "little") if sizes else b"\x44\x40") + b"\x5e"
    for at in range(0, len(content), LZ4_BLOCK):
        block = content[at : at + LZ4_BLOCK]
        frame += (len(block) | 1 << 31).to_bytes(4, "little") + block + (b"\x01sum" if sizes else b"")
    return frame + bytes(4) + (b"" if sizes else b"\x01sum")


def zst_frame(content: bytes, *, ends_empty: bool) -> bytes:
    """A frame of stored blocks; with an empty one at its end as pgBackRest writes it, or with a checksum."""
    starts = range(0, len(content), ZST_BLOCK)
    frame = b"\x28\xb5\x2f\xfd" + (b"\x00\x58" if ends_empty else b"\x04\x58")
    for at in starts:
        block = content[at : at + ZST_BLOCK]
        last = not ends_empty and at == starts[-1]
        frame += (len(block) << 3 | last).to_bytes(3, "little") + block
    return frame + (b"\x01\x00\x00" if ends_empty else b"\x01sum")


FRAMES = {
    "gz": (".gz", gzip.compress(PLAIN)),
    "bz2": (".bz2", bz2.compress(PLAIN)),
    "lz4": (".lz4", lz4_frame(PLAIN, sizes=False)),
    "lz4 with sizes": (".lz4", lz4_frame(PLAIN, sizes=True)),
    "lz4 of zeros": (".lz4", lz4_frame(bytes(MEBIBYTE), sizes=False)),
    "zst": (".zst", zst_frame(PLAIN, ends_empty=True)),
    "zst with a checksum": (".zst", zst_frame(PLAIN, ends_empty=False)),
    "zst of zeros": (".zst", zst_frame(bytes(MEBIBYTE), ends_empty=True)),
}


def stored(folder: Path, content: bytes, suffix: str, name: str = NAME) -> ArchivedFile:
    """A file of the repository with that content."""
    path = folder / f"{name}-{'0' * 40}{suffix}"
    path.write_bytes(content)
    return ArchivedFile(parse_archive_name(name, MEBIBYTE), path, len(content), "")


@pytest.mark.parametrize("compression", PACKED)
def test_a_whole_one_has_no_fault_and_comes_back(tmp_path: Path, compression: str) -> None:
    suffix, pack = PACKED[compression]
    item = stored(tmp_path, pack(PLAIN), suffix)
    assert fault_of(item) is None
    unpack(item.path, tmp_path / "plain", item.path.name)
    assert (tmp_path / "plain").read_bytes() == PLAIN


@pytest.mark.parametrize(
    ("content", "suffix", "said"),
    [
        (b"", ".gz", "empty"),
        (PLAIN[:-1], "", "cut short"),
        (gzip.compress(PLAIN)[:-3], ".gz", "cut short"),
        (gzip.compress(PLAIN[:-1]), ".gz", "not a whole segment"),
        (b"\x1f\x8b", ".gz", "cut short"),
        (PLAIN, ".gz", "not a gz file"),
        (b"x", ".zst", "not a zst file"),
        (b"Salted__12345678" + bytes(33), ".gz", "cut short"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, suffix: str, said: str) -> None:
    assert said in str(fault_of(stored(tmp_path, content, suffix)))


@pytest.mark.parametrize("kind", FRAMES)
def test_a_cut_is_seen_wherever_it_is(tmp_path: Path, kind: str) -> None:
    suffix, content = FRAMES[kind]
    for thorough in (False, True):
        assert fault_of(stored(tmp_path, content, suffix), thorough=thorough) is None
    cuts = {*range(4, min(len(content), 40)), *range(max(len(content) - 40, 4), len(content))}
    for cut in sorted({*cuts, *range(4096, len(content), 65536)}):
        assert fault_of(stored(tmp_path, content[:cut], suffix), thorough=True) is not None, cut
        if cut % 512 == 0 or cut > len(content) - 8:
            assert fault_of(stored(tmp_path, content[:cut], suffix)) is not None, cut
    # As a crash leaves a file whose size was written, and whose last blocks were not.
    half = len(content) // 2
    assert fault_of(stored(tmp_path, content[:half].ljust(len(content), b"\0"), suffix)) is not None


@given(content=st.binary(max_size=300))
def test_the_end_of_bz2_is_found_at_every_bit(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        packed = bz2.compress(content)
        assert fault_of(stored(Path(folder), packed, ".bz2")) is None
        assert fault_of(stored(Path(folder), packed[:-1], ".bz2")) is not None


def test_what_cannot_be_told_is_no_fault(tmp_path: Path) -> None:
    assert fault_of(stored(tmp_path, b"Salted__12345678" + bytes(32), ".gz")) is None
    label = f"{NAME}.00000028.backup"
    assert fault_of(stored(tmp_path, gzip.compress(b"START WAL LOCATION"), ".gz", label)) is None
    absent = stored(tmp_path, PLAIN, "")
    absent.path.unlink()
    assert fault_of(absent) is None


@given(at=st.integers(0, len(gzip.compress(PLAIN[:4096], mtime=0)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_damage_or_changes_nothing(at: int, bit: int) -> None:
    packed = bytearray(gzip.compress(PLAIN[:4096], mtime=0))
    packed[at] ^= 1 << bit
    with TemporaryDirectory() as folder:
        path, plain = Path(folder, f"{NAME}-{'0' * 40}.gz"), Path(folder, "plain")
        path.write_bytes(packed)
        try:
            unpack(path, plain, path.name)
        except WalDamaged:
            return
        # A flag of the header that no reader minds: the content is what it was.
        assert plain.read_bytes() == PLAIN[:4096]
