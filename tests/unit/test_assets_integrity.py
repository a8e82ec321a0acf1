"""The asset check over real files: what is sound passes, and each kind of damage is found and named."""

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lifeboat.assets.findings import AssetProgress, AssetReport, Finding, FindingKind
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.records import AssetRecord
from lifeboat.assets.roots import AssetRootMissing
from tests.support.assets import flip_byte, record_of, write_assets

CONTENT = b"final cut" * 1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one sound file in it."""
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "sound.mp4").write_bytes(CONTENT)
    return folder


def only_finding(record: AssetRecord, *roots: Path) -> Finding:
    report = verify_assets([record], roots, workers=1)
    assert report.checked == 1
    assert report.total_findings == 1
    return report.findings[0]


def test_sound_files_pass_and_are_counted(root: Path) -> None:
    records = write_assets(root, 300)

    report = verify_assets(records, [root], workers=3)

    assert report.sound
    assert not report.resumed
    assert report.checked == 300
    assert report.bytes_checked == sum(record.size_bytes or 0 for record in records)
    assert report.started_at <= report.completed_at


def test_a_file_larger_than_the_buffer_is_read_whole(root: Path) -> None:
    content = os.urandom(3_000_001)
    (root / "long.mp4").write_bytes(content)
    record = record_of("1", "long.mp4", content)
    assert verify_assets([record], [root]).sound

    flip_byte(root / "long.mp4", position=3_000_000)

    assert only_finding(record, root).kind is FindingKind.CORRUPT


def test_an_empty_file_is_a_file(root: Path) -> None:
    (root / "empty.mp4").touch()

    assert verify_assets([record_of("1", "empty.mp4", b"")], [root]).sound


def test_every_kind_of_damage_is_found_among_sound_files(root: Path) -> None:
    records = write_assets(root, 500)
    (root / records[17].path).unlink()
    flip_byte(root / records[333].path)
    (root / records[499].path).write_bytes(b"short")

    report = verify_assets(records, [root], workers=4)

    assert (report.checked, report.missing, report.corrupt, report.unreadable) == (500, 1, 2, 0)
    assert [finding.asset_id for finding in report.findings] == [records[i].id for i in (17, 333, 499)]


def test_a_flipped_byte_is_corrupt_with_both_checksums(root: Path) -> None:
    record = record_of("7", "sound.mp4", CONTENT)
    flip_byte(root / "sound.mp4")

    finding = only_finding(record, root)

    assert finding.kind is FindingKind.CORRUPT
    assert finding.expected_sha256 == record.sha256
    assert finding.actual_sha256 is not None
    assert finding.actual_sha256 != record.sha256
    assert str(finding).startswith("sound.mp4 (asset 7, final_video): corrupt, has the SHA-256 ")


def test_another_size_is_corrupt_and_not_read(root: Path) -> None:
    record = replace(record_of("1", "sound.mp4", CONTENT), size_bytes=9001)

    report = verify_assets([record], [root])

    assert report.bytes_checked == 0
    assert report.findings[0].detail == "has 9,000 bytes, the database says 9,001"
    assert report.findings[0].actual_sha256 is None


def test_a_record_without_checksum_is_read_and_counted(root: Path) -> None:
    record = replace(record_of("1", "sound.mp4", CONTENT), sha256=None)

    report = verify_assets([record, replace(record, id="2", size_bytes=None)], [root])

    assert report.sound
    assert report.without_checksum == 2
    assert report.bytes_checked == 2 * len(CONTENT)


def test_a_checksum_that_is_none_is_corrupt(root: Path) -> None:
    finding = only_finding(replace(record_of("1", "sound.mp4", CONTENT), sha256="n/a"), root)

    assert finding.kind is FindingKind.CORRUPT
    assert finding.detail.endswith("the database says n/a…")


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


@pytest.mark.parametrize("left_behind", ["nothing", "an empty folder", "another folder"])
def test_a_root_lost_during_the_check_is_an_error(root: Path, left_behind: str) -> None:
    found: list[Finding] = []

    def records_while_the_root_goes(records: list[AssetRecord]) -> Iterator[AssetRecord]:
        yield from records[:2000]
        root.rename(root.parent / "unmounted")
        if left_behind != "nothing":
            root.mkdir()
        if left_behind == "another folder":
            (root / "lost+found").mkdir()
        yield from records[2000:]

    with pytest.raises(AssetRootMissing):
        verify_assets(records_while_the_root_goes(write_assets(root, 3000)), [root], on_finding=found.append)
    assert found == []


def test_an_unreadable_file_is_a_finding_for_a_plain_user(root: Path) -> None:
    record = record_of("1", "sound.mp4", CONTENT)
    (root / "sound.mp4").chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything: tests/integration/test_assets_faults.py does this as another user")

    finding = only_finding(record, root)

    assert (finding.kind, finding.detail) == (FindingKind.UNREADABLE, "permission denied")


def test_a_file_replaced_together_with_its_record_is_sound(root: Path) -> None:
    records = write_assets(root, 100)
    changed, gone = records[10], records[20]
    (root / changed.path).write_bytes(b"new cut")
    (root / gone.path).unlink()
    now = {changed.id: record_of(changed.id, changed.path, b"new cut")}

    def current(ids: Sequence[str]) -> dict[str, AssetRecord]:
        return {identity: now[identity] for identity in ids if identity in now}

    assert verify_assets(records, [root]).total_findings == 2
    assert verify_assets(records, [root], current=current).sound


def test_a_record_that_changed_to_something_wrong_is_reported_as_it_is_now(root: Path) -> None:
    record = record_of("1", "gone.mp4", b"gone")
    now = replace(record, path="gone-too.mp4")

    report = verify_assets([record], [root], current=lambda _: {"1": now})

    assert [finding.path for finding in report.findings] == ["gone-too.mp4"]


def test_a_file_that_is_being_written_gets_a_second_look(root: Path) -> None:
    path, content = root / "growing.mp4", b"n" * 1_000_000
    path.write_bytes(b"o" * 1_000_000)
    # Reading takes half a second: the writer ends in the middle of it.
    writer = threading.Timer(0.15, path.write_bytes, (content,))
    writer.start()

    report = verify_assets([record_of("1", "growing.mp4", content)], [root], bytes_per_second=2_000_000)

    writer.join()
    assert report.sound
    assert report.bytes_checked == 1_000_000


def test_the_throttle_holds_the_rate(root: Path) -> None:
    records = write_assets(root, 20, size_bytes=50_000)
    size_bytes = sum(record.size_bytes or 0 for record in records)

    report = verify_assets(records, [root], workers=4, bytes_per_second=size_bytes * 2)

    assert report.sound
    # The first read is free, the last one need not be waited for.
    assert 0.3 < report.duration_seconds < 2


def test_a_check_can_be_stopped_while_it_is_throttled(root: Path) -> None:
    records = write_assets(root, 50, size_bytes=50_000)

    def stop(progress: AssetProgress) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        verify_assets(records, [root], workers=2, bytes_per_second=1024, on_progress=stop)

    assert time.monotonic() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("assets")]


def test_progress_ends_with_everything_and_findings_are_told_in_order(root: Path) -> None:
    records = write_assets(root, 400)
    for record in records[::40]:
        (root / record.path).unlink()
    seen: list[AssetProgress] = []
    found: list[Finding] = []

    report = verify_assets(records, [root], workers=4, on_progress=seen.append, on_finding=found.append)

    assert (seen[-1].checked, seen[-1].bytes_checked, seen[-1].findings) == (400, report.bytes_checked, 10)
    assert [finding.asset_id for finding in found] == [record.id for record in records[::40]]
    assert tuple(found) == report.findings


def test_the_report_holds_a_thousand_findings_and_counts_them_all(root: Path) -> None:
    records = [record_of(str(number), f"gone-{number}", b"") for number in range(1500)]
    found: list[Finding] = []

    report = verify_assets(records, [root], on_finding=found.append)

    assert (report.missing, len(report.findings), len(found)) == (1500, 1000, 1500)


def test_nice_lowers_the_readers_and_not_the_caller(root: Path) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    seen: list[int] = []

    def look(_: AssetProgress) -> None:
        readers = [thread for thread in threading.enumerate() if thread.name.startswith("assets")]
        seen.extend(os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in readers)

    report = verify_assets(write_assets(root, 4), [root], workers=1, nice=7, bytes_per_second=4096, on_progress=look)

    assert report.sound
    assert 7 in seen
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_an_error_of_the_records_comes_through(root: Path) -> None:
    def records() -> Iterator[AssetRecord]:
        yield record_of("1", "sound.mp4", CONTENT)
        raise ConnectionError("the database is gone")

    with pytest.raises(ConnectionError, match="the database is gone"):
        verify_assets(records(), [root])


def test_findings_survive_json() -> None:
    finding = Finding("1", "draft", "a.mp4", FindingKind.CORRUPT, "detail", 1, 2, None, "ab")

    assert Finding.from_json(finding.as_json()) == finding


def test_a_report_without_findings_is_sound(root: Path) -> None:
    report: AssetReport = verify_assets([], [root])

    assert report.sound
    assert report.checked == 0
