"""What the reader says of archived WAL, against what the server itself said when it was written."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span, SpanEnd, span_of
from lifeboat.recovery.timelines import TimelinePath, path_to
from lifeboat.recovery.unpacked_wal import SegmentUnusable
from lifeboat.recovery.wal_reader import ArchivedWalReader, CommitTooFar, NotedPlace
from lifeboat.wal.coverage import ArchiveListing
from lifeboat.wal.names import TimelineSwitch, parse_lsn
from tests.support.postgres import reachable_dir
from tests.support.recovery import SEGMENT_BYTES, RecoveryLab, make_lab


@pytest.fixture(scope="module")
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """One source for each version."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        yield made
        made.cluster.stop(mode="immediate")


def reader(lab: RecoveryLab, window_bytes: int = 3 * SEGMENT_BYTES) -> ArchivedWalReader:
    scratch = lab.installation.settings.scratch_dir
    scratch.mkdir(parents=True, exist_ok=True)
    scratch.chmod(0o711)
    listing = lab.archive.listing()
    wal = ArchivedWal.of(listing.ranges, (), {}, listing.segment_size_bytes)
    return ArchivedWalReader(lab.archive, wal, lab.cluster.tools, scratch, window_bytes=window_bytes)


def path() -> TimelinePath:
    return path_to(1, {}, {1})


def span_from(lab: RecoveryLab, lsn: str, reading: ArchivedWalReader) -> Span:
    stop = parse_lsn(lsn)
    backup = BackupPoint("B", "basebackup", 1, stop, stop, datetime.now().astimezone(), ("B",))
    span = span_of(backup, path(), reading.wal)
    assert span is not None
    assert span.end is SpanEnd.ARCHIVE
    return span


def xid_of(lab: RecoveryLab, statement: str) -> tuple[int, datetime]:
    """Run a statement in a transaction; its number, and when it committed."""
    with connect(lab.cluster.dsn()) as session:
        session.execute(statement.encode())
        row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        before = session.execute("SELECT clock_timestamp()").fetchone()
        assert before is not None
        session.commit()
    return int(row[0]), before[0]


def test_the_last_commit_is_found_far_before_the_end(lab: RecoveryLab) -> None:
    lab.switch()
    start = lab.value("SELECT pg_current_wal_lsn()::text")
    xid, before = xid_of(lab, "INSERT INTO public.notes VALUES (1, 'last')")
    # Many segments without the end of any transaction.
    lab.run("SELECT count(pg_logical_emit_message(false, 'lab', repeat('x', 500000))) FROM generate_series(1, 12)")
    lab.run("SELECT pg_switch_wal()")
    end = lab.value("SELECT pg_current_wal_insert_lsn()::text")
    after = lab.value("SELECT clock_timestamp()")
    lab.switch()
    listing_end = parse_lsn(end) // SEGMENT_BYTES
    reading = reader(lab)
    span = span_from(lab, start, reading)
    short = Span(span.backup, span.path, span.first_number, listing_end - 1, span.missing, span.end)
    assert short.last_number - short.first_number > 5
    found = reading.last_commit(short)
    assert found is not None
    assert found.xid == xid
    assert before <= found.at <= after
    whole = reading.last_commit(span)
    assert whole is not None
    assert whole.xid is not None
    assert whole.xid > xid
    again = reading.find_commit(xid, path())
    assert again is not None
    assert (again.lsn, again.at, again.xid) == (found.lsn, found.at, found.xid)
    assert reading.find_commit(2_000_000_000, path()) is None


@pytest.mark.parametrize("offset", range(0, 120, 24))
def test_a_commit_that_crosses_segments_is_found(lab: RecoveryLab, offset: int) -> None:
    lab.switch()
    lab.run("CREATE TABLE IF NOT EXISTS public.fill (t text)")
    start = lab.value("SELECT pg_current_wal_lsn()::text")
    with connect(lab.cluster.dsn()) as session:
        session.execute("SELECT txid_current()")
        # Non-transactional messages fill the segment up to a few bytes before its end.
        position = parse_lsn(lab.value("SELECT pg_current_wal_insert_lsn()::text"))
        left = SEGMENT_BYTES - position % SEGMENT_BYTES
        pages = left // 8192
        payload = left - pages * 24 - 60 - offset
        session.execute("SELECT pg_logical_emit_message(false, 'lab', repeat('x', %s))", (payload,))
        row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        session.commit()
    lab.run("SELECT pg_switch_wal()")
    lab.run("SELECT count(pg_logical_emit_message(false, 'lab', repeat('y', 500000))) FROM generate_series(1, 9)")
    lab.run("SELECT pg_switch_wal()")
    end = parse_lsn(lab.value("SELECT pg_current_wal_insert_lsn()::text")) // SEGMENT_BYTES
    lab.switch()
    reading = reader(lab, 2 * SEGMENT_BYTES)
    span = span_from(lab, start, reading)
    short = Span(span.backup, span.path, span.first_number, end - 1, span.missing, span.end)
    found = reading.last_commit(short)
    assert found is not None
    assert found.xid == row[0]
    again = reading.find_commit(row[0], path())
    assert again is not None
    assert (again.lsn, again.at, again.xid) == (found.lsn, found.at, found.xid)


def test_the_commits_on_both_sides_of_a_position_are_found_without_reading_all(lab: RecoveryLab) -> None:
    start = lab.value("SELECT pg_current_wal_insert_lsn()::text")
    for number in range(70, 78):
        lab.commit(number)
        lab.switch()
    reading = reader(lab)
    span = span_from(lab, start, reading)
    commits = [
        (int(row[0]), row[1])
        for row in lab.rows(
            "SELECT xmin::text::int, pg_xact_commit_timestamp(xmin) FROM public.heartbeats"
            " WHERE number BETWEEN 70 AND 77 ORDER BY number"
        )
    ]
    middle = reading.find_commit(commits[4][0], path())
    assert middle is not None
    counting = Counting(lab)
    reading = replace(reading, archive=counting)
    first = reading.first_commit(span, middle.lsn)
    assert first is not None
    assert (first.xid, first.at) == commits[4]
    assert len(counting.fetched) <= 2
    before = reading.last_commit(span, middle.lsn)
    assert before is not None
    assert before.lsn < middle.lsn
    # The switch commits a message behind each heartbeat.
    assert commits[3][1] < before.at < commits[4][1]
    assert len(counting.fetched) <= 5
    last = reading.last_commit(span)
    assert last is not None
    assert reading.first_commit(span, last.lsn + 1) is None


def test_a_commit_far_away_is_not_looked_for_to_the_end(lab: RecoveryLab) -> None:
    lab.commit(80)
    start = lab.value("SELECT pg_current_wal_insert_lsn()::text")
    for _ in range(5):
        # Nothing of it is a transaction.
        lab.value("SELECT pg_logical_emit_message(false, 'lab', repeat('x', 900000))::text")
        lab.value("SELECT pg_switch_wal()::text")
    end = lab.value("SELECT pg_current_wal_insert_lsn()::text")
    lab.switch()
    reading = reader(lab)
    span = span_from(lab, start, reading)
    assert reading.replayed_commit(span, parse_lsn(end), 64 * SEGMENT_BYTES) is None
    with pytest.raises(CommitTooFar):
        reading.replayed_commit(span, parse_lsn(end), 2 * SEGMENT_BYTES)
    with pytest.raises(CommitTooFar):
        reading.first_commit(span, parse_lsn(start), within_bytes=2 * SEGMENT_BYTES)
    assert reading.first_commit(span, parse_lsn(start), within_bytes=64 * SEGMENT_BYTES) is not None


def test_a_restore_point_is_found_with_its_moment(lab: RecoveryLab) -> None:
    lab.run("SELECT pg_create_restore_point('before the delete')")
    before = lab.value("SELECT clock_timestamp()")
    lsn = lab.value("SELECT pg_create_restore_point('before the delete')::text")
    after = lab.value("SELECT clock_timestamp()")
    lab.switch()
    found = reader(lab).find_name("before the delete", path())
    assert found is not None
    assert before <= found.at <= after
    assert found.lsn < parse_lsn(lsn) <= found.lsn + 200  # the server names the record's end
    assert reader(lab).find_name("before", path()) is None


class Counting:
    """An archive that counts what is fetched from it."""

    def __init__(self, lab: RecoveryLab) -> None:
        self.archive, self.fetched = lab.archive, list[str]()

    def fetch(self, name: str, target: Path) -> None:
        self.fetched.append(name)
        self.archive.fetch(name, target)

    def listing(self) -> ArchiveListing:
        return self.archive.listing()

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        return self.archive.history(timeline)

    def describe(self) -> str:
        return self.archive.describe()


def test_a_noted_place_is_looked_at_first(lab: RecoveryLab) -> None:
    lab.switch()
    at = lab.value("SELECT clock_timestamp()")
    xid, _ = xid_of(lab, "DELETE FROM public.notes")
    commit = parse_lsn(lab.value("SELECT pg_current_wal_insert_lsn()::text")) - 1
    lsn = parse_lsn(lab.value("SELECT pg_create_restore_point('noted')::text"))
    for _ in range(6):
        lab.run("SELECT pg_logical_emit_message(false, 'lab', repeat('z', 900000))")
        lab.switch()
    lab.run("SELECT pg_create_restore_point('noted')")
    lab.switch()
    counting, told = Counting(lab), list[tuple[int, int]]()
    far = replace(reader(lab), archive=counting, on_read=lambda done, total: told.append((done, total)))
    newest = far.find_name("noted", path())
    assert newest is not None
    assert newest.lsn > lsn
    far.find_commit(2_000_000_000, path())
    everything = len(set(counting.fetched)) * SEGMENT_BYTES
    assert len(told) > 2
    assert told[-1] == (everything, everything)

    counting.fetched.clear()
    near = replace(far, noted=(NotedPlace(9, lsn, at), NotedPlace(1, lsn, at)))
    found = near.find_name("noted", path())
    assert found is not None
    assert found.lsn < lsn <= found.lsn + 200
    assert replace(far, noted=(NotedPlace(1, commit, at),)).find_commit(xid, path()) == far.find_commit(xid, path())
    assert len(set(counting.fetched)) > 3  # the last of them had nothing noted
    counting.fetched.clear()
    assert replace(far, noted=(NotedPlace(1, commit, at),)).find_commit(xid, path()) is not None
    assert len(counting.fetched) <= 3
    # What is noted and not there is looked for; what the archive has lost is told by its place.
    assert replace(far, noted=(NotedPlace(1, commit - SEGMENT_BYTES, at),)).find_commit(xid, path()) is not None
    lost = replace(far, noted=(NotedPlace(1, 1 << 40, at),)).find_name("noted", path())
    assert lost is not None
    assert lost.lsn == 1 << 40


def test_the_last_record_is_behind_the_last_commit(lab: RecoveryLab) -> None:
    start = lab.value("SELECT pg_current_wal_lsn()::text")
    lab.switch()
    reading = reader(lab)
    span = span_from(lab, start, reading)
    commit = reading.last_commit(span)
    assert commit is not None
    last = reading.last_record_lsn(span)
    assert commit.lsn < last < (span.last_number + 1) * SEGMENT_BYTES


def test_a_segment_of_zeroes_or_none_is_named(lab: RecoveryLab, tmp_path: Path) -> None:
    start = lab.value("SELECT pg_current_wal_lsn()::text")
    name = lab.switch()
    reading = reader(lab)
    span = span_from(lab, start, reading)
    stored = lab.stored(name)
    content = stored.read_bytes()
    stored.unlink()
    with pytest.raises(SegmentUnusable) as gone:
        reading.last_commit(span)
    assert gone.value.segment.name == name
    # A bit of the checksum (RFC 1952): elsewhere another one may mean the same zeroes.
    stored.write_bytes(content[:-6] + bytes([content[-6] ^ 1]) + content[-5:])
    with pytest.raises(SegmentUnusable) as damaged:
        reading.last_commit(span)
    assert damaged.value.segment.name == name
    stored.write_bytes(content)
    assert reading.last_commit(span) is not None
    assert list(lab.installation.settings.scratch_dir.iterdir()) == []
