"""The embedded server: one of it, whoever asks and how often."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import AuthenticationFailed, connect
from lifeboat.postgres.embedded import EmbeddedServer, WrongServerVersion
from lifeboat.postgres.folders import FolderUnreachable
from lifeboat.postgres.postmaster import processes_in
from tests.support.agent import soon
from tests.support.network import free_port


@pytest.fixture
def server(pg_tools: PgTools, reachable_tmp: Path) -> EmbeddedServer:
    """A server that was never started; `reachable_tmp` ends it."""
    return EmbeddedServer(reachable_tmp / "postgres", settings={"fsync": False}, bin_dir=pg_tools.bin_dir)


def _show(server: EmbeddedServer, name: str) -> str:
    with connect(server.dsn()) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_it_is_created_once_and_keeps_its_data(server: EmbeddedServer) -> None:
    assert not server.is_running()
    server.stop()
    first = server.start().postmaster_pid()
    with connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE public.kept AS SELECT 1 AS id")

    assert server.start().postmaster_pid() == first
    server.stop()
    assert not server.is_running()
    server.start()

    with connect(server.dsn()) as connection:
        assert connection.execute("SELECT id FROM public.kept").fetchone() == (1,)
    assert _show(server, "listen_addresses") == ""
    assert _show(server, "wal_level") == "replica"
    if server.tools.major >= 17:
        assert _show(server, "summarize_wal") == "on"


def test_only_a_setting_that_needs_it_restarts_the_server(server: EmbeddedServer) -> None:
    first = server.start().postmaster_pid()

    changed = EmbeddedServer(server.state_dir, {"fsync": False, "work_mem": "9MB"}, bin_dir=server.bin_dir)
    assert changed.start().postmaster_pid() == first
    assert _show(changed, "work_mem") == "9MB"

    archiving = EmbeddedServer(
        server.state_dir,
        {"fsync": False, "archive_mode": True, "archive_command": "test 'a b' = 'a b'"},
        bin_dir=server.bin_dir,
    )
    assert archiving.start().postmaster_pid() != first
    assert _show(archiving, "archive_mode") == "on"
    assert _show(archiving, "archive_command") == "test 'a b' = 'a b'"


def test_archive_timeout_counts_from_the_start(server: EmbeddedServer) -> None:
    """Not only when the checkpointer wakes by itself: that is checkpoint_timeout, 300 s, after the start."""
    server.start()
    server.stop()
    settings: dict[str, SettingValue] = {
        "fsync": False,
        "archive_mode": True,
        "archive_command": "true",
        "archive_timeout": 1,
    }
    EmbeddedServer(server.state_dir, settings, bin_dir=server.bin_dir).start()
    with connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.committed (a int)")
        soon(lambda: connection.execute("SELECT archived_count FROM pg_stat_archiver").fetchone() != (0,))


def test_tcp_wants_the_generated_password(server: EmbeddedServer) -> None:
    server.start()
    port = free_port()
    open_server = EmbeddedServer(server.state_dir, {"fsync": False}, tcp_port=port, bin_dir=server.bin_dir)
    open_server.start()

    with connect(open_server.tcp_dsn()) as connection:
        assert connection.execute("SELECT inet_server_addr()::text").fetchone() == ("127.0.0.1/32",)
    with pytest.raises(AuthenticationFailed, match="password authentication failed") as caught:
        connect(make_conninfo(open_server.tcp_dsn(), password="hunter2"))
    assert "hunter2" not in str(caught.value)
    password_file = server.state_dir / "superuser-password"
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert password_file.read_text().strip() not in open_server.cluster.log_path.read_text()
    assert stat.S_IMODE(open_server.cluster.socket_dir.stat().st_mode) == 0o700


def test_two_starters_at_once_get_one_server(server: EmbeddedServer) -> None:
    pids: list[int | None] = []

    def start() -> None:
        other = EmbeddedServer(server.state_dir, server.settings, bin_dir=server.bin_dir)
        pids.append(other.start().postmaster_pid())

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(pids) == 3
    assert len(set(pids)) == 1
    assert pids[0] is not None


_STARTER = (
    "import sys; from pathlib import Path; from lifeboat.postgres.embedded import EmbeddedServer;"
    "EmbeddedServer(Path(sys.argv[1]), bin_dir=Path(sys.argv[2])).start()"
)


@pytest.mark.parametrize("reached", ["postmaster.pid", "lifeboat.conf"])
def test_a_creation_that_is_killed_is_begun_again(server: EmbeddedServer, reached: str) -> None:
    """Killed with `kill -9` as soon as a file of the draft is there: inside initdb, and after it."""
    argv = [sys.executable, "-c", _STARTER, str(server.state_dir), str(server.bin_dir)]
    starter = subprocess.Popen(argv)
    while not list(server.state_dir.glob(f"draft-*/{reached}")) and starter.poll() is None:
        time.sleep(0.005)
    starter.kill()
    starter.wait()
    assert not (server.state_dir / "data").exists()

    server.start()

    pid = server.cluster.postmaster_pid()
    assert pid is not None
    server.start()
    assert not list(server.state_dir.glob("draft-*"))
    assert {os.getsid(process.pid) for process in processes_in(server.state_dir)} >= {pid}
    assert {process.cwd() for process in processes_in(server.state_dir)} == {str(server.cluster.data_dir)}
    with connect(server.dsn()) as connection:
        query = "SELECT rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = 'postgres'"
        assert connection.execute(query).fetchone() == (True,)


def test_a_cluster_of_another_version_is_left_alone(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    (server.cluster.data_dir / "PG_VERSION").write_text("14\n")

    with pytest.raises(WrongServerVersion, match="holds PostgreSQL 14"):
        server.start()


def test_a_deep_folder_gets_a_short_socket(server: EmbeddedServer) -> None:
    deep = server.state_dir.parent / ("x" * 90)
    far = EmbeddedServer(deep, server.settings, bin_dir=server.bin_dir)
    try:
        far.start()
        with connect(far.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        far.stop()
        shutil.rmtree(far.cluster.socket_dir, ignore_errors=True)
    assert far.cluster.socket_dir.parent == Path(tempfile.gettempdir())


@pytest.fixture
def closed_dir() -> Iterator[Path]:
    """A folder that only root may enter."""
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts servers as another account")
def test_a_folder_closed_to_the_servers_account_is_named(pg_tools: PgTools, closed_dir: Path) -> None:
    with pytest.raises(FolderUnreachable, match=f"cannot enter {closed_dir}") as caught:
        EmbeddedServer(closed_dir / "state", bin_dir=pg_tools.bin_dir).start()

    assert f"chmod o+x {closed_dir}" in (caught.value.hint or "")


def test_sessions_do_not_depend_on_what_a_role_has_set(server: EmbeddedServer) -> None:
    server.start()
    with connect(server.dsn(), autocommit=True) as connection:
        for setting in ("timezone = 'Asia/Tokyo'", "search_path = 'evil'", "statement_timeout = '2s'"):
            connection.execute(psycopg.sql.SQL("ALTER ROLE postgres SET " + setting))

    with connect(server.dsn(), lock_timeout_seconds=1.5) as connection:
        shown = [
            connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in ("timezone", "search_path", "statement_timeout", "lock_timeout", "application_name")
        ]
    assert [row[0] for row in shown if row] == ["UTC", "pg_catalog", "0", "1500ms", "lifeboat"]
