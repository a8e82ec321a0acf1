"""What dies in mid-backup: a truthful row sooner or later, nothing that looks like a backup, and the next run works."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import psutil
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.services import AlreadyUp, running_services
from lifeboat.errors import SettingsError
from lifeboat.operations.installation import Installation
from tasks.flow_runs import crash_zombies
from tests.support.prefect import SLOW, Services, backing_up, flow_process, free_port, services, to_toml, until

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
    assert services.run("full-backup").succeeded
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


def test_nothing_outlives_a_killed_lifeboat_up(services: Services) -> None:
    home = services.home / "third"
    home.mkdir()
    file = home / "lifeboat.toml"
    port = free_port()
    values = {
        "state_dir": str(home / "state"),
        "platform": {"dsn": services.installation.source.dsn, "cluster": "third"},
        "destinations": {"primary": {"path": str(home / "store")}},
        "prefect": {"port": port},
    }
    file.write_text(to_toml(values))
    with subprocess.Popen([sys.executable, "-m", "console.cli.main", "--config", str(file), "up"]) as up:
        children = until(lambda: _both(psutil.Process(up.pid)), 120)
        up.kill()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert (len(gone), alive) == (2, [])


def _both(process: psutil.Process) -> list[psutil.Process] | None:
    found = [child for child in process.children() if "prefect" in child.cmdline()]
    return found if len(found) == 2 else None
