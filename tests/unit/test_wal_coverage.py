"""What a scan makes of an archive: ranges, gaps, damaged files."""

import gzip
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.wal.archive import FilesystemArchive, WalFileMissing
from lifeboat.wal.archive_program import layout
from lifeboat.wal.archive_program.push import push
from lifeboat.wal.coverage import (
    ArchiveUnreadable,
    WalNotArchived,
    contiguous_ranges,
    gaps_between,
    has_segment,
    scan_archive,
    wait_for_segment,
)
from lifeboat.wal.names import InvalidWalName, Segment
from tests.support.wal import SEGMENT_BYTES, SYSTEM, ArchiveForTest, make_archive, make_segment

segment_sets = st.sets(st.builds(Segment, st.integers(1, 3), st.integers(0, 40)))


@given(segment_sets)
def test_ranges_hold_exactly_the_segments(segments: set[Segment]) -> None:
    ranges = contiguous_ranges(segments)
    assert {s for r in ranges for s in members(r.first, r.count)} == segments
    assert sum(item.count for item in ranges) == len(segments)


@given(segment_sets)
def test_ranges_and_gaps_alternate_without_touching(segments: set[Segment]) -> None:
    ranges = contiguous_ranges(segments)
    gaps = gaps_between(ranges)
    for timeline in {segment.timeline for segment in segments}:
        runs = sorted((item.first.number, item.last.number) for item in ranges if item.timeline == timeline)
        holes = sorted((item.first.number, item.last.number) for item in gaps if item.timeline == timeline)
        assert len(holes) == len(runs) - 1
        assert all(first <= last for first, last in holes)
        for (_, before), hole, (after, _) in zip(runs, holes, runs[1:], strict=False):
            assert hole == (before + 1, after - 1)


def members(first: Segment, count: int) -> list[Segment]:
    return [first.following(offset) for offset in range(count)]


@pytest.fixture
def archive(tmp_path: Path) -> ArchiveForTest:
    return make_archive(tmp_path)


def fill(archive: ArchiveForTest, *segments: Segment) -> None:
    for segment in segments:
        content = make_segment(segment.name)
        push(archive.program_config, archive.source(segment.name, content), segment.name)


def test_scan_tells_ranges_and_gaps_by_timeline(archive: ArchiveForTest) -> None:
    # 4095 and 4096 lie in two folders: the log number changes between them.
    old = [Segment(1, number, SEGMENT_BYTES) for number in (4094, 4095, 4096, 4099)]
    new = [Segment(2, number, SEGMENT_BYTES) for number in (4099, 4100)]
    fill(archive, *old, *new)
    history = archive.source("00000002.history", b"1\t0/1\tno reason\n")
    push(archive.program_config, history, "00000002.history")
    listing = scan_archive(Path(archive.config.path), archive.config.cluster)
    assert [(r.timeline, r.first.number, r.last.number) for r in listing.ranges] == [
        (1, 4094, 4096),
        (1, 4099, 4099),
        (2, 4099, 4100),
    ]
    assert [(g.timeline, g.first.number, g.last.number) for g in listing.gaps] == [(1, 4097, 4098)]
    assert (listing.system_identifier, listing.segment_size_bytes) == (SYSTEM, SEGMENT_BYTES)
    assert (listing.timelines, listing.history_timelines) == ((1, 2), (2,))
    assert listing.covers(old[0], old[2])
    assert not listing.covers(old[0], old[3])
    assert listing.stored_bytes == sum(path.stat().st_size for path in archive.folder.rglob("*.gz"))
    assert (listing.damaged, listing.unfinished, listing.unknown) == ((), (), ())


@pytest.mark.parametrize("damage", ["empty", "cut", "cut at the end", "zeroed", "shorter segment"])
def test_scan_takes_cut_and_empty_files_for_gaps(archive: ArchiveForTest, damage: str) -> None:
    segments = [Segment(1, number, SEGMENT_BYTES) for number in (7, 8, 9)]
    fill(archive, *segments)
    path = archive.stored_path(segments[1].name)
    content = path.read_bytes()
    short = gzip.compress(make_segment(segments[1].name)[:-8192])
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "cut at the end": content[:-1],
            "zeroed": bytes(len(content)),
            "shorter segment": short,
        }[damage]
    )
    root = Path(archive.config.path)
    listing = scan_archive(root, archive.config.cluster)
    assert [item.name for item in listing.damaged] == [segments[1].name]
    assert [(gap.first, gap.last) for gap in listing.gaps] == [(segments[1], segments[1])]
    assert has_segment(root, "studio", segments[0].name)
    assert not has_segment(root, "studio", segments[1].name)


def test_scan_names_what_it_does_not_know(archive: ArchiveForTest) -> None:
    segment = Segment(1, 7, SEGMENT_BYTES)
    fill(archive, segment)
    stored = archive.stored_path(segment.name)
    leftover = stored.parent / f".lifeboat-{segment.name}.1.aa.tmp"
    strange = [
        stored.parent / "notes.txt",
        archive.folder / "README",
        archive.folder / "history" / stored.name,  # in the wrong folder a fetch does not find it
    ]
    for path in (leftover, *strange):
        path.touch()
    listing = scan_archive(Path(archive.config.path), "studio")
    assert listing.unfinished == (leftover,)
    assert sorted(listing.unknown) == sorted(strange)
    assert [item.parsed.name for item in listing.files] == [segment.name]


def test_two_versions_of_a_segment_count_as_none(archive: ArchiveForTest) -> None:
    segment = Segment(1, 7, SEGMENT_BYTES)
    fill(archive, segment)
    stored = archive.stored_path(segment.name)
    os.link(stored, stored.with_name(f"{segment.name}-{'0' * 64}.gz"))
    root = Path(archive.config.path)
    listing = scan_archive(root, "studio")
    assert [item.reason for item in listing.damaged] == ["2 different versions"] * 2
    assert listing.ranges == ()
    assert not has_segment(root, "studio", segment.name)


def test_unreadable_archive_is_not_an_empty_one(archive: ArchiveForTest) -> None:
    archive.folder.rename(archive.work / "away")
    root = Path(archive.config.path)
    with pytest.raises(ArchiveUnreadable, match="there is no WAL archive") as caught:
        scan_archive(root, "studio")
    assert caught.value.transient
    assert "mounted" in str(caught.value.hint)
    with pytest.raises(ArchiveUnreadable):
        has_segment(root, "studio", "000000010000000000000001")
    with pytest.raises(ArchiveUnreadable):
        wait_for_segment(root, "studio", timeline=1, lsn="0/700000", timeout_seconds=0)


def test_only_archive_names_can_be_asked_for(archive: ArchiveForTest) -> None:
    with pytest.raises(InvalidWalName):
        has_segment(Path(archive.config.path), "studio", "../secret")


def test_wait_ends_when_the_last_needed_segment_is_there(archive: ArchiveForTest) -> None:
    fill(archive, Segment(1, 7, SEGMENT_BYTES))
    root = Path(archive.config.path)
    # A backup that stops on the boundary 0/800000 needs segment 7 and not 8.
    found = wait_for_segment(root, "studio", timeline=1, lsn="0/800000", timeout_seconds=0)
    assert found.number == 7
    with pytest.raises(WalNotArchived, match="000000010000000000000008 did not reach the archive") as caught:
        wait_for_segment(root, "studio", timeline=1, lsn="0/800001", timeout_seconds=0.01)
    assert caught.value.transient
    with pytest.raises(WalNotArchived, match="000000020000000000000007"):
        wait_for_segment(root, "studio", timeline=2, lsn="0/800000", timeout_seconds=0)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_what_expires_during_a_scan_is_not_there(
    archive: ArchiveForTest, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The first folder goes when one of its files, or already the next folder, is listed."""
    old, kept = ([Segment(1, number, SEGMENT_BYTES) for number in numbers] for numbers in ((4094, 4095), (4096, 4097)))
    fill(archive, *old, *kept)
    first, _ = sorted(path for path in archive.folder.iterdir() if path.name.startswith("0"))
    steps, split_entry = iter(range(100)), layout.split_entry

    def expiring(entry: str) -> tuple[str, str] | None:
        if next(steps) == step:
            shutil.rmtree(first)
        return split_entry(entry)

    monkeypatch.setattr(layout, "split_entry", expiring)
    listing = scan_archive(Path(archive.config.path), archive.config.cluster)
    assert not first.exists()
    assert (listing.damaged, listing.unknown) == ((), ())
    assert [item.parsed.segment for item in listing.files] == kept


def test_an_archive_that_goes_away_during_a_scan_does_not_look_empty(
    archive: ArchiveForTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(archive, Segment(1, 7, SEGMENT_BYTES))
    split_entry = layout.split_entry

    def unmounting(entry: str) -> tuple[str, str] | None:
        shutil.rmtree(archive.folder)
        return split_entry(entry)

    monkeypatch.setattr(layout, "split_entry", unmounting)
    with pytest.raises(ArchiveUnreadable):
        scan_archive(Path(archive.config.path), archive.config.cluster)


@pytest.mark.parametrize("step", ["find_entries", "read_entry"])
def test_what_expires_before_it_is_read_is_missing_not_unreadable(
    archive: ArchiveForTest, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    segment = Segment(1, 7, SEGMENT_BYTES)
    fill(archive, segment)
    stored, original = archive.stored_path(segment.name), getattr(layout, step)

    def expiring(path: str, *rest: object) -> object:
        shutil.rmtree(stored.parent, ignore_errors=True)
        return original(path, *rest)

    monkeypatch.setattr(layout, step, expiring)
    with pytest.raises(WalFileMissing):
        FilesystemArchive(Path(archive.config.path), archive.config.cluster).fetch(segment.name, archive.work / "out")
