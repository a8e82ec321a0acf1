"""Drill databases: dropped when their owner is dead, wherever it was, and nothing else is ever dropped."""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg import sql

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.drill_databases import DrillDatabaseFailed, drill_database, remove_abandoned_databases

LIKE_OURS = {"encoding": "UTF8", "collate": "C.UTF-8", "ctype": "C.UTF-8"}
ABANDONED = "lifeboat_drill_0badcafe"


@pytest.fixture
def server(embedded_cluster: Cluster) -> ConnectionInfo:
    """The server that drills share with others."""
    return ConnectionInfo.parse(embedded_cluster.dsn())


@pytest.fixture
def session(server: ConnectionInfo) -> Iterator[psycopg.Connection]:
    """An administrator's session."""
    with closing(connect(server, autocommit=True)) as opened:
        yield opened


def names(session: psycopg.Connection) -> set[str]:
    """The drill databases that are there."""
    return {row[0] for row in session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'lifeboat_drill_%'")}


def end_sessions(session: psycopg.Connection, role: str) -> None:
    """End the owner's or the keeper's session, as an administrator or a broken network does."""
    ended = session.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE %s",
        (f"lifeboat {role} of %",),
    ).fetchall()
    assert ended == [(True,)]


def tell(session: psycopg.Connection, name: str, comment: object) -> None:
    """Give a database another comment."""
    text = None if comment is None else json.dumps(comment)
    session.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(text)))


@contextmanager
def database_named(session: psycopg.Connection, name: str) -> Iterator[None]:
    """Somebody's own database."""
    session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield
    finally:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def test_it_is_empty_like_the_dumped_one_and_gone_afterwards(
    server: ConnectionInfo, session: psycopg.Connection
) -> None:
    with drill_database(server, LIKE_OURS) as database:
        with connect(database) as inside:
            found = inside.execute("SELECT current_database(), current_setting('server_encoding')").fetchone()
        assert found == (database.database, "UTF8")
        assert remove_abandoned_databases(server).removed == []
        assert names(session) == {database.database}
    assert names(session) == set()


def test_a_role_that_may_create_none_is_told(server: ConnectionInfo, session: psycopg.Connection) -> None:
    session.execute("CREATE ROLE reader LOGIN")
    try:
        powerless = server.with_parameters(user="reader")
        with (
            pytest.raises(DrillDatabaseFailed, match="permission denied") as caught,
            drill_database(powerless, LIKE_OURS),
        ):
            pass
        assert "CREATEDB" in str(caught.value.hint)
    finally:
        session.execute("DROP ROLE reader")


@pytest.mark.parametrize(
    ("name", "comment"),
    [
        (ABANDONED, None),
        (ABANDONED, {"drill_database": "lifeboat_drill_00000000", "host": "elsewhere", "pid": 1, "started_at": 1.0}),
        ("lifeboat_drill_of_mine", {"drill_database": "lifeboat_drill_of_mine"}),
    ],
    ids=["no mark", "another's mark", "another name"],
)
def test_what_lacks_our_name_or_our_mark_stays(
    server: ConnectionInfo, session: psycopg.Connection, name: str, comment: object
) -> None:
    with database_named(session, name):
        tell(session, name, comment)
        found = remove_abandoned_databases(server)
        assert (found.removed, found.left) == ([], {})
        assert names(session) == {name}


def test_a_drill_on_another_host_keeps_its_database_while_one_of_its_sessions_lives(
    server: ConnectionInfo, session: psycopg.Connection
) -> None:
    with drill_database(server, LIKE_OURS) as database:
        name = str(database.database)
        tell(session, name, {"drill_database": name, "host": "elsewhere", "pid": 1, "started_at": 1.0})
        assert remove_abandoned_databases(server).removed == []
        end_sessions(session, "owner")
        kept = remove_abandoned_databases(server)
        assert kept.removed == []
        assert "being accessed by other users" in kept.left[name]
        assert names(session) == {name}
        end_sessions(session, "keeper")
        assert remove_abandoned_databases(server).removed == [name]
        assert names(session) == set()


def test_a_living_process_of_this_host_keeps_its_database_without_any_session(
    server: ConnectionInfo, session: psycopg.Connection
) -> None:
    with drill_database(server, LIKE_OURS) as database:
        end_sessions(session, "owner")
        end_sessions(session, "keeper")
        assert remove_abandoned_databases(server).removed == []
        assert names(session) == {database.database}
    assert names(session) == set()


def test_an_owner_killed_before_it_could_write_its_name_is_recognised(
    server: ConnectionInfo, session: psycopg.Connection
) -> None:
    with drill_database(server, LIKE_OURS) as database:
        tell(session, str(database.database), None)
        assert remove_abandoned_databases(server).removed == []
        end_sessions(session, "owner")
        end_sessions(session, "keeper")
        assert remove_abandoned_databases(server).removed == [database.database]


def test_a_drop_that_was_interrupted_is_finished(server: ConnectionInfo, session: psycopg.Connection) -> None:
    """DROP DATABASE writes -2 over the connection limit before it removes anything; the comment is still there."""
    with database_named(session, ABANDONED):
        tell(session, ABANDONED, {"drill_database": ABANDONED, "host": "elsewhere", "pid": 1, "started_at": 1.0})
        session.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", (ABANDONED,))
        assert remove_abandoned_databases(server).removed == [ABANDONED]


def test_somebodys_database_of_the_drawn_name_stays(
    server: ConnectionInfo, session: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0badcafe"[: 2 * count])
    with database_named(session, ABANDONED):
        with (
            pytest.raises(DrillDatabaseFailed, match="already exists"),
            drill_database(server, LIKE_OURS),
        ):
            pass
        assert names(session) == {ABANDONED}


def test_a_name_that_another_drill_holds_is_refused(
    server: ConnectionInfo, session: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda count: "0badcafe"[: 2 * count])
    with drill_database(server, LIKE_OURS):
        with (
            pytest.raises(DrillDatabaseFailed, match="is taken"),
            drill_database(server, LIKE_OURS),
        ):
            pass
        assert names(session) == {ABANDONED}


def test_a_database_that_cannot_be_dropped_does_not_end_the_drill(
    server: ConnectionInfo, session: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    with drill_database(server, LIKE_OURS) as database, connect(database, autocommit=True) as inside:
        inside.execute(
            "CREATE SUBSCRIPTION feed CONNECTION 'host=nowhere' PUBLICATION p"
            " WITH (connect = false, slot_name = NONE, enabled = false)"
        )
    name = str(database.database)
    assert "stays for now: " in caplog.text
    tell(session, name, {"drill_database": name, "host": "elsewhere", "pid": 1, "started_at": 1.0})
    assert "subscription" in remove_abandoned_databases(server).left[name]
    with connect(database, autocommit=True) as inside:
        inside.execute("DROP SUBSCRIPTION feed")
    session.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
