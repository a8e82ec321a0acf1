"""The agent on real servers: it beats, gives way to another one, and outlives what servers and networks do."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from lifeboat.agent.heartbeat import (
    HeartbeatForbidden,
    beat,
    heartbeat_age_seconds,
    newest_heartbeat,
    prepare_heartbeat,
    setup_statements,
)
from lifeboat.agent.lock import running_agent as agent_at_work
from lifeboat.agent.waking import wake_checkpointer
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.lock import LOCK_DATABASE
from lifeboat.settings.loading import CONFIG_VARIABLE
from tests.support.agent import beat_after, running_agent, soon
from tests.support.command_line import settings_file

__all__ = ["settings_file"]  # a fixture


ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(each_stopped_cluster: Cluster) -> Iterator[Cluster]:
    """A running server of each version."""
    each_stopped_cluster.start()
    yield each_stopped_cluster
    each_stopped_cluster.stop()


def test_it_makes_its_table_and_beats(server: Cluster, catalog: Catalog) -> None:
    with connect(server.dsn(), autocommit=True) as session:
        assert newest_heartbeat(session) is None
        assert heartbeat_age_seconds(session) is None
        with running_agent(server.dsn(), catalog) as agent:
            first = beat_after(server.dsn())
            second = beat_after(server.dsn(), first)
            age = heartbeat_age_seconds(session)
            (signed,) = session.execute("SELECT agent FROM lifeboat.heartbeat").fetchone() or ("",)
        rows = session.execute("SELECT count(*) FROM lifeboat.heartbeat").fetchone()
        with pytest.raises(psycopg.errors.CheckViolation):
            session.execute("INSERT INTO lifeboat.heartbeat VALUES (2, now(), 'two')")
    assert first < second
    assert age is not None
    assert 0 <= age < 60
    assert signed == agent.name
    assert rows == (1,)


def test_each_beat_is_a_commit_that_recovery_can_aim_at(server: Cluster, catalog: Catalog) -> None:
    """On a server where nothing else happens, and although its commits need not be flushed."""
    server.write_settings({"synchronous_commit": "off"})
    server.reload()
    with connect(server.dsn(), autocommit=True) as session, running_agent(server.dsn(), catalog):
        at = beat_after(server.dsn())
        before = session.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
        beat_after(server.dsn(), beat_after(server.dsn(), at))
        after = session.execute("SELECT pg_current_wal_flush_lsn()").fetchone()
    assert before is not None
    assert after is not None
    assert before < after


def test_archive_timeout_counts_at_once_on_a_server_that_was_just_started(
    each_stopped_cluster: Cluster, catalog: Catalog
) -> None:
    """Not only when the checkpointer wakes by itself: that is checkpoint_timeout, 300 s, after the start."""
    each_stopped_cluster.write_settings({"archive_mode": True, "archive_command": "true", "archive_timeout": 1})
    each_stopped_cluster.start()
    dsn = each_stopped_cluster.dsn()
    with connect(dsn, autocommit=True) as session, running_agent(dsn, catalog):
        soon(lambda: session.execute("SELECT archived_count FROM pg_stat_archiver").fetchone() != (0,))
    each_stopped_cluster.stop()


def test_a_server_is_waked_only_where_it_matters_and_by_who_may(each_stopped_cluster: Cluster) -> None:
    server = each_stopped_cluster
    server.start()
    with connect(server.dsn(), autocommit=True) as session:
        assert not wake_checkpointer(session)  # archive_timeout is 0
        session.execute("CREATE ROLE plain LOGIN")
    server.stop()
    server.write_settings({"listen_addresses": "", "fsync": False, "archive_timeout": 10})
    time.sleep(1.1)  # a file's time is taken in whole seconds here, and must be before the start
    server.start()
    with connect(server.dsn(), autocommit=True) as session, connect(server.dsn(user="plain"), autocommit=True) as plain:
        assert not wake_checkpointer(plain)
        session.execute("GRANT EXECUTE ON FUNCTION pg_reload_conf(), pg_stat_file(text, boolean) TO plain")
        session.execute("GRANT pg_read_all_settings, pg_read_server_files TO plain")
        for name in ("pg_hba.conf", "postgresql.auto.conf"):
            edited = server.data_dir / name
            before = edited.stat()
            os.utime(edited, (before.st_atime, time.time() + 5))
            for each in (session, plain):
                assert not wake_checkpointer(each)  # somebody has changed it, and not reloaded yet
            os.utime(edited, (before.st_atime, before.st_mtime))
        assert wake_checkpointer(plain)
        soon(lambda: not wake_checkpointer(session))  # it is awake, once the reload has come through
    server.stop()


def test_a_second_agent_waits_and_takes_over(
    server: Cluster, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lifeboat")
    with running_agent(server.dsn(), catalog) as first:
        beat_after(server.dsn())
        with connect(server.dsn(LOCK_DATABASE), autocommit=True) as session:
            holder = agent_at_work(session)
            assert holder is not None
            assert holder.application_name == "lifeboat agent"
            with running_agent(server.dsn(), catalog, heartbeat_seconds=0.2):
                soon(lambda: "another agent works for this cluster" in caplog.text)
                first.stopping.set()
                soon(lambda: (now := agent_at_work(session)) is not None and now.pid != holder.pid)
                at = beat_after(server.dsn())
                beat_after(server.dsn(), at)
            soon(lambda: agent_at_work(session) is None)


def test_it_comes_back_after_a_restart_of_the_server(
    server: Cluster, catalog: Catalog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lifeboat")
    with running_agent(server.dsn(), catalog):
        before = beat_after(server.dsn())
        server.stop()
        soon(lambda: re.search(r"heartbeat: .*; trying again in 2 s", caplog.text) is not None)
        server.start()
        assert beat_after(server.dsn(), before) > before
        soon(lambda: "heartbeat: works again after" in caplog.text)
        soon(lambda: catalog.relations.names("studio") != [])


@pytest.mark.parametrize("which", ["lifeboat agent", "lifeboat agent: heartbeat"])
def test_it_takes_new_sessions_where_its_own_are_ended(server: Cluster, catalog: Catalog, which: str) -> None:
    """Without its lock it must not write on: another agent may have it."""
    with running_agent(server.dsn(), catalog):
        before = beat_after(server.dsn())
        with connect(server.dsn(), autocommit=True) as session:
            ended = session.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", (which,)
            ).fetchall()
            assert len(ended) == 1
            soon(
                lambda: (
                    (holder := agent_at_work(session)) is not None
                    and session.execute(
                        "SELECT FROM pg_stat_activity WHERE application_name = 'lifeboat agent: heartbeat'"
                        " AND pid <> %s",
                        (ended[0][0],),
                    ).fetchone()
                    is not None
                    and holder.pid != ended[0][0]
                )
            )
        beat_after(server.dsn(), before)


def test_a_role_without_rights_is_told_what_a_superuser_runs(server: Cluster) -> None:
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute('CREATE ROLE "the agent" LOGIN')
        admin.execute("CREATE DATABASE studio")
    info = ConnectionInfo.parse(server.dsn("studio", "the agent"))
    with connect(info, autocommit=True) as session:
        with pytest.raises(HeartbeatForbidden, match=r"may not make lifeboat\.heartbeat") as refused:
            prepare_heartbeat(session)
        with connect(server.dsn("studio"), autocommit=True) as admin:
            admin.execute("CREATE SCHEMA lifeboat")
            with pytest.raises(HeartbeatForbidden):
                prepare_heartbeat(session)
            for statement in setup_statements("the agent"):
                assert statement in (refused.value.hint or "")
                admin.execute(statement.encode())
        assert prepare_heartbeat(session) is False
        assert beat(session, "test") == newest_heartbeat(session)
        with connect(server.dsn("studio"), autocommit=True) as admin:
            admin.execute('REVOKE UPDATE ON lifeboat.heartbeat FROM "the agent"')
        with pytest.raises(HeartbeatForbidden, match=r"may not write lifeboat\.heartbeat"):
            prepare_heartbeat(session)


def test_subscribers_of_all_tables_are_not_stopped(server: Cluster) -> None:
    with connect(server.dsn(), autocommit=True) as session:
        session.execute("SET client_min_messages = error")
        session.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        with pytest.raises(HeartbeatForbidden, match="everything publishes all tables"):
            prepare_heartbeat(session)
        assert newest_heartbeat(session) is None


def test_systemd_is_not_told_that_all_is_well_while_the_heartbeat_hangs(
    server: Cluster, catalog: Catalog, reachable_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lifeboat.agent.agent._HANGS_SECONDS", 1.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(reachable_tmp / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(reachable_tmp / "notify"))
        channel.settimeout(60)

        def hear(of_watchdog: bool) -> None:
            while ("WATCHDOG=1" in (said := channel.recv(4096).decode())) is not of_watchdog or "STATUS" not in said:
                pass

        with running_agent(server.dsn(), catalog), connect(server.dsn()) as session:
            beat_after(server.dsn())
            session.execute("LOCK TABLE lifeboat.heartbeat")
            hear(of_watchdog=False)
            session.rollback()
            hear(of_watchdog=True)


def test_the_process_ends_cleanly_and_tells_systemd(settings_file: Path, reachable_tmp: Path) -> None:
    address = reachable_tmp / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        channel.settimeout(60)
        variables = {CONFIG_VARIABLE: str(settings_file), "NOTIFY_SOCKET": str(address), "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [sys.executable, "-m", "console.cli.main", "agent"],
            env={**os.environ, **variables},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            said = ""
            while "STATUS=newest heartbeat" not in said:
                said = channel.recv(4096).decode()
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=60)
            assert process.returncode == 0, log
        left = said
        while "STOPPING=1" not in left:
            left = channel.recv(4096).decode()
    assert "the first heartbeat was written at" in log
    assert "the agent of studio has ended" in log
    assert "Traceback" not in log
