"""Push and fetch, called in process: what they accept, refuse and leave behind."""

import gzip
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifeboat.wal.archive_program import durable, layout
from lifeboat.wal.archive_program.fetch import Absent, fetch
from lifeboat.wal.archive_program.layout import ArchiveError, Config
from lifeboat.wal.archive_program.push import push
from tests.support.wal import SEGMENT_BYTES, SYSTEM, ArchiveForTest, make_archive, make_segment

NAME = "000000010000000000000007"
OTHER = "000000010000000000000008"


@pytest.fixture
def archive(tmp_path: Path) -> ArchiveForTest:
    return make_archive(tmp_path)


def test_segment_comes_back_as_it_was(archive: ArchiveForTest) -> None:
    content = make_segment(NAME)
    assert push(archive.program_config, archive.source(NAME, content), NAME) is None
    stored = archive.stored_path(NAME)
    assert stored.parent.name == NAME[:16]
    assert gzip.decompress(stored.read_bytes()) == content
    target = archive.work / "RECOVERYXLOG"
    fetch(archive.program_config, str(target), NAME)
    assert target.read_bytes() == content
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in archive.work.iterdir()) == [NAME, "RECOVERYXLOG"]


@pytest.mark.parametrize("level", [0, 1, 9])
def test_every_compression_level_is_read_again(tmp_path: Path, level: int) -> None:
    archive = make_archive(tmp_path, compression_level=level)
    content = make_segment(NAME, compressible=False)
    push(archive.program_config, archive.source(NAME, content), NAME)
    assert b"".join(layout.read_entry(str(archive.stored_path(NAME)), SEGMENT_BYTES)) == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("00000002.history", b"1\t0/700000\tno recovery target specified\n"),
        (f"{NAME}.00000028.backup", b"START WAL LOCATION: 0/700028 (file 000000010000000000000007)\n"),
    ],
)
def test_small_files_go_into_the_history_folder(archive: ArchiveForTest, name: str, content: bytes) -> None:
    push(archive.program_config, archive.source(name, content), name)
    assert archive.stored_path(name).parent == archive.folder / "history"
    fetch(archive.program_config, str(archive.work / "out"), name)
    assert (archive.work / "out").read_bytes() == content


def test_partial_segment_is_kept_apart_from_the_whole_one(archive: ArchiveForTest) -> None:
    partial, whole = make_segment(NAME, filling=1), make_segment(NAME, filling=2)
    push(archive.program_config, archive.source(f"{NAME}.partial", partial), f"{NAME}.partial")
    with pytest.raises(Absent):
        fetch(archive.program_config, str(archive.work / "out"), NAME)
    push(archive.program_config, archive.source(NAME, whole), NAME)
    fetch(archive.program_config, str(archive.work / "out"), NAME)
    assert (archive.work / "out").read_bytes() == whole


def test_files_and_folders_are_closed_to_others(archive: ArchiveForTest) -> None:
    umask = os.umask(0)
    try:
        push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    finally:
        os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in archive.folder.rglob("*")}
    assert modes[archive.stored_path(NAME).name] == modes[".lock"] == modes["archive.json"] == 0o640
    assert modes[NAME[:16]] == modes["history"] == 0o750


def test_the_group_is_inherited_where_the_folder_says_so(archive: ArchiveForTest) -> None:
    archive.folder.chmod(0o2750)
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    assert (archive.folder / NAME[:16]).stat().st_mode & 0o7777 == 0o2750


def test_identical_segment_is_accepted_again(archive: ArchiveForTest) -> None:
    source = archive.source(NAME, make_segment(NAME))
    push(archive.program_config, source, NAME)
    before = archive.stored_path(NAME).stat()
    assert push(archive.program_config, source, NAME) is None
    after = archive.stored_path(NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_different_segment_is_refused_with_both_hashes(archive: ArchiveForTest) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME, filling=1)), NAME)
    before = archive.stored()
    (stored,) = before
    other = archive.source(NAME, make_segment(NAME, filling=2))
    with pytest.raises(ArchiveError, match="a different file of this name is archived") as caught:
        push(archive.program_config, other, NAME)
    offered = hashlib.sha256(Path(other).read_bytes()).hexdigest()
    assert stored[-67:-3] in str(caught.value)
    assert offered in str(caught.value)
    assert archive.stored() == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_copy_is_replaced_by_an_identical_push(archive: ArchiveForTest, damage: str) -> None:
    content = make_segment(NAME, compressible=False)
    source = archive.source(NAME, content)
    push(archive.program_config, source, NAME)
    damage_file(archive.stored_path(NAME), damage)
    remark = push(archive.program_config, source, NAME)
    assert remark is not None
    assert "has been replaced" in remark
    assert b"".join(layout.read_entry(str(archive.stored_path(NAME)), SEGMENT_BYTES)) == content


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "extended", "other"])
def test_damaged_copy_is_not_delivered(archive: ArchiveForTest, damage: str) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME, compressible=False)), NAME)
    damage_file(archive.stored_path(NAME), damage)
    with pytest.raises(ArchiveError):
        fetch(archive.program_config, str(archive.work / "out"), NAME)
    assert [path.name for path in archive.work.iterdir()] == [NAME]


def damage_file(path: Path, damage: str) -> None:
    """Do to a stored file what disks, copies and people do."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "cut": content[:middle],
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "empty": b"",
            "extended": content + b"\0",
            "other": gzip.compress(make_segment(NAME, filling=9)),
        }[damage]
    )


def test_gzip_bomb_is_cut_short(archive: ArchiveForTest) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    archive.stored_path(NAME).write_bytes(gzip.compress(bytes(64 * SEGMENT_BYTES)))
    with pytest.raises(ArchiveError, match="does not hold 1048576 bytes"):
        fetch(archive.program_config, str(archive.work / "out"), NAME)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (make_segment(NAME, system="42"), "is of system 42"),
        (make_segment(OTHER), "not at 700000 on 1 as named"),
        (make_segment(NAME, timeline=2), "on timeline 2"),
        (make_segment(NAME)[:-1], "has 1048575 bytes, a segment has 1048576"),
        (make_segment(NAME) + b"\0", "has 1048577 bytes"),
        (b"", "has 0 bytes"),
        (bytes(SEGMENT_BYTES), "does not start with the header"),
        (make_segment(NAME, size_bytes=2 * SEGMENT_BYTES)[:SEGMENT_BYTES], "segments of 2097152 bytes"),
    ],
)
def test_what_is_not_this_segment_is_refused(archive: ArchiveForTest, content: bytes, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        push(archive.program_config, archive.source(NAME, content), NAME)
    assert archive.stored() == {}


def test_first_segment_of_a_new_timeline_begins_with_a_page_of_the_old(archive: ArchiveForTest) -> None:
    name = f"00000002{NAME[8:]}"
    push(archive.program_config, archive.source(name, make_segment(name, timeline=1)), name)
    assert archive.stored_path(name).is_file()


@pytest.mark.parametrize("content", [b"", b" \n", b"1\t0/7\0\0\0"])
def test_empty_or_zeroed_history_is_refused(archive: ArchiveForTest, content: bytes) -> None:
    with pytest.raises(ArchiveError, match="is empty or not text"):
        push(archive.program_config, archive.source("00000002.history", content), "00000002.history")


@pytest.mark.parametrize("name", ["../x", "RECOVERYXLOG", "000000010000000000001000", f"{NAME}.gz", ""])
def test_names_that_no_server_gives_are_refused(archive: ArchiveForTest, name: str) -> None:
    with pytest.raises(ArchiveError, match="is not the name of a WAL file"):
        push(archive.program_config, archive.source(NAME, make_segment(NAME)), name)
    with pytest.raises(ArchiveError, match="is not the name of a WAL file"):
        fetch(archive.program_config, str(archive.work / "out"), name)


def test_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    # Large and slow to compress: the other thread gets its turn even on a busy machine.
    archive = make_archive(tmp_path, segment_size_bytes=8 * SEGMENT_BYTES, compression_level=9)
    name = "000000010000000000000001"
    source = archive.source(name, make_segment(name, size_bytes=8 * SEGMENT_BYTES, compressible=False))
    with touched_all_the_time(source), pytest.raises(ArchiveError, match="changed while it was read"):
        push(archive.program_config, source, name)
    assert archive.stored() == {}
    push(archive.program_config, source, name)


@contextmanager
def touched_all_the_time(path: str) -> Iterator[None]:
    """Somebody writes to the file again and again."""
    stop, touched = threading.Event(), threading.Event()

    def touch() -> None:
        for moment in itertools.count(1):
            os.utime(path, ns=(moment, moment))
            touched.set()
            if stop.is_set():
                return

    thread = threading.Thread(target=touch)
    thread.start()
    touched.wait()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_source_must_be_a_file(archive: ArchiveForTest) -> None:
    with pytest.raises(ArchiveError, match="not a regular file"):
        push(archive.program_config, "/dev/null", NAME)
    with pytest.raises(IsADirectoryError):
        push(archive.program_config, str(archive.work), NAME)
    with pytest.raises(FileNotFoundError):
        push(archive.program_config, str(archive.work / "gone"), NAME)
    assert archive.stored() == {}


def test_leftovers_of_killed_pushes_are_removed_after_an_hour(archive: ArchiveForTest) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    old, young = (archive.folder / NAME[:16] / f".lifeboat-{NAME}.{pid}.00.tmp" for pid in (1, 2))
    elsewhere = archive.folder / "history" / ".lifeboat-00000002.history.1.00.tmp"
    for path in (old, young, elsewhere):
        path.touch()
    for path in (old, elsewhere):
        os.utime(path, (time.time() - durable.LEFTOVER_AGE_SECONDS - 60,) * 2)
    push(archive.program_config, archive.source(OTHER, make_segment(OTHER)), OTHER)
    assert not old.exists()
    assert young.exists()
    later = f"00000001{'1':0>8}{'0':0>8}"
    push(archive.program_config, archive.source(later, make_segment(later)), later)
    assert not elsewhere.exists()


def test_too_little_space_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = make_archive(tmp_path, minimum_free_bytes=1 << 60)
    with pytest.raises(ArchiveError, match=r"has \d+ bytes free, below the minimum of 1152921504606846976"):
        push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    assert archive.stored() == {}


def test_archive_of_another_system_is_refused(archive: ArchiveForTest) -> None:
    config = Config(archive.config.model_copy(update={"system_identifier": "42"}).model_dump())
    source = archive.source(NAME, make_segment(NAME, system="42"))
    with pytest.raises(ArchiveError, match=f"belongs to system {SYSTEM}"):
        push(config, source, NAME)
    with pytest.raises(ArchiveError, match=f"belongs to system {SYSTEM}"):
        fetch(config, str(archive.work / "out"), NAME)
    assert archive.stored() == {}


def test_an_unmounted_archive_does_not_look_empty(archive: ArchiveForTest) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    archive.folder.rename(archive.work / "away")
    for is_mount_point in (False, True):
        if is_mount_point:
            archive.folder.mkdir()
        with pytest.raises(ArchiveError, match="there is no WAL archive"):
            fetch(archive.program_config, str(archive.work / "out"), NAME)
        with pytest.raises(ArchiveError, match="there is no WAL archive"):
            push(archive.program_config, archive.source(OTHER, make_segment(OTHER)), OTHER)
    assert archive.stored() == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"system_identifier": "1"}', '{"system_identifier": 1, "x'])
def test_unreadable_marker_is_no_answer(archive: ArchiveForTest, text: str) -> None:
    (archive.folder / "archive.json").write_text(text)
    with pytest.raises(ArchiveError, match="cannot understand"):
        fetch(archive.program_config, str(archive.work / "out"), NAME)


@pytest.mark.parametrize("later", [OTHER, f"{OTHER}.partial", "000000010000000100000000"])
def test_missing_segment_before_a_later_one_is_no_answer(archive: ArchiveForTest, later: str) -> None:
    target = str(archive.work / "out")
    for other in (f"00000002{later[8:]}", f"{NAME}.partial", "000000010000000000000006"):
        push(archive.program_config, archive.source(other, make_segment(other)), other)
        with pytest.raises(Absent):
            fetch(archive.program_config, target, NAME)
    push(archive.program_config, archive.source(later, make_segment(later)), later)
    with pytest.raises(ArchiveError, match=f"a gap: it is missing while {later} is there"):
        fetch(archive.program_config, target, NAME)


def test_unfinished_push_of_a_later_segment_makes_no_gap(archive: ArchiveForTest) -> None:
    folder = archive.folder / "0000000100000001"
    folder.mkdir()
    (folder / ".lifeboat-000000010000000100000000.1.aa.tmp").touch()
    with pytest.raises(Absent):
        fetch(archive.program_config, str(archive.work / "out"), NAME)


def test_two_versions_of_a_segment_are_no_answer(archive: ArchiveForTest) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    stored = archive.stored_path(NAME)
    (stored.parent / f"{NAME}-{'0' * 64}.gz").write_bytes(stored.read_bytes())
    with pytest.raises(ArchiveError, match="different versions"):
        fetch(archive.program_config, str(archive.work / "out"), NAME)


def test_a_lost_history_is_no_answer_where_its_timeline_is_there(archive: ArchiveForTest) -> None:
    """Recovery would end on the older timeline, or a promotion take its number again."""
    segment, target = f"00000003{NAME[8:]}", str(archive.work / "out")
    push(archive.program_config, archive.source(segment, make_segment(segment)), segment)
    # The archive was begun on that timeline.
    with pytest.raises(Absent):
        fetch(archive.program_config, target, "00000003.history")
    first = f"00000001{NAME[8:]}"
    push(archive.program_config, archive.source(first, make_segment(first)), first)
    with pytest.raises(ArchiveError, match="while segments of its timeline and of a lower one are there") as caught:
        fetch(archive.program_config, target, "00000003.history")
    assert "or move that timeline's segments away" in caught.value.hint
    # A server looks into its pg_wal next, which is where it wants the file.
    own = archive.work / "00000003.history"
    own.touch()
    with pytest.raises(Absent):
        fetch(archive.program_config, target, own.name)
    own.unlink()
    # A server asks for the next timeline as long as there is one; the first has no history.
    for absent in ("00000001.history", "00000002.history", "00000004.history"):
        with pytest.raises(Absent):
            fetch(archive.program_config, target, absent)
