"""What WAL says was touched, and that guard, WAL and fingerprint together are sound for a physical backup."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_tree_to
from lifeboat.settings.drills import FingerprintBudget
from lifeboat.verification.comparison import UNKNOWN_CATALOG, compare
from lifeboat.verification.fingerprints import take_fingerprint
from lifeboat.verification.snapshots import snapshot_guard
from lifeboat.verification.touched import WalUnreadable, touched_relations, touched_tables
from tests.support.verification import fingerprint

Connection = psycopg.Connection[Any]

SCHEMA = """
CREATE TABLE small (a int PRIMARY KEY, b text);
CREATE TABLE other (a int REFERENCES small);
INSERT INTO small SELECT g, 'x' FROM generate_series(1, 500) g;
INSERT INTO other SELECT 1;
"""
TOUCHING = {
    "COPY other FROM PROGRAM 'echo 1'": {"public.other"},
    "INSERT INTO small VALUES (0, 'x')": {"public.small"},
    "INSERT INTO small SELECT -1, string_agg(md5(g::text), '') FROM generate_series(1, 9000) g": {"public.small"},
    "UPDATE small SET b = 'y' WHERE a = 1": {"public.small"},
    "DELETE FROM small WHERE a = 3": {"public.small"},
    "BEGIN; SAVEPOINT a; TRUNCATE small, other; COMMIT": {"public.small", "public.other"},
    "TRUNCATE other": {"public.other"},
    "ALTER TABLE small ALTER a TYPE bigint": {"public.small"},
    "CREATE TABLE fresh AS SELECT 1": {"public.fresh"},
}  # fmt: skip
HARMLESS = (
    "SELECT count(*) FROM small",
    "SELECT FROM small WHERE a = 1 FOR UPDATE",
    "INSERT INTO other SELECT 2",  # the foreign key locks a row of small
    "VACUUM FREEZE small",
    "ANALYZE small",
    "CREATE INDEX ON small (b)",
    "CREATE UNLOGGED TABLE unlogged AS SELECT 1",
)


class Wal:
    """The WAL of a running cluster, and where it stands."""

    def __init__(self, cluster: Cluster, dsn: str) -> None:
        self.cluster, self.dsn, self.folder = cluster, dsn, cluster.data_dir / "pg_wal"

    def position(self) -> str:
        """The insert position, with all before it on disk."""
        with connect(self.dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_logical_emit_message(true, 'lifeboat', 'flush')")
            row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        assert row is not None
        return str(row[0])

    def touched(self, start: str, stop: str) -> set[str]:
        """The touched tables of the database in that range."""
        relations = touched_relations(self.cluster.tools, self.folder, 1, start, stop)
        with connect(self.dsn) as connection:
            return touched_tables(connection, relations)


@pytest.fixture
def wal(each_cluster: Cluster, each_database: str) -> Wal:
    """A database with the test's tables."""
    with connect(each_database, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        connection.execute(SCHEMA)
    return Wal(each_cluster, each_database)


@pytest.fixture
def writer(wal: Wal) -> Iterator[Connection]:
    """Another session."""
    with connect(wal.dsn, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        yield connection


def in_public(tables: set[str]) -> set[str]:
    """Without catalog tables."""
    return {name for name in tables if name.startswith("public.")}


def test_statements_that_change_rows(wal: Wal, writer: Connection) -> None:
    for statement, expected in TOUCHING.items():
        start = wal.position()
        writer.execute(statement)
        assert in_public(wal.touched(start, wal.position())) == expected, statement


def test_statements_that_change_none(wal: Wal, writer: Connection) -> None:
    for statement in HARMLESS:
        writer.execute("CHECKPOINT")  # so that hint bits and locks write whole pages
        start = wal.position()
        writer.execute(statement)
        assert "public.small" not in wal.touched(start, wal.position()), statement


def test_a_fingerprint_touches_nothing(wal: Wal, writer: Connection) -> None:
    writer.execute("INSERT INTO small SELECT g, 'x' FROM generate_series(1000, 3000) g")
    writer.execute("DELETE FROM small WHERE a % 2 = 0")
    writer.execute("CHECKPOINT")
    start = wal.position()
    fingerprint(wal.dsn)
    fingerprint(wal.dsn)
    assert wal.touched(start, wal.position()) == set()


def test_other_databases_do_not_count(wal: Wal, each_cluster: Cluster) -> None:
    start = wal.position()
    with connect(each_cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.elsewhere AS SELECT 1; DROP TABLE public.elsewhere")
    assert wal.touched(start, wal.position()) == set()


def test_chunks_lose_no_record(wal: Wal, writer: Connection) -> None:
    start = wal.position()
    writer.execute("INSERT INTO small SELECT g, repeat('x', 1000) FROM generate_series(1000, 4000) g")
    writer.execute("INSERT INTO other SELECT 1 FROM generate_series(1, 300)")
    writer.execute("CREATE TABLE third AS SELECT 1")
    stop = wal.position()
    tools = wal.cluster.tools
    whole = touched_relations(tools, wal.folder, 1, start, stop)
    assert touched_relations(tools, wal.folder, 1, start, stop, chunk_bytes=200_000) == whole
    assert touched_relations(tools, wal.folder, 1, start, start) == set()


def test_the_stop_may_lie_behind_a_segment_switch(wal: Wal, writer: Connection) -> None:
    start = wal.position()
    writer.execute("INSERT INTO small VALUES (0)")
    writer.execute("SELECT pg_switch_wal()")
    row = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    assert row[0].endswith("000028")
    assert wal.touched(start, row[0]) == {"public.small"}
    assert wal.touched(row[0], row[0]) == set()


def test_missing_wal_is_an_error(wal: Wal, writer: Connection, reachable_tmp: Path) -> None:
    start = wal.position()
    writer.execute("SELECT pg_switch_wal()")
    writer.execute("INSERT INTO small VALUES (0)")
    stop = wal.position()
    segment = sorted(path.name for path in wal.folder.iterdir() if len(path.name) == 24)[0]
    with pytest.raises(WalUnreadable, match="there is no WAL segment"):
        touched_relations(wal.cluster.tools, reachable_tmp, 1, start, stop)
    shutil.copy(wal.folder / segment, reachable_tmp / segment)
    give_tree_to(reachable_tmp, wal.cluster.tools.user)
    with pytest.raises(WalUnreadable, match="is not complete"):
        touched_relations(wal.cluster.tools, reachable_tmp, 1, start, stop)
    truncated = wal.cluster.tools, wal.folder, 1, start, "FFFF/0"
    with pytest.raises(WalUnreadable, match="is not complete"):
        touched_relations(*truncated)


def test_the_guard_names_tables_being_written(wal: Wal, writer: Connection) -> None:
    with (
        connect(wal.dsn) as inserting,
        connect(wal.dsn) as reading,
        connect(wal.dsn, autocommit=True) as connection,
    ):
        inserting.execute("INSERT INTO public.small VALUES (0)")
        reading.execute("SELECT FROM public.small FOR KEY SHARE")
        reading.execute("LOCK TABLE public.other IN SHARE UPDATE EXCLUSIVE MODE")
        guarded = snapshot_guard(connection)
        assert guarded.busy_tables == ("public.small",)
        inserting.commit()
        row = connection.execute("SELECT count(*) FROM public.small").fetchone()
        assert row == (500,)
        assert wal.touched(guarded.lsn, wal.position()) == set()
        connection.execute("ROLLBACK")


def test_the_guard_works_without_autocommit(wal: Wal) -> None:
    with connect(wal.dsn) as connection:
        snapshot_guard(connection)
        taken = take_fingerprint(connection, budget=FingerprintBudget(), lsn=None)
    assert [table.row_count for table in taken.tables] == [1, 500]


def test_the_guard_sees_prepared_transactions(wal: Wal, writer: Connection) -> None:
    writer.execute("BEGIN; INSERT INTO public.small VALUES (0); PREPARE TRANSACTION 'guard'")
    try:
        with connect(wal.dsn, autocommit=True) as connection:
            assert snapshot_guard(connection).busy_tables == ("public.small",)
    finally:
        writer.execute("COMMIT PREPARED 'guard'")


@pytest.mark.parametrize("prepared", [False, True])
def test_ddl_that_was_open_at_the_snapshot_is_found_by_its_commit(wal: Wal, writer: Connection, prepared: bool) -> None:
    writer.execute("BEGIN")
    writer.execute("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    if prepared:
        writer.execute("PREPARE TRANSACTION 'ddl'")
    with connect(wal.dsn, autocommit=True) as connection:
        guarded = snapshot_guard(connection)
        before = take_fingerprint(connection, budget=FingerprintBudget(), lsn=guarded.lsn)
    writer.execute("COMMIT PREPARED 'ddl'" if prepared else "COMMIT")
    touched = wal.touched(guarded.lsn, wal.position())
    assert UNKNOWN_CATALOG in touched
    after = fingerprint(wal.dsn)
    assert not compare(before, after).passed
    found = compare(before, after, not_compared=touched)
    assert found.passed
    assert "function public.f(): not in the backup" in map(str, found.changed_during_backup)


@pytest.fixture
def physical_copy(each_cluster: Cluster, reachable_tmp: Path) -> Iterator[Callable[[], Cluster]]:
    """Makes a base backup and starts it, without a connection to the source."""
    copies: list[Cluster] = []

    def make() -> Cluster:
        copy = Cluster(reachable_tmp / "copy", each_cluster.tools, reachable_tmp / "s")
        source = ConnectionInfo.parse(each_cluster.dsn())
        each_cluster.tools.run(
            "pg_basebackup", ["-D", copy.data_dir, "-c", "fast", "--no-sync"], connection=source, timeout_seconds=120
        )
        copies.append(copy)
        copy.start()
        return copy

    yield make
    for copy in copies:
        copy.stop()


def test_a_physical_copy_equals_the_fingerprint(
    wal: Wal, writer: Connection, physical_copy: Callable[[], Cluster]
) -> None:
    writer.execute("CREATE TABLE quiet AS SELECT generate_series(1, 400) AS a")
    writer.execute("CREATE TABLE late AS SELECT generate_series(1, 9) AS a")
    with connect(wal.dsn) as open_writer, connect(wal.dsn, autocommit=True) as connection:
        open_writer.execute("INSERT INTO public.other VALUES (1)")
        guarded = snapshot_guard(connection)
        before = take_fingerprint(
            connection, budget=FingerprintBudget(), lsn=guarded.lsn, busy_tables=guarded.busy_tables
        )
        open_writer.commit()
        writer.execute("DELETE FROM small WHERE a = 3")
        copy = physical_copy()
        stop = wal.position()
        writer.execute("DELETE FROM quiet")  # after the stop: no difference
    relations = touched_relations(wal.cluster.tools, wal.folder, 1, guarded.lsn, stop)
    database = str(ConnectionInfo.parse(wal.dsn).database)
    with connect(copy.dsn(database), autocommit=True) as restored:
        touched = touched_tables(restored, relations) | set(guarded.busy_tables)
        after = fingerprint(copy.dsn(database))
        found = compare(before, after, not_compared=touched)
        assert found.differences == ()
        assert found.matched_tables == ("public.late", "public.quiet")
        assert found.not_compared_tables == ("public.other", "public.small")
        restored.execute("UPDATE public.quiet SET a = -1 WHERE a = 7")
        restored.execute("DELETE FROM public.late WHERE a = 7")
        found = compare(before, fingerprint(copy.dsn(database)), not_compared=touched)
        assert list(map(str, found.differences)) == [
            "table public.late: row count 9 → 8",
            "table public.quiet: content differs",
        ]
