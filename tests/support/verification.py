"""Servers of each PostgreSQL version and a database with one of everything, for the tests of verification."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel, sql

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.settings.drills import FingerprintBudget
from lifeboat.storage.manifest import Fingerprint
from lifeboat.verification.fingerprints import take_fingerprint
from tests.support.postgres import reachable_dir

KEEP_WAL: dict[str, str | int | float] = {"max_wal_size": "4GB", "wal_keep_size": "4GB"}
_EVERYTHING = Path(__file__).with_name("everything.sql")


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[PgTools], Cluster]]:
    """Starts one server of each version, once: a parametrized fixture would start anew whenever the version changes."""
    with ExitStack() as stack:

        @cache
        def started(tools: PgTools) -> Cluster:
            folder = stack.enter_context(reachable_dir())
            cluster = Cluster(folder / "data", tools, folder / "socket")
            cluster.init(extra_args=["--no-sync"])
            # Only for speed: what tests write need not survive a power cut.
            cluster.write_settings({"fsync": False, "listen_addresses": "", "max_prepared_transactions": 4, **KEEP_WAL})
            cluster.start()
            stack.callback(cluster.stop)
            return cluster

        yield started


@pytest.fixture(scope="session")
def each_cluster(clusters: Callable[[PgTools], Cluster], each_pg_tools: PgTools) -> Cluster:
    """A running server of each PostgreSQL version."""
    return clusters(each_pg_tools)


@pytest.fixture
def each_database(each_cluster: Cluster) -> Iterator[str]:
    """The DSN of a new, empty database in a server of each version."""
    with new_database(each_cluster) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def everything(each_cluster: Cluster) -> Iterator[str]:
    """The DSN of a database with one of everything, for tests that leave it as it is."""
    with new_database(each_cluster) as dsn:
        create_everything(dsn)
        yield dsn
        with connect(each_cluster.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(role_name(dsn)[:-5])))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role_name(dsn))))


@contextmanager
def new_database(cluster: Cluster) -> Iterator[str]:
    """The DSN of a new, empty database, dropped afterwards; the roles named after it too."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield cluster.dsn(name)
    with connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def create_everything(dsn: str) -> None:
    """Run everything.sql in an empty database; its role is named after the database."""
    script = _EVERYTHING.read_text("utf-8").replace("{role}", role_name(dsn))
    with connect(dsn, autocommit=True) as connection:
        connection.execute(script)


def role_name(dsn: str) -> str:
    """The role that the database's objects are granted to."""
    return f"{ConnectionInfo.parse(dsn).database}_role"


def fingerprint(dsn: str, budget: FingerprintBudget | None = None) -> Fingerprint:
    """The fingerprint of a database as of now."""
    with snapshot(dsn) as connection:
        return take_fingerprint(connection, budget=budget or FingerprintBudget(), lsn=None)


@contextmanager
def snapshot(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection in a REPEATABLE READ transaction."""
    with connect(dsn) as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT 1")
        yield connection


def dump_and_restore(tools: PgTools, source: str, target: str, folder: Path) -> None:
    """Bring the content of one database into another, empty one by pg_dump and pg_restore."""
    dump = folder / f"dump-{uuid.uuid4().hex[:8]}"
    tools.run("pg_dump", ["-Fd", "-f", dump], connection=ConnectionInfo.parse(source), timeout_seconds=120)
    into = ConnectionInfo.parse(target)
    tools.run("pg_restore", ["-d", str(into.database), "--exit-on-error", dump], connection=into, timeout_seconds=120)
    shutil.rmtree(dump)
