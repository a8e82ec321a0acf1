"""A cluster on this machine: started as a daemon, stopped for certain, whatever its pid file says."""

import os
import subprocess
import sys
import threading

import psutil
import pytest

from lifeboat import commands
from lifeboat.postgres.cluster import Cluster, ServerStartFailed
from lifeboat.postgres.connections import connect, current_timeline, server_version, system_identifier
from lifeboat.postgres.folders import account_ids, give_to


@pytest.fixture
def cluster(each_stopped_cluster: Cluster) -> Cluster:
    """A new cluster of each version, not started."""
    return each_stopped_cluster


def test_a_cluster_is_made_as_documented(cluster: Cluster) -> None:
    assert cluster.controldata()["Database cluster state"] == "shut down"
    cluster.start()

    with connect(cluster.dsn()) as connection:
        shown = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in ("server_encoding", "data_checksums", "listen_addresses", "fsync")
        }
        made = connection.execute("SELECT datcollate FROM pg_database WHERE datname = 'postgres'").fetchone()
        assert server_version(connection) == cluster.tools.version().text.partition(" ")[0]
        assert system_identifier(connection) == cluster.controldata()["Database system identifier"]
        assert current_timeline(connection) == 1
    assert shown == {
        "server_encoding": ("UTF8",),
        "data_checksums": ("on",),
        "listen_addresses": ("",),
        "fsync": ("off",),
    }
    assert made == ("C.UTF-8",)
    cluster.stop()
    assert not cluster.is_running()
    cluster.stop()


def test_the_server_outlives_the_thread_that_started_it(cluster: Cluster) -> None:
    """PREFECT.md, rule 2: the death signal fires when the thread ends, and the tag ends what a command left."""
    thread = threading.Thread(target=cluster.start)
    thread.start()
    thread.join()

    # Another command's end is when tagged processes would be ended.
    cluster.controldata()
    pid = cluster.postmaster_pid()
    assert pid is not None
    postmaster = psutil.Process(pid)
    with connect(cluster.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert commands.TAG_VARIABLE not in postmaster.environ()
    assert os.getsid(pid) == pid
    streams = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert streams == {"/dev/null", str(cluster.log_path)}


def test_the_server_outlives_the_process_that_started_it(cluster: Cluster) -> None:
    code = (
        "from pathlib import Path; from lifeboat.postgres.binaries import PgTools;"
        "from lifeboat.postgres.cluster import Cluster;"
        f"Cluster(Path({str(cluster.data_dir)!r}),"
        f" PgTools(Path({str(cluster.tools.bin_dir)!r}), {cluster.tools.user!r}),"
        f" Path({str(cluster.socket_dir)!r}), {cluster.port}).start()"
    )
    # Reading to the end of the pipes proves that the server does not hold them.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    with connect(cluster.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_failed_start_shows_the_log(cluster: Cluster) -> None:
    cluster.write_settings({"shared_preload_libraries": "no_such_library"})

    with pytest.raises(ServerStartFailed, match="no_such_library") as caught:
        cluster.start()

    assert str(cluster.log_path) in (caught.value.hint or "")
    assert not cluster.is_running()


def test_a_start_that_takes_too_long_leaves_nothing_behind(cluster: Cluster) -> None:
    (cluster.data_dir / "recovery.signal").touch()
    give_to(cluster.data_dir / "recovery.signal", cluster.tools.user)
    cluster.write_settings({"restore_command": "sleep 600", "listen_addresses": ""})

    with pytest.raises(ServerStartFailed, match="not ready after 2 s"):
        cluster.start(timeout_seconds=2)

    assert not cluster.is_running()


def test_a_second_start_fails_and_leaves_the_first_server_alone(cluster: Cluster) -> None:
    cluster.start()
    pid = cluster.postmaster_pid()

    with pytest.raises(ServerStartFailed, match="Is another postmaster"):
        cluster.start()

    assert cluster.postmaster_pid() == pid
    with connect(cluster.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_facts_about_the_cluster_need_no_rights(cluster: Cluster) -> None:
    cluster.start()
    with connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN")

    with connect(cluster.dsn(user="plain")) as connection:
        assert system_identifier(connection) == cluster.controldata()["Database system identifier"]
        assert current_timeline(connection) == 1


def test_settings_are_replaced_whole(cluster: Cluster) -> None:
    assert cluster.write_settings({"work_mem": "5MB"})
    assert not cluster.write_settings({"work_mem": "5MB"})
    cluster.start()
    with connect(cluster.dsn(), autocommit=True) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
    cluster.write_settings({"maintenance_work_mem": "70MB"})
    cluster.stop()
    cluster.start()

    with connect(cluster.dsn(), autocommit=True) as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("4MB",)
        assert connection.execute("SHOW maintenance_work_mem").fetchone() == ("70MB",)
    assert cluster.settings()["maintenance_work_mem"] == "70MB"


def test_a_killed_server_is_seen_as_gone_and_starts_again(cluster: Cluster) -> None:
    cluster.start()
    pid = cluster.postmaster_pid()
    assert pid is not None

    psutil.Process(pid).kill()

    assert (cluster.data_dir / "postmaster.pid").exists()
    # A process without a parent that waits for it stays a zombie: it does not run.
    for _ in range(50):
        if not cluster.is_running():
            break
        threading.Event().wait(0.1)
    assert not cluster.is_running()
    cluster.start()
    assert cluster.postmaster_pid() not in {None, pid}


def test_a_pid_file_with_somebody_elses_pid_stops_nobody_and_blocks_nothing(cluster: Cluster) -> None:
    """After a reboot the old pid may belong to any process of the same account."""
    cluster.start()
    pid_file = cluster.data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    socket_lock = cluster.socket_dir / f".s.PGSQL.{cluster.port}.lock"
    lock_lines = socket_lock.read_text().splitlines()
    cluster.stop()
    uid, gid = account_ids(cluster.tools.user)
    bystander = subprocess.Popen(["sleep", "60"], user=uid, group=gid)
    try:
        for path, old in ((pid_file, lines), (socket_lock, lock_lines)):
            path.write_text("\n".join([str(bystander.pid), *old[1:]]) + "\n")
            path.chmod(0o600)
            os.chown(path, uid, gid)

        assert not cluster.is_running()
        cluster.stop()
        cluster.start()

        assert cluster.postmaster_pid() != bystander.pid
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_promotion_moves_the_timeline(cluster: Cluster) -> None:
    (cluster.data_dir / "standby.signal").touch()
    give_to(cluster.data_dir / "standby.signal", cluster.tools.user)
    cluster.start()
    with connect(cluster.dsn(), autocommit=True) as connection:
        assert current_timeline(connection) == 1

    cluster.promote()

    with connect(cluster.dsn(), autocommit=True) as connection:
        assert current_timeline(connection) == 2
