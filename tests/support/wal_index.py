"""A server whose WAL is archived segment by segment and indexed; triggers count beside it what is true."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lifeboat.catalog.store import Catalog
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.activity.index import IndexReport, build_index
from lifeboat.wal.activity.preview import RelationActivity, Undone, activity_between, undone_by_restore
from lifeboat.wal.activity.relation_names import observe_relations
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.archive_program.push import push
from lifeboat.wal.names import parse_lsn, segment_at
from tests.support.postgres import reachable_dir
from tests.support.wal import SEGMENT_BYTES, ArchiveForTest, make_archive

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
Counted = dict[str, tuple[int, int, int]]

# The rows go into our own schema, which the index leaves out: they commit and roll back with what they count.
TRUTH = """
CREATE SCHEMA IF NOT EXISTS lifeboat;
CREATE TABLE IF NOT EXISTS lifeboat.truth (relation oid, operation text);
CREATE OR REPLACE FUNCTION lifeboat.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO lifeboat.truth VALUES (TG_RELID, TG_OP); RETURN NULL; END $$;
"""
READ_TRUTH = """
SELECT n.nspname || '.' || c.relname, count(*) FILTER (WHERE operation = 'INSERT'),
       count(*) FILTER (WHERE operation = 'UPDATE'), count(*) FILTER (WHERE operation = 'DELETE')
FROM lifeboat.truth t JOIN pg_class c ON c.oid = t.relation JOIN pg_namespace n ON n.oid = c.relnamespace GROUP BY 1
"""


@dataclass
class IndexLab:
    """One test's archive, index and database in a running server."""

    cluster: Cluster
    catalog: Catalog
    folder: Path
    archived: ArchiveForTest
    database: str
    name: str = "studio"
    next_number: int = 0
    window_bytes: int = 4 * SEGMENT_BYTES
    other_databases: list[str] = field(default_factory=list)
    timeline: int = 1

    @property
    def archive(self) -> FilesystemArchive:
        return FilesystemArchive(Path(self.archived.config.path), self.name)

    @property
    def source(self) -> Source:
        return Source(self.archive, self.cluster.tools, self.folder, 120, window_bytes=self.window_bytes)

    def connect(self, database: str | None = None) -> psycopg.Connection[Any]:
        """A session that commits each statement by itself."""
        connection = connect(self.cluster.dsn(database or self.database), autocommit=True)
        connection.execute("SET search_path = public")
        return connection

    def run(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def value(self, query: str) -> Any:  # noqa: ANN401 - any column
        with self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]

    def make_truth(self, *tables: str) -> None:
        """Count what happens to the tables by trigger."""
        self.run(TRUTH)
        for table in tables:
            self.run(
                f"CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON {table} "
                "FOR EACH ROW EXECUTE FUNCTION lifeboat.tell()"
            )

    def switch(self) -> int:
        """End the current segment; returns the number of the one after it."""
        self.run("SELECT pg_logical_emit_message(true, 'lifeboat', 'x')", "SELECT pg_switch_wal()")
        position = parse_lsn(self.value("SELECT pg_current_wal_lsn()::text"))
        return -(-position // SEGMENT_BYTES) if position % SEGMENT_BYTES else position // SEGMENT_BYTES

    def begin(self) -> None:
        """The archive begins here."""
        position = parse_lsn(self.value("SELECT pg_switch_wal()::text"))
        self.next_number = -(-position // SEGMENT_BYTES)
        self.run("SELECT pg_logical_emit_message(true, 'lifeboat', 'x')")

    def push(self, count: int | None = None, *, switch: bool = True, skip: int = 0) -> list[str]:
        """Archive the segments that are complete, the first `count` of them, leaving out `skip`; returns names."""
        if switch:
            self.switch()
        position = parse_lsn(self.value("SELECT pg_current_wal_lsn()::text"))
        end = position // SEGMENT_BYTES
        if count is not None:
            end = min(end, self.next_number + count)
        names = []
        for number in range(self.next_number + skip, end):
            name = segment_at(number * SEGMENT_BYTES, self.timeline, SEGMENT_BYTES).name
            push(self.archived.program_config, str(self.cluster.data_dir / "pg_wal" / name), name)
            names.append(name)
        self.next_number = max(end, self.next_number + skip)
        return names

    def observe(self) -> int:
        changed = 0
        for database in (self.database, *self.other_databases):
            with self.connect(database) as connection:
                changed += observe_relations(connection, self.catalog, self.name)
        return changed

    def index(self, **options: Any) -> IndexReport:  # noqa: ANN401 - those of build_index
        return build_index(self.source, self.catalog, self.name, **options)

    def catch_up(self, **options: Any) -> IndexReport:  # noqa: ANN401 - those of build_index
        """Observe, archive and index all that has happened."""
        self.observe()
        self.push()
        report = self.index(**options)
        assert report.stopped == ()
        return report

    def truth(self) -> Counted:
        with self.connect() as connection:
            rows = connection.execute(READ_TRUTH.encode()).fetchall()
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    def activity(self, start: datetime = LONG_AGO, end: datetime | None = None) -> list[RelationActivity]:
        return activity_between(self.source, self.catalog, self.name, self.timeline, start, end)

    def counted(self, start: datetime = LONG_AGO, end: datetime | None = None) -> Counted:
        """What the index says of this test's database."""
        return {
            item.relation: (item.inserted_rows, item.updated_rows, item.deleted_rows)
            for item in self.activity(start, end)
            if item.database in (self.database, str(self.value(f"SELECT '{self.database}'::name")))
        }

    def undone(self, at: datetime) -> Undone:
        return undone_by_restore(self.source, self.catalog, self.name, self.timeline, at)

    def events(self) -> list[str]:
        return [event.text for event in self.catalog.activity.events(self.name, LONG_AGO)]


def start_indexed_cluster(tools: PgTools, root: Path, name: str = "data") -> Cluster:
    """A server with segments of 1 MB that keeps them."""
    cluster = Cluster(root / name, tools, root / f"run-{name}", 5436)
    cluster.init(extra_args=["--wal-segsize=1", "--no-sync"])
    cluster.write_settings(
        {
            "listen_addresses": "",
            "fsync": False,
            "wal_keep_size": "2GB",
            "max_wal_size": "2GB",
            "max_prepared_transactions": 10,
            "autovacuum": False,
        }
    )
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def indexed_cluster(each_pg_tools: PgTools) -> Iterator[Cluster]:
    """One server of each version for a module's tests."""
    with reachable_dir() as root:
        cluster = start_indexed_cluster(each_pg_tools, root)
        yield cluster
        cluster.stop()


@contextmanager
def index_lab(cluster: Cluster, catalog: Catalog, folder: Path) -> Iterator[IndexLab]:
    """An archive and a database of their own, dropped afterwards."""
    system = cluster.controldata()["Database system identifier"]
    database = f"lab_{uuid.uuid4().hex[:8]}"
    with connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database}".encode())
    lab = IndexLab(cluster, catalog, folder, make_archive(folder, system_identifier=system), database)
    lab.begin()
    yield lab
    with connect(cluster.dsn(), autocommit=True) as connection:
        for made in (database, *lab.other_databases):
            with suppress(psycopg.Error):
                connection.execute(f"DROP DATABASE IF EXISTS {made} WITH (FORCE)".encode())


@pytest.fixture
def lab(indexed_cluster: Cluster, catalog: Catalog, reachable_tmp: Path) -> Iterator[IndexLab]:
    """A running server of each version with an archive and an index."""
    with index_lab(indexed_cluster, catalog, reachable_tmp) as made:
        yield made
