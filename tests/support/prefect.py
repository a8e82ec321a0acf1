"""A real Prefect server and worker with an embedded platform, as `lifeboat up` runs them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from deployments.api import PrefectUnreachable, prefect_api
from deployments.services import RunningServices, running_services
from deployments.triggering import TriggeredRun, read_run, trigger
from lifeboat.catalog.store import BackupRow
from lifeboat.operations.installation import Installation
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from tests.support.installation import SAMPLE
from tests.support.network import free_port
from tests.support.postgres import reachable_dir, spare_the_disk

T = TypeVar("T")
WEEKLY = "full-backup/full-backup"
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
SLOW = {"basebackup": {"max_rate_kilobytes_per_second": 3072, "compression_level": 0}}


def to_toml(values: Mapping[str, Any]) -> str:
    """Settings as TOML, a line for each key of the top level; JSON's plain values are TOML's."""
    return "".join(f"{key} = {_toml_value(value)}\n" for key, value in values.items())


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value)


@dataclass
class Services:
    """The running services, and what tests do with them."""

    home: Path
    values: dict[str, Any]
    running: RunningServices | None = field(default=None)

    @property
    def settings_file(self) -> Path:
        """The settings file that flow runs read."""
        return self.home / "lifeboat.toml"

    def write(self, **sections: object) -> None:
        """Change settings: the next flow run reads them."""
        self.settings_file.write_text(to_toml({**self.values, **sections}), "utf-8")

    @property
    def installation(self) -> Installation:
        """The installation as a flow run that starts now sees it."""
        return Installation.load(self.settings_file)

    def environment(self) -> dict[str, str]:
        """The environment of an administrator's other terminal."""
        url = self.installation.settings.prefect.effective_api_url
        return {**os.environ, "PREFECT_API_URL": url, "PREFECT_HOME": str(self.home / "other-terminal")}

    def run(self, flow: str, parameters: Mapping[str, Any] | None = None, timeout_seconds: float = 180) -> TriggeredRun:
        """Run a deployment to its end."""
        return trigger(self.installation, f"{flow}/{flow}", parameters, timeout_seconds=timeout_seconds)

    def start(self, flow: str) -> TriggeredRun:
        """Start a deployment and come back at once."""
        return trigger(self.installation, f"{flow}/{flow}", timeout_seconds=0)

    def wait(self, flow_run_id: UUID, timeout_seconds: float = 180) -> TriggeredRun:
        """Wait for the end of a run, keeping the services alive meanwhile as `lifeboat up` does."""
        deadline = time.monotonic() + timeout_seconds
        assert self.running is not None
        settings = self.installation.settings.prefect
        while time.monotonic() < deadline:
            self.running.check()
            # A server that was killed a moment ago is noticed at the next check.
            with suppress(PrefectUnreachable), prefect_api(settings) as client:
                seen = read_run(client, settings, flow_run_id)
                if seen.ended:
                    return seen
            time.sleep(0.2)
        raise AssertionError(f"the run did not end within {timeout_seconds} s")

    def cancel(self, flow_run_id: UUID) -> None:
        """Cancel a run as the button in Prefect's UI does."""
        with prefect_api(self.installation.settings.prefect) as client:
            client.set_flow_run_state(flow_run_id, Cancelling())

    def rest_schedules(self) -> None:
        """Stop all schedules but the weekly one: tests choose themselves when something runs."""
        with prefect_api(self.installation.settings.prefect) as client:
            for name in self.running.deployments if self.running else []:
                deployment = client.read_deployment_by_name(name)
                for schedule in deployment.schedules:
                    if name != WEEKLY and schedule.id is not None:
                        client.update_deployment_schedule(deployment.id, schedule.id, active=False)

    def scheduled_runs(self) -> list[FlowRun]:
        """The runs that Prefect's scheduler has made."""
        with prefect_api(self.installation.settings.prefect) as client:
            wanted = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "limit": 100}
            found = client.request("POST", "/flow_runs/filter", json=wanted).json()
        return [FlowRun.model_validate(item) for item in found]

    def rows(self, flow_run_id: UUID) -> list[BackupRow]:
        """The catalog's rows of a flow run, by type."""
        page = self.installation.catalog.backups.list_backups(limit=100)
        return sorted((row for row in page.rows if row.flow_run_id == flow_run_id), key=lambda row: row.type)

    def assert_nothing_is_left(self) -> None:
        """No unfinished folder and no backup tool in this installation."""
        assert self.installation.repository().unfinished_labels() == []
        assert not [process for process in psutil.process_iter() if self._is_tool(process)]

    def _is_tool(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.name() == "pg_basebackup" and any(str(self.home) in word for word in process.cmdline())
        return False


def until(what: Callable[[], T | None], timeout_seconds: float = 60) -> T:
    """Wait until something is there."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come")


def flow_process(flow_run_id: UUID) -> psutil.Process | None:
    """The process that runs a flow."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline()
            if "prefect.engine" in words and process.environ().get(RUN_VARIABLE) == str(flow_run_id):
                return process
    return None


def backing_up(process: psutil.Process) -> psutil.Process | None:
    """The pg_basebackup that copies data for a flow's process."""
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            if child.name() == "pg_basebackup" and "--version" not in child.cmdline():
                return child
    return None


def prefect_cli(services: Services, *words: str) -> str:
    """Run Prefect's own command line in another process."""
    argv = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(argv, env=services.environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def services(pg_tools: PgTools) -> Iterator[Services]:
    """Server, worker, deployments and a platform with a small sample, for all tests of a module."""
    with reachable_dir("lifeboat-up-") as home:
        values: dict[str, Any] = {
            "state_dir": str(home / "state"),
            "platform": {"cluster": "studio", "embedded": True, "database": "studio", "bin_dir": str(pg_tools.bin_dir)},
            "destinations": {"primary": {"path": str(home / "store"), "minimum_free_bytes": 0}},
            "wal": {"minimum_free_bytes": 0, "archive_timeout_seconds": 0, "segment_timeout_seconds": 60},
            "prefect": {"port": free_port(), "worker_poll_seconds": 1, "drain_seconds": 5},
        }
        found = Services(home, values)
        found.write()
        with running_services(found.installation, lambda text: None) as found.running:
            spare_the_disk(found.installation.embedded.cluster)
            with connect(found.installation.source, autocommit=True) as session:
                session.execute(SAMPLE)
            found.rest_schedules()
            yield found
