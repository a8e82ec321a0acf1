"""The scrub on what real servers archived: every kind of damage is found, and what is sound is not suspected."""

import gzip
import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.commands import CommandTimeout
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to, give_tree_to
from lifeboat.recovery.spans import ArchivedWal
from lifeboat.wal import scrub as scrubbing
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.coverage import ArchiveUnreadable, SegmentRange
from lifeboat.wal.names import Segment, parse_segment
from lifeboat.wal.pages import MAJOR_BY_MAGIC, first_record
from lifeboat.wal.scrub import ScrubOrder, ScrubProgress, scrub
from lifeboat.wal.scrub_record import FindingKind, ScrubRecord, damaged_segments
from tests.integration.test_wal_archiving import (
    SEGMENT_BYTES,
    Archived,
    insert_rows,
    make_archived,
    make_restorable,
    value,
)
from tests.support.postgres import reachable_dir
from tests.support.wal_damage import (
    ScrubLab,
    flip_record_bit,
    flip_stored_bit,
    flip_uncompressed_bit,
    put_another_segments_content,
    take_from_another_cluster,
    truncate,
    zero_all,
    zero_file,
    zero_page,
    zero_stored_bytes,
    zero_tail,
)


@pytest.fixture(scope="module")
def each_archive(each_pg_tools: PgTools) -> Iterator[Archived]:
    """What a server of each version archived: full segments, and some that a switch ended early."""
    with reachable_dir("lifeboat-scrub-") as root:
        archived = make_archived(each_pg_tools, root)
        archived.start()
        with connect(archived.cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE public.frames (id bigint, payload text)")
        for _ in range(3):
            insert_rows(archived.cluster.dsn(), 2000)
            archived.switch()
        with connect(archived.cluster.dsn(), autocommit=True) as connection:
            # A record that is longer than two segments: none begins in those in between.
            connection.execute("SELECT pg_logical_emit_message(true, 'lifeboat', repeat('x', 2500000))")
            value(connection, "SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
        archived.switch()
        archived.cluster.stop()
        yield archived


@pytest.fixture
def lab(each_archive: Archived, reachable_tmp: Path) -> ScrubLab:
    shutil.copytree(each_archive.destination, reachable_tmp / "store")
    scratch_dir = reachable_tmp / "scratch"
    scratch_dir.mkdir()
    give_to(scratch_dir, each_archive.cluster.tools.user)
    return ScrubLab(reachable_tmp / "store", each_archive.cluster.tools, scratch_dir)


def test_a_sound_archive_is_read_once(lab: ScrubLab) -> None:
    count = len(lab.segments)
    first = lab.run()
    again = lab.run()
    assert count >= 10
    assert (first.sound, first.segments_read, first.segments_left, first.notes) == (True, count, 0, ())
    assert (again.sound, again.segments_read) == (True, 0)
    assert lab.record is not None
    assert MAJOR_BY_MAGIC[lab.record.magic or 0] == (lab.tools.major if lab.tools else 0)
    assert len(lab.record.checked) == 1
    assert lab.run(max_age_days=0).segments_read == count
    assert not any(lab.scratch_dir.iterdir())


DAMAGES = [
    (flip_stored_bit, FindingKind.CHECKSUM),
    (flip_uncompressed_bit, FindingKind.CHECKSUM),
    (zero_stored_bytes, FindingKind.CHECKSUM),
    (zero_all, FindingKind.ZEROED),
    (zero_page, FindingKind.ZEROED),
    (zero_tail, FindingKind.ZEROED),
    (take_from_another_cluster, FindingKind.FOREIGN),
    (put_another_segments_content, FindingKind.PAGE),
    (flip_record_bit, FindingKind.RECORD),
    (zero_file, FindingKind.FILE),
    (truncate, FindingKind.FILE),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGES, ids=lambda item: getattr(item, "__name__", None))
def test_damage_is_found_and_no_restore_crosses_it(
    lab: ScrubLab, damage: Callable[[ScrubLab, Segment], None], kind: FindingKind
) -> None:
    victim = lab.victim
    damage(lab, victim)
    report = lab.run()

    assert [(item.name, item.kind) for item in report.findings] == [(victim.name, kind)]
    assert report.new_findings == report.findings
    assert not report.sound
    listing = lab.archive.listing()
    damaged = damaged_segments(listing, lab.record)
    assert damaged == {victim}
    wal = ArchivedWal.of(listing.ranges, damaged, {1: ()}, SEGMENT_BYTES)
    assert wal.range_of(victim) is None
    assert wal.range_of(victim.following()) is not None
    # It stays known, is not new any more, and is read again each time: it may have been repaired.
    later = lab.run()
    assert [item.name for item in later.findings] == [victim.name]
    assert later.findings[0].found_at == report.findings[0].found_at
    assert later.new_findings == ()
    assert later.segments_read == (0 if kind is FindingKind.FILE else 1)


@pytest.mark.parametrize("window_segments", [1, 2, 3])
def test_records_longer_than_a_window_are_checked_too(lab: ScrubLab, window_segments: int) -> None:
    huge = next(each for each in lab.segments if first_record(bytes(lab.plain(each))) is None)
    assert lab.run(window_segments=window_segments).sound
    flip_record_bit(lab, huge)
    report = lab.run(max_age_days=0, window_segments=window_segments)
    # It is the record that is damaged: the segment in which it begins is where replay would end.
    assert [(item.name, item.kind) for item in report.findings] == [(huge.following(-1).name, FindingKind.RECORD)]


def test_what_was_repaired_or_removed_is_no_finding_any_more(lab: ScrubLab) -> None:
    first, second = lab.segments[2], lab.segments[5]
    kept = lab.stored(first).read_bytes()
    flip_stored_bit(lab, first)
    flip_stored_bit(lab, second)
    assert len(lab.run().findings) == 2
    lab.stored(first).write_bytes(kept)
    lab.stored(second).unlink()
    report = lab.run()
    assert report.findings == ()
    assert report.gaps == (SegmentRange(second, second),)
    assert not report.sound


def test_a_run_that_was_stopped_goes_on(lab: ScrubLab) -> None:
    count = len(lab.segments)
    runs = [lab.run(max_seconds=0, window_segments=3)]
    while runs[-1].segments_left:
        assert lab.record is not None
        assert lab.record.completed_at is None
        runs.append(lab.run(max_seconds=0, window_segments=3))
    assert [run.segments_read for run in runs[:2]] == [3, 3]
    assert sum(run.segments_read for run in runs) == count
    assert lab.record is not None
    assert lab.record.completed_at is not None


def test_an_interrupted_run_keeps_its_work(lab: ScrubLab) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(progress: ScrubProgress) -> None:
        if progress.read_bytes >= 4 * SEGMENT_BYTES:
            raise Interrupted

    order = ScrubOrder(lab.scratch_dir, lab.tools, timedelta(days=1), window_bytes=2 * SEGMENT_BYTES)
    with pytest.raises(Interrupted):
        scrub(lab.archive, None, order, save=lab._save, on_progress=interrupt)
    assert lab.record is not None
    assert len(lab.record.checked_at()) == 4
    assert lab.run().segments_read == len(lab.segments) - 4


def test_without_programs_of_its_version_all_but_records_is_checked(lab: ScrubLab) -> None:
    flip_record_bit(lab, lab.segments[0])
    zero_tail(lab, lab.victim)
    tools, lab.tools = lab.tools, None
    assert [item.kind for item in lab.run().findings] == [FindingKind.ZEROED]
    assert tools is not None
    wrong = ScrubRecord(system_identifier="1", segment_size_bytes=SEGMENT_BYTES)
    lab.record, lab.tools = wrong, tools
    assert {item.kind for item in lab.run().findings} == {FindingKind.ZEROED, FindingKind.RECORD}


def test_a_run_without_programs_keeps_what_is_known_of_records(lab: ScrubLab) -> None:
    victim = lab.victim
    flip_record_bit(lab, victim)
    first = lab.run()
    tools, lab.tools = lab.tools, None
    without = lab.run(max_age_days=0)
    assert without.findings == first.findings
    assert without.segments_left == 0
    assert len(without.notes) == 1
    assert lab.record is not None
    assert victim in lab.record.damaged_segments()
    # What was read without them is read again once they are there, and then no more.
    lab.tools = tools
    again = lab.run()
    assert (again.findings, again.segments_read, again.notes) == (first.findings, len(lab.segments), ())
    assert lab.run().segments_read == 1


def test_records_damaged_while_there_were_no_programs_are_found_later(lab: ScrubLab) -> None:
    tools, lab.tools = lab.tools, None
    flip_record_bit(lab, lab.victim)
    assert lab.run().findings == ()
    assert lab.run().segments_read == 0
    lab.tools = tools
    assert [item.kind for item in lab.run().findings] == [FindingKind.RECORD]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), CommandTimeout("pg_waldump", 600)])
def test_a_window_whose_records_were_not_read_stays_due(
    lab: ScrubLab, failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.run().sound
    victim, zeroed = lab.victim, lab.segments[0]
    flip_record_bit(lab, victim)
    kept = lab.stored(zeroed).read_bytes()
    flip_stored_bit(lab, zeroed)
    first = lab.run(max_age_days=0)
    assert {item.name for item in first.findings} == {victim.name, zeroed.name}
    lab.stored(zeroed).write_bytes(kept)

    def fail(*arguments: object) -> None:
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(scrubbing, "check_records", fail)
        if isinstance(failure, CommandTimeout):
            report = lab.run(max_age_days=0)
            assert report.segments_left == report.segments_read == len(lab.segments)
            assert len(report.notes) >= 1
        else:
            with pytest.raises(type(failure)):
                lab.run(max_age_days=0)
    assert lab.record is not None
    assert victim in lab.record.damaged_segments()
    assert zeroed not in lab.record.checked_at() or zeroed in lab.record.damaged_segments()
    after = lab.run()
    assert [(item.name, item.kind) for item in after.findings] == [(victim.name, FindingKind.RECORD)]
    assert {victim, zeroed} <= lab.record.checked_at().keys()


@pytest.mark.parametrize("window_segments", [1, 2, 4])
def test_a_record_damaged_in_the_next_segment_stays_a_finding_until_it_is_repaired(
    lab: ScrubLab, window_segments: int
) -> None:
    huge = next(each for each in lab.segments if first_record(bytes(lab.plain(each))) is None)
    kept = lab.plain(huge)
    flip_record_bit(lab, huge)
    expected = [(huge.following(-1).name, FindingKind.RECORD)]
    for _ in range(3):
        report = lab.run(window_segments=window_segments)
        assert [(item.name, item.kind) for item in report.findings] == expected
    lab.replace(huge, kept)
    assert lab.run(window_segments=window_segments).sound


def test_an_archive_that_goes_away_in_the_midst_takes_no_finding_along(lab: ScrubLab) -> None:
    flip_record_bit(lab, lab.victim)
    flip_stored_bit(lab, lab.segments[0])
    first = lab.run()

    class Away(FilesystemArchive):
        def fetch(self, name: str, target: Path) -> None:
            if folder.exists():
                folder.rename(folder.with_name("away"))
            super().fetch(name, target)

    folder = lab.folder
    order = ScrubOrder(lab.scratch_dir, lab.tools, timedelta(0))
    with pytest.raises(ArchiveUnreadable):
        scrub(Away(lab.destination, "studio"), lab.record, order, save=lab._save)
    folder.with_name("away").rename(folder)
    assert lab.record is not None
    assert lab.record.findings == first.findings


def test_histories_and_backup_labels_are_read_too(lab: ScrubLab) -> None:
    text = b"1\t0/2000000\tno recovery target specified\n"
    path = lab.folder / "history" / f"00000002.history-{hashlib.sha256(text).hexdigest()}.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(text))
    assert lab.run().sound
    content = bytearray(path.read_bytes())
    content[-12] ^= 1
    path.write_bytes(content)
    assert [item.name for item in lab.run().findings] == ["00000002.history"]


def test_an_archive_that_is_away_is_no_damage(lab: ScrubLab) -> None:
    assert lab.run().sound
    before = lab.record
    lab.folder.rename(lab.folder.with_name("away"))
    with pytest.raises(ArchiveUnreadable):
        lab.run(max_age_days=0)
    assert lab.record == before


def test_a_file_that_cannot_be_read_is_a_finding(lab: ScrubLab) -> None:
    victim = lab.segments[3]

    class BadSector(FilesystemArchive):
        def fetch(self, name: str, target: Path) -> None:
            if name == victim.name:
                raise ArchiveUnreadable("cannot read it: Input/output error")
            super().fetch(name, target)

    order = ScrubOrder(lab.scratch_dir, lab.tools, timedelta(days=1))
    report = scrub(BadSector(lab.destination, "studio"), None, order, save=lab._save)
    assert [(item.name, item.kind) for item in report.findings] == [(victim.name, FindingKind.UNREADABLE)]
    assert lab.run().sound


def test_a_new_timeline_is_sound(each_pg_tools: PgTools, reachable_tmp: Path) -> None:
    source = make_archived(each_pg_tools, reachable_tmp)
    with make_restorable(source, reachable_tmp) as restorable:
        restorable.recover(archive_mode=True, archive_command=source.program.archive_command)
        promoted = Archived(restorable.copy, source.program, source.destination)
        insert_rows(restorable.copy.dsn(), 3000)
        name = promoted.switch()
        scratch_dir = reachable_tmp / "scratch"
        scratch_dir.mkdir()
        give_tree_to(scratch_dir, each_pg_tools.user)
        report = ScrubLab(source.destination, each_pg_tools, scratch_dir).run()
    assert parse_segment(name, SEGMENT_BYTES).timeline == 2
    assert (report.findings, report.gaps, report.notes) == ((), (), ())
    assert report.segments_read > 5
    assert report.started_at <= datetime.now(UTC)
