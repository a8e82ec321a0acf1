"""The asset check over real files: what is sound passes, and each kind of damage is found and named."""

import errno
import os
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
from tests.support.assets import CONTENT, flip_byte, make_root, only_finding, record_of, write_assets


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_root(tmp_path)


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


@pytest.mark.parametrize("size", [4095, 4096, 8192, 262_143, 262_144, 262_145, 266_240, 524_288])
@pytest.mark.parametrize("forgotten_from", [0, 4096, 262_144])
def test_what_is_not_in_memory_is_read_from_the_disk(root: Path, size: int, forgotten_from: int) -> None:
    content = os.urandom(size)
    path = root / "cold.mp4"
    path.write_bytes(content)
    record = record_of("1", "cold.mp4", content)

    def forget() -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), forgotten_from, 0, os.POSIX_FADV_DONTNEED)

    forget()
    assert verify_assets([record], [root]).sound

    # Too long by what a read that stops at the last page in memory would not see.
    with path.open("ab") as file:
        file.write(b"x")
    forget()
    assert only_finding(record, root).actual_size_bytes == size + 1


@pytest.mark.parametrize("known", ["both", "no checksum", "no size"])
def test_a_bad_sector_is_unreadable_and_not_corrupt(root: Path, monkeypatch: pytest.MonkeyPatch, known: str) -> None:
    # No real disk can be made bad here. Linux gives what lies before the sector, and the error with the next read.
    content = os.urandom(300_000)
    (root / "bad.mp4").write_bytes(content)
    record = record_of("1", "bad.mp4", content)
    record = replace(record, sha256=None) if known == "no checksum" else record
    record = replace(record, size_bytes=None) if known == "no size" else record
    read = os.preadv

    def preadv(descriptor: int, buffers: Sequence[memoryview], position: int, flags: int = 0) -> int:
        if flags:
            raise BlockingIOError
        if position >= 131_072:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, [buffers[0][: 131_072 - position]], position)

    monkeypatch.setattr(os, "preadv", preadv)

    finding = only_finding(record, root)

    assert (finding.kind, finding.detail) == (FindingKind.UNREADABLE, "input/output error")


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
