"""What dies in mid-backup: a truthful row sooner or later, nothing that looks like a backup, and the next run works."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.services import AlreadyUp, running_services
from deployments.triggering import trigger
from lifeboat.errors import SettingsError
from lifeboat.operations.deployment_owner import ForeignDeployment
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import SourceUnavailable, connect
from lifeboat.postgres.postmaster import processes_in
from lifeboat.storage.manifest import BackupType
from tasks.flow_runs import crash_zombies
from tests.support.network import free_port
from tests.support.prefect import (
    SLOW,
    Services,
    backing_up,
    flow_process,
    prefect_cli,
    services,
    to_toml,
    until,
)

__all__ = ["services"]


@dataclass
class MidBackup:
    """A full backup while it copies data."""

    services: Services
    run_id: UUID
    process: psutil.Process
    tool: psutil.Process

    def statuses(self) -> dict[str, str]:
        """The run's rows: status by type."""
        return {row.type.value: row.status.value for row in self.services.rows(self.run_id)}

    def labels(self) -> list[str]:
        """What storage has of the run."""
        backups = self.services.installation.repository().backups()
        return [item.manifest.type.value for item in backups if item.manifest.flow_run_id == self.run_id]

    def assert_no_backup(self, status: str) -> None:
        """The row says how it ended, storage has no such backup, and nothing is left running."""
        until(lambda: self.statuses().get("full") == status, 60)
        assert "full" not in self.labels()
        until(lambda: not self.tool.is_running(), 30)


@pytest.fixture
def backup(services: Services) -> Iterator[MidBackup]:
    """A full backup that takes some ten seconds, begun; afterwards the next one works."""
    services.write(engines=SLOW)
    run = services.start("full-backup")
    process = until(lambda: flow_process(run.id), 120)
    tool = until(lambda: backing_up(process), 120)
    services.write()
    yield MidBackup(services, run.id, process, tool)
    following = services.run("full-backup")
    assert following.succeeded, f"{following.state_name}: {following.message}"
    services.assert_nothing_is_left()


def test_a_cancelled_run_ends_its_tools_and_its_row(backup: MidBackup) -> None:
    backup.services.cancel(backup.run_id)
    assert backup.services.wait(backup.run_id).state_type == "CANCELLED"
    backup.assert_no_backup("cancelled")


def test_a_killed_flow_process_is_a_crashed_backup(backup: MidBackup) -> None:
    backup.process.kill()
    assert backup.services.wait(backup.run_id).state_type == "CRASHED"
    backup.assert_no_backup("crashed")


def test_a_killed_tool_is_a_failed_backup(backup: MidBackup) -> None:
    backup.tool.kill()
    run = backup.services.wait(backup.run_id)
    assert run.state_type == "FAILED"
    assert "pg_basebackup" in run.message
    backup.assert_no_backup("failed")


def test_a_backup_outlives_the_server(backup: MidBackup) -> None:
    running = backup.services.running
    assert running is not None
    assert running.server is not None
    first = running.server.pid
    os.kill(first or 0, signal.SIGKILL)
    run = backup.services.wait(backup.run_id)
    assert running.server.pid not in {first, None}
    assert run.succeeded, run.message
    assert backup.statuses() == {"config": "completed", "full": "completed"}


def test_a_backup_outlives_the_worker(backup: MidBackup) -> None:
    running = backup.services.running
    assert running is not None
    assert running.worker is not None
    first = running.worker.pid
    os.kill(first or 0, signal.SIGKILL)
    run = backup.services.wait(backup.run_id)
    assert running.worker.pid not in {first, None}
    assert run.succeeded, run.message
    assert backup.statuses() == {"config": "completed", "full": "completed"}


def test_a_run_that_died_without_a_word_is_ended(backup: MidBackup) -> None:
    running = backup.services.running
    assert running is not None
    worker = running.worker
    assert worker is not None
    os.kill(worker.pid or 0, signal.SIGKILL)
    backup.process.kill()
    until(lambda: worker.ensure(lambda text: None))
    until(lambda: not backup.tool.is_running(), 30)
    installation = backup.services.installation
    settings = installation.settings
    impatient = settings.prefect.model_copy(update={"zombie_minutes": 0})
    with temporary_settings({PREFECT_API_URL: running.api_url}):
        assert crash_zombies(installation) == []
        assert backup.run_id in crash_zombies(Installation(settings.model_copy(update={"prefect": impatient})))
    assert backup.services.run("reconcile").succeeded
    backup.assert_no_backup("crashed")


def test_a_second_backup_waits_or_is_skipped_as_settings_say(backup: MidBackup) -> None:
    services = backup.services
    backup.tool.suspend()
    try:
        said = prefect_cli(services, "deployment", "run", "full-backup/full-backup")
        found = re.search(r"UUID: ([0-9a-f-]{36})", said)
        assert found is not None
        waiting = UUID(found[1])
        until(lambda: len(_lock_sessions(services)) == 2)
        services.write(backup={"when_locked": "refuse"})
        refused = services.run("full-backup")
        assert refused.state_type == "FAILED"
        assert "another backup of cluster studio is running" in refused.message
        rows = {row.type.value: row for row in services.rows(refused.id)}
        assert (rows["full"].status, rows["config"].status) == ("skipped", "completed")
        assert len(_lock_sessions(services)) == 2
        assert [row.status for row in services.rows(waiting) if row.type is BackupType.FULL] == ["running"]
    finally:
        services.write()
        backup.tool.resume()
    assert services.wait(backup.run_id).succeeded
    assert services.wait(waiting).succeeded
    first, second = (
        next(row for row in services.rows(run) if row.type is BackupType.FULL) for run in (backup.run_id, waiting)
    )
    assert first.completed_at is not None
    assert second.started_at >= first.completed_at
    stored = services.installation.repository().backups()
    runs = [item.manifest.flow_run_id for item in stored if item.manifest.type is BackupType.FULL]
    assert (runs.count(backup.run_id), runs.count(waiting), runs.count(refused.id)) == (1, 1, 0)


def _lock_sessions(services: Services) -> list[str]:
    """Who has the lock of the cluster or waits for it."""
    with connect(services.installation.source, autocommit=True) as session:
        found = session.execute(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'lifeboat backup %'"
        ).fetchall()
    return [row[0] for row in found]


def test_a_second_start_is_refused(services: Services) -> None:
    with pytest.raises(AlreadyUp, match="runs already"), running_services(services.installation, lambda text: None):
        pass


def test_a_taken_port_is_named(services: Services) -> None:
    taken = services.installation.settings.prefect.port
    home = services.home / "second"
    home.mkdir()
    file = home / "lifeboat.toml"
    file.write_text(
        to_toml(
            {
                "state_dir": str(home / "state"),
                "platform": {"dsn": "host=/nowhere"},
                "destinations": {"primary": {"path": str(home / "store")}},
                "prefect": {"port": taken},
            }
        )
    )
    refused = pytest.raises(SettingsError, match=rf"127.0.0.1:{taken}: .*process \d+")
    with refused, running_services(Installation.load(file), lambda text: None):
        pass


def test_a_server_of_another_installation_is_neither_deployed_to_nor_asked_for_backups(services: Services) -> None:
    prefect = {"api_url": services.installation.settings.prefect.effective_api_url}
    other = Installation.load(_settings_file(services, "fifth", prefect=prefect))
    with pytest.raises(ForeignDeployment, match=f"belongs to {services.settings_file}.*, not to {other.settings_file}"):
        trigger(other, "full-backup/full-backup", timeout_seconds=0)
    refused = pytest.raises(ForeignDeployment, match="belongs to")
    with refused, running_services(other, lambda text: None):
        pass
    assert list(processes_in(other.settings.state_dir)) == []


def test_a_terminal_that_is_gone_leaves_no_worker_behind(services: Services) -> None:
    """The words that tell that runs are waited for fail like those of `lifeboat up | head`."""
    here = services.installation
    platform = {"dsn": here.source.dsn, "cluster": here.settings.platform.cluster}
    prefect = {"api_url": here.settings.prefect.effective_api_url}
    file = _settings_file(services, "fourth", platform=platform, prefect=prefect)
    # Of the same owner, since a shared server refuses another one's deployments.
    installation = Installation(Installation.load(file).settings, services.settings_file)
    reader, writer = os.pipe()
    try:
        gone = pytest.raises(BrokenPipeError)
        with gone, running_services(installation, lambda text: _print(writer, text)) as second:
            assert second.worker is not None
            worker = psutil.Process(second.worker.pid)
            assert worker.is_running()
            os.close(reader)
    finally:
        os.close(writer)
    assert not worker.is_running()


def _print(descriptor: int, text: str) -> None:
    os.write(descriptor, f"{text}\n".encode())


def test_nothing_outlives_a_killed_lifeboat_up_but_its_postgresql_which_the_next_one_uses(services: Services) -> None:
    platform = services.values["platform"] | {"cluster": "third", "database": "third"}
    file = _settings_file(services, "third", platform=platform)
    installation = Installation.load(file)
    with _up(file) as up:
        children = psutil.Process(up.pid).children(recursive=True)
        assert len([child for child in children if "prefect" in child.cmdline()]) >= 2
        postmaster = installation.embedded.cluster.postmaster_pid()
        assert postmaster is not None
        up.kill()
        up.wait()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert installation.embedded.cluster.postmaster_pid() == postmaster
    with _up(file) as up:
        children = psutil.Process(up.pid).children(recursive=True)
        assert installation.embedded.cluster.postmaster_pid() == postmaster
        os.kill(postmaster, signal.SIGKILL)
        until(lambda: installation.embedded.cluster.postmaster_pid() not in {None, postmaster})
        until(lambda: _answers(installation))
        run = trigger(installation, "full-backup/full-backup", timeout_seconds=180)
        assert run.succeeded, run.message
        up.terminate()
        assert up.wait(timeout=60) == 0
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert list(processes_in(file.parent)) == []


def _settings_file(services: Services, name: str, **sections: object) -> Path:
    """Settings of another installation beside the services' own."""
    home = services.home / name
    home.mkdir()
    values = {
        "state_dir": str(home / "state"),
        "platform": {"dsn": services.installation.source.dsn, "cluster": name},
        "destinations": {"primary": {"path": str(home / "store"), "minimum_free_bytes": 0}},
        "wal": services.values["wal"],
    }
    given = sections.pop("prefect", {"port": free_port(), "worker_poll_seconds": 1, "drain_seconds": 5})
    (home / "lifeboat.toml").write_text(to_toml({**values, "prefect": given, **sections}))
    return home / "lifeboat.toml"


@contextmanager
def _up(file: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`lifeboat up` once it says that it is ready."""
    log = file.with_name("up.log")
    argv = [sys.executable, "-m", "console.cli.main", "--config", str(file), "up"]
    with log.open("wb") as output:
        up = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        until(lambda: "Ctrl-C stops everything" in log.read_text() or up.poll() is not None, 180)
        assert up.poll() is None, log.read_text()
        yield up
    finally:
        up.kill()
        up.wait()


def _answers(installation: Installation) -> bool:
    try:
        connect(installation.source).close()
    except SourceUnavailable:
        return False
    return True
