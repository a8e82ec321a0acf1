"""Chunks of WAL are counted together; record by record, the same comes out."""

from dataclasses import replace

import pytest

from lifeboat.catalog.wal_values import CommitsRow, RelationFile
from lifeboat.wal.activity.reading import Landed, Reading
from lifeboat.wal.activity.records import MANAGERS, from_datetime
from lifeboat.wal.activity.relation_names import RelationNames
from lifeboat.wal.activity.transactions import OpenTransactions
from tests.support.wal_index import IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]

Told = tuple[dict[RelationFile, list[int]], tuple[CommitsRow, ...], list[str], dict[str, object]]


@pytest.fixture
def dumped(lab: IndexLab) -> bytes:
    """What pg_waldump says of short transactions with all else among them."""
    lab.run(
        "CREATE TABLE frames (id int PRIMARY KEY, body text)",
        "CREATE PROCEDURE play(first int, rounds int) LANGUAGE plpgsql AS $$ BEGIN FOR i IN first..first + rounds LOOP"
        " INSERT INTO frames VALUES (i, 'x'); IF i % 3 = 0 THEN UPDATE frames SET body = 'y' WHERE id = i; END IF;"
        " IF i % 7 = 0 THEN DELETE FROM frames WHERE id = i - 1; END IF;"
        " IF i % 5 = 0 THEN ROLLBACK; ELSE COMMIT; END IF; END LOOP; END $$",
    )
    lab.make_truth("frames")
    lab.observe()
    start = lab.value("SELECT pg_current_wal_lsn()::text")
    with lab.connect() as held:
        held.execute("BEGIN")
        held.execute("INSERT INTO frames VALUES (-1)")
        lab.run("CALL play(1, 400)", "INSERT INTO frames VALUES (-2) ON CONFLICT DO NOTHING")
        lab.run("BEGIN; INSERT INTO frames VALUES (-3); SAVEPOINT a; DELETE FROM frames WHERE id < 20; COMMIT")
        held.execute("COMMIT")
    lab.run("COMMENT ON TABLE frames IS 'x'", "CALL play(1001, 300)", "CREATE TABLE later (a int)")
    lab.run(
        "INSERT INTO later SELECT generate_series(1, 30)",
        "BEGIN; ALTER TABLE later ALTER a TYPE bigint; INSERT INTO later SELECT generate_series(1, 20); COMMIT",
        "BEGIN; CREATE TABLE brief (a int); INSERT INTO brief SELECT generate_series(1, 40); TRUNCATE brief;"
        "INSERT INTO brief VALUES (1); COMMIT",
    )
    lab.run("CALL play(2001, 300)", "DELETE FROM frames WHERE id % 2 = 0", "CALL play(3001, 300)", "TRUNCATE later")
    end = lab.value("SELECT pg_current_wal_lsn()::text")
    arguments = [word for manager in MANAGERS for word in ("--rmgr", manager)]
    arguments += ["--path", str(lab.cluster.data_dir / "pg_wal"), "--timeline", "1", "--start", start, "--end", end]
    return lab.cluster.tools.run("pg_waldump", arguments, timeout_seconds=60, env={"TZ": "UTC"}).stdout.encode()


def told(reading: Reading) -> Told:
    counts: dict[RelationFile, list[int]] = {}
    for row in reading.buckets.new_activity():
        mine = counts.setdefault(row.file, [0, 0, 0])
        for position, value in enumerate((row.inserted_rows, row.updated_rows, row.deleted_rows)):
            mine[position] += value
    texts = [event.text for event in reading.events]
    return counts, reading.buckets.new_commits(), texts, reading.transactions.to_json()


def fresh(lab: IndexLab, **options: object) -> Reading:
    names = RelationNames(lab.catalog.relations.names(lab.name))
    reading = Reading(lab.name, 1, names, OpenTransactions(names.hidden, names.catalogs), 150)
    for name, value in options.items():
        setattr(reading, name, value)
    return reading


def test_chunks_and_single_records_say_the_same(lab: IndexLab, dumped: bytes) -> None:
    lines = dumped.splitlines(keepends=True)
    one_by_one = fresh(lab)
    for line in lines:
        one_by_one.feed(line)
        one_by_one.end()
    expected = told(one_by_one)
    assert {file: tuple(counts) for file, counts in expected[0].items()}
    assert any("DELETE of" in text for text in expected[2])
    assert any("other DDL" in text for text in expected[2])
    for size in (40, 500, len(lines)):
        reading = fresh(lab)
        for first in range(0, len(lines), size):
            reading.feed(b"".join(lines[first : first + size]))
            reading.end()
        assert told(reading) == expected
    (counts,) = [item for item in expected[0].values() if item[1]]
    assert tuple(counts) == lab.truth()["public.frames"]


def test_a_landing_is_the_same_by_chunks(lab: IndexLab, dumped: bytes) -> None:
    lines = dumped.splitlines(keepends=True)
    whole = fresh(lab)
    whole.feed(dumped)
    whole.end()
    (first, last) = whole.buckets.new_commits()[0].first_at, whole.buckets.new_commits()[-1].last_at
    for share in (0.0, 0.3, 0.7):
        at = from_datetime(first + (last - first) * share)
        found = []
        for size in (1, 60, 1000):
            reading = fresh(lab, stop_after=at, bucket=at[:16])
            try:
                for start in range(0, len(lines), size):
                    reading.feed(b"".join(lines[start : start + size]))
                    reading.end()
            except Landed:
                pass
            assert reading.landing is not None
            found.append((replace(reading.landing), reading.first_lost))
        assert found[0] == found[1] == found[2]
