"""Loads that fill WAL: short transactions as pgbench has them, a mass DELETE, COPY."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import psycopg

from lifeboat.postgres.cluster import Cluster
from lifeboat.wal.names import parse_lsn

DATABASE = "bench"
# By a procedure: the embedded PostgreSQL has no pgbench.
_TABLES = """
CREATE TABLE accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
INSERT INTO accounts SELECT g, 1, 0, '' FROM generate_series(1, 100000) g;
CREATE TABLE tellers (tid int PRIMARY KEY, bid int, tbalance int);
INSERT INTO tellers SELECT g, 1, 0 FROM generate_series(1, 10) g;
CREATE TABLE branches (bid int PRIMARY KEY, bbalance int);
INSERT INTO branches VALUES (1, 0);
CREATE TABLE history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
CREATE TABLE bulk (id int PRIMARY KEY, body text);
CREATE PROCEDURE play(rounds int) LANGUAGE plpgsql AS $$
DECLARE a int; t int; d int;
BEGIN
    FOR i IN 1..rounds LOOP
        a := 1 + floor(random() * 100000); t := 1 + floor(random() * 10); d := floor(random() * 10000) - 5000;
        UPDATE accounts SET abalance = abalance + d WHERE aid = a;
        UPDATE tellers SET tbalance = tbalance + d WHERE tid = t;
        UPDATE branches SET bbalance = bbalance + d WHERE bid = 1;
        INSERT INTO history VALUES (t, 1, a, d, now(), '');
        COMMIT;
    END LOOP;
END $$;
"""


@dataclass
class LoadedServer:
    """A running server with the tables that the loads write to."""

    cluster: Cluster

    def prepare(self) -> None:
        """Make the database and its tables."""
        with psycopg.connect(self.cluster.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}".encode())
        self.run(_TABLES)

    def run(self, statement: str) -> object:
        """Run one statement; returns its first value."""
        with psycopg.connect(self.cluster.dsn(DATABASE), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    def position(self) -> int:
        """Where WAL is."""
        return parse_lsn(str(self.run("SELECT pg_current_wal_lsn()::text")))

    def now(self) -> datetime:
        """The server's clock."""
        return datetime.fromisoformat(str(self.run("SELECT clock_timestamp()::text")))


# Calls a load when what it needs is there: what was written before is not part of it.
Begin = Callable[[], None]


def load_short(server: LoadedServer, size_bytes: int, begin: Begin) -> None:
    """Short transactions until so much WAL is there."""
    begin()
    until = server.position() + size_bytes
    while server.position() < until:
        server.run("CALL play(5000)")


def load_delete(server: LoadedServer, size_bytes: int, begin: Begin) -> None:
    """One DELETE that writes about so much WAL."""
    server.run("TRUNCATE bulk")
    rows = max(10_000, size_bytes // 62)
    server.run(f"INSERT INTO bulk SELECT g, 'a body of some length' FROM generate_series(1, {rows}) g")
    # Read once: the first reader writes hint bits, with data checksums into WAL too.
    server.run("VACUUM bulk")
    begin()
    server.run("DELETE FROM bulk")


def load_copy(server: LoadedServer, size_bytes: int, begin: Begin) -> None:
    """COPY until so much WAL is there."""
    server.run("TRUNCATE bulk")
    begin()
    until, first, rows = server.position() + size_bytes, 1, 100_000
    while server.position() < until:
        with (
            psycopg.connect(server.cluster.dsn(DATABASE), autocommit=True) as connection,
            connection.cursor().copy("COPY bulk FROM STDIN") as copy,
        ):
            for number in range(first, first + rows):
                copy.write(f"{number}\ta body of some length for each of the rows, as a platform has them\n")
        first += rows


LOADS: dict[str, Callable[[LoadedServer, int, Begin], None]] = {
    "short transactions": load_short,
    "mass DELETE": load_delete,
    "COPY": load_copy,
}
