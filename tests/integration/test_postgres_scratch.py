"""Scratch clusters never stay behind, and a living owner's is never taken."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.postgres.postmaster import processes_in
from lifeboat.postgres.scratch import remove_abandoned, scratch_cluster

_OWNER = """
import sys, time
from pathlib import Path
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.scratch import scratch_cluster
bin_dir, user, parent = sys.argv[1:]
with scratch_cluster(PgTools(Path(bin_dir), user or None), Path(parent)) as scratch:
    scratch.cluster.init(extra_args=["--no-sync"])
    scratch.cluster.start()
    print(scratch.directory, flush=True)
    time.sleep(600)
"""


def _start_owner(tools: PgTools, parent: Path) -> tuple[subprocess.Popen[str], Path]:
    argv = [sys.executable, "-c", _OWNER, str(tools.bin_dir), tools.user or "", str(parent)]
    owner = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    return owner, Path(owner.stdout.readline().strip())


def _end(owner: subprocess.Popen[str], sig: signal.Signals) -> None:
    owner.send_signal(sig)
    owner.communicate(timeout=30)


def test_a_scratch_cluster_works_and_goes(pg_tools: PgTools, reachable_tmp: Path) -> None:
    with scratch_cluster(pg_tools, reachable_tmp / "deep" / "scratch", purpose="drill") as scratch:
        scratch.cluster.init(extra_args=["--no-sync"])
        scratch.cluster.start()
        with connect(scratch.cluster.dsn()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert list(processes_in(scratch.directory))

    assert not scratch.directory.exists()
    assert not scratch.socket_dir.exists()
    assert not list(processes_in(scratch.directory))
    assert [path.name for path in scratch.directory.parent.iterdir()] == [".scratch.lock"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(pg_tools: PgTools, reachable_tmp: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), scratch_cluster(pg_tools, reachable_tmp) as scratch:  # noqa: PT012 - raised inside
        scratch.data_dir.mkdir()
        raise error

    assert not scratch.directory.exists()


def test_a_killed_owners_scratch_is_removed_with_its_server(pg_tools: PgTools, reachable_tmp: Path) -> None:
    owner, directory = _start_owner(pg_tools, reachable_tmp)
    try:
        assert list(processes_in(directory))
        assert remove_abandoned(reachable_tmp) == []
        assert (directory / "data" / "PG_VERSION").exists()
    finally:
        _end(owner, signal.SIGKILL)

    assert (directory / "data" / "postmaster.pid").exists()
    with scratch_cluster(pg_tools, reachable_tmp) as mine:
        assert remove_abandoned(reachable_tmp) == [directory]
        assert mine.directory.exists()
    assert not directory.exists()
    assert not list(processes_in(directory))
    assert remove_abandoned(reachable_tmp) == []


def test_an_interrupted_owner_cleans_up_itself(pg_tools: PgTools, reachable_tmp: Path) -> None:
    owner, directory = _start_owner(pg_tools, reachable_tmp)

    _end(owner, signal.SIGINT)

    assert not directory.exists()
    assert not list(processes_in(directory))


def test_a_scratch_of_another_host_on_a_shared_mount_is_left(pg_tools: PgTools, reachable_tmp: Path) -> None:
    directory = reachable_tmp / "scratch-drill-x"
    directory.mkdir()
    record = reachable_tmp / "scratch-drill-x.owner"
    record.write_text('{"pid": 1, "started_at": 1.0, "host": "another"}')
    assert remove_abandoned(reachable_tmp) == []

    record.write_text("")  # killed before it wrote its name

    assert remove_abandoned(reachable_tmp) == [directory]


def test_a_missing_parent_holds_nothing(tmp_path: Path) -> None:
    assert remove_abandoned(tmp_path / "none") == []
