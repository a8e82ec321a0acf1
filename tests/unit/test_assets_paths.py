"""Paths and links in the asset check: nothing outside the roots is read, and nothing that is no file hangs it."""

import os
import socket
from pathlib import Path

import pytest

from lifeboat.assets.findings import FindingKind
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.roots import AssetRootMissing
from tests.support.assets import CONTENT, make_root, only_finding, record_of, write_assets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


@pytest.mark.parametrize("path", ["gone.mp4", "no/such/folder/x.mp4", "sound.mp4/x"])
def test_a_file_that_is_not_there_is_missing(root: Path, path: str) -> None:
    assert only_finding(record_of("1", path, b""), root).kind is FindingKind.MISSING


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/hostname", "../gone", "/gone", ""])
def test_a_path_out_of_the_root_is_refused(root: Path, path: str) -> None:
    (root.parent / "secret").write_bytes(CONTENT)

    finding = only_finding(record_of("1", path, CONTENT), root)

    assert finding.kind is FindingKind.UNREADABLE
    assert finding.detail in {"leads out of the asset roots", "is no file name"}


@pytest.mark.parametrize("path", ["link.mp4", "folder/secret", "folder/gone"])
def test_a_symlink_out_of_the_root_is_refused(root: Path, path: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(CONTENT)
    (root / "link.mp4").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)

    finding = only_finding(record_of("1", path, CONTENT), root)

    assert (finding.kind, finding.detail) == (FindingKind.UNREADABLE, "leads out of the asset roots")


def test_a_folder_that_was_sound_gives_its_links_no_pass(root: Path) -> None:
    records = write_assets(root, 40)
    outside = root.parent / "outside.mp4"
    outside.write_bytes((root / records[20].path).read_bytes())
    for record in records[20:]:
        (root / record.path).unlink()
        (root / record.path).symlink_to(outside)

    report = verify_assets(records, [root], workers=1)

    assert (report.checked, report.unreadable) == (40, 20)
    assert {finding.detail for finding in report.findings} == {"leads out of the asset roots"}


def test_a_link_back_into_the_root_does_not_vouch_for_the_folder_it_lies_in(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(CONTENT)
    (outside / "back.mp4").symlink_to(root / "sound.mp4")
    (root / "folder").symlink_to(outside)
    records = [record_of("1", "folder/back.mp4", CONTENT), record_of("2", "folder/secret.mp4", CONTENT)]

    report = verify_assets(records, [root], workers=1)

    assert [finding.path for finding in report.findings] == ["folder/secret.mp4"]


@pytest.mark.parametrize("size_bytes", [1, 262_143, 262_144, 262_145, 524_288])
def test_a_tail_and_a_lost_end_are_found_at_any_size(root: Path, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    for name, written in (("a.mp4", content), ("b.mp4", content + b"x"), ("c.mp4", content[:-1])):
        (root / name).write_bytes(written)

    report = verify_assets([record_of(name, name, content) for name in ("a.mp4", "b.mp4", "c.mp4")], [root])

    assert [finding.path for finding in report.findings] == ["b.mp4", "c.mp4"]
    assert [finding.actual_size_bytes for finding in report.findings] == [size_bytes + 1, size_bytes - 1]
    # A file of another size is not read, beyond the first attempt.
    assert report.bytes_checked == size_bytes


def test_a_folder_beside_the_root_with_its_name_in_front_is_outside(root: Path) -> None:
    sibling = root.parent / f"{root.name}-old"
    sibling.mkdir()
    (sibling / "a.mp4").write_bytes(CONTENT)

    finding = only_finding(record_of("1", f"../{sibling.name}/a.mp4", CONTENT), root)

    assert finding.detail == "leads out of the asset roots"


def test_links_inside_the_root_and_a_root_that_is_a_link_are_followed(root: Path) -> None:
    (root / "link.mp4").symlink_to(root / "sound.mp4")
    linked_root = root.parent / "linked"
    linked_root.symlink_to(root)
    absolute = str(root / "sound.mp4")

    records = [record_of("1", "link.mp4", CONTENT), record_of("2", absolute, CONTENT)]

    assert verify_assets(records, [root]).sound
    assert verify_assets(records, [linked_root]).sound


def test_a_broken_link_inside_the_root_is_missing_and_a_loop_unreadable(root: Path) -> None:
    (root / "broken.mp4").symlink_to(root / "gone")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")

    assert only_finding(record_of("1", "broken.mp4", b""), root).kind is FindingKind.MISSING
    assert only_finding(record_of("1", "loop.mp4", b""), root).kind is FindingKind.UNREADABLE


@pytest.mark.timeout(20)
def test_what_is_no_regular_file_is_unreadable_does_not_hang_and_keeps_its_data(root: Path) -> None:
    os.mkfifo(root / "fifo.mp4")
    (root / "folder.mp4").mkdir()
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(root / "socket.mp4"))

    found = {name: only_finding(record_of("1", name, b""), root) for name in ("fifo.mp4", "folder.mp4", "socket.mp4")}
    server.close()
    os.mkfifo(root / "pipe.mp4")
    pipe = os.open(root / "pipe.mp4", os.O_RDWR)
    os.write(pipe, CONTENT)
    found["pipe.mp4"] = only_finding(record_of("1", "pipe.mp4", CONTENT), root)
    assert len(os.read(pipe, 1 << 16)) == len(CONTENT)
    os.close(pipe)

    assert {finding.kind for finding in found.values()} == {FindingKind.UNREADABLE}
    assert found["fifo.mp4"].detail == "is a FIFO"
    assert found["folder.mp4"].detail == "is a folder"


@pytest.mark.parametrize("path", ["a\0b", "n" * 300, "sound.mp4/" * 1000])
def test_a_path_that_cannot_be_one_is_a_finding(root: Path, path: str) -> None:
    assert only_finding(record_of("1", path, b""), root).kind in {FindingKind.UNREADABLE, FindingKind.MISSING}


def test_a_file_is_looked_up_in_each_root(root: Path) -> None:
    second = root.parent / "second"
    second.mkdir()
    (second / "other.mp4").write_bytes(b"other")

    records = [record_of("1", "sound.mp4", CONTENT), record_of("2", "other.mp4", b"other")]

    assert verify_assets(records, [root, second]).sound
    assert verify_assets(records, [root]).missing == 1


def test_a_lost_root_is_an_error_and_not_a_thousand_missing_files(root: Path) -> None:
    records = write_assets(root, 10)

    with pytest.raises(AssetRootMissing, match="is not there: No such file"):
        verify_assets(records, [root.parent / "nowhere"])
    empty = root.parent / "empty"
    empty.mkdir()
    with pytest.raises(AssetRootMissing, match="is empty"):
        verify_assets(records, [root, empty])
    with pytest.raises(AssetRootMissing, match="is not there: Not a directory"):
        verify_assets(records, [root / "sound.mp4"])
