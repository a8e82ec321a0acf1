"""`lifeboat up`: embedded PostgreSQL, Prefect server, agent, deployments and worker, started and ended in order."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import WorkerFilter

from deployments.api import prefect_api
from deployments.deploying import deploy, ensure_work_pool, refuse_foreign_deployments
from deployments.draining import DrainMark, drain
from deployments.environment import prefect_home, service_environment
from deployments.processes import (
    ServiceEnded,
    Supervised,
    agent_process,
    refuse_taken_port,
    server_process,
    wait_until_healthy,
    worker_process,
)
from deployments.registry import load_registry
from lifeboat.catalog.errors import CatalogUnavailable
from lifeboat.catalog.migrate import migrate
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.deployment_owner import DeploymentOwner
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import psql_command, start_platform, stop_platform
from lifeboat.operations.signals import at_stop_signals
from lifeboat.postgres.restoring import RestoreInProgress, RestoreInterrupted, refuse_while_restored

_WATCH_SECONDS = 0.5
_WORKER_SECONDS = 60.0
_DATABASE_VARIABLES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")

Say = Callable[[str], None]


class AlreadyUp(PermanentError):
    """Another `lifeboat up` runs with the same state folder."""


@dataclass
class RunningServices:
    """What runs; `deployments` are named `flow/deployment`. Processes are started from the main thread only."""

    installation: Installation
    say: Say
    stopping: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)
    server: Supervised | None = None
    worker: Supervised | None = None
    agent: Supervised | None = None
    deployments: list[str] = field(default_factory=list)
    _waits_for: str = ""

    @property
    def api_url(self) -> str:
        """The address of Prefect's API."""
        return self.installation.settings.prefect.effective_api_url

    @property
    def ui_url(self) -> str:
        """The address of Prefect's UI."""
        return self.installation.settings.prefect.ui_url

    def check(self) -> None:
        """Start again what ended by itself; raises ServiceEnded when it keeps ending."""
        installation = self.installation
        if installation.settings.platform.embedded and not installation.embedded.is_running():
            self._start_platform_again()
        if self.server is not None and self.server.ensure(self.say):
            wait_until_healthy(installation.settings.prefect, self.server, self.stopping.is_set)
        if self.worker is not None:
            self.worker.ensure(self.say)
        self._check_agent()

    def _start_platform_again(self) -> None:
        try:
            refuse_while_restored(self.installation.embedded.cluster.data_dir)
            self.say("the embedded PostgreSQL ended unexpectedly: starting it again")
            start_platform(self.installation)
        except (RestoreInProgress, RestoreInterrupted) as error:
            if error.message != self._waits_for:
                self.say(f"{error.message}: the embedded PostgreSQL is not started. {error.hint}")
            self._waits_for = error.message
            return
        self._waits_for = ""

    def _check_agent(self) -> None:
        if self.agent is None:
            return
        try:
            self.agent.ensure(self.say)
        except ServiceEnded as error:
            # Backups do not need it; doctor and wal-health tell of its silence.
            self.say(f"going on without the agent: {error}")
            self.agent = None

    def watch(self) -> None:
        """Keep everything running until `stopping` is set; raises ServiceEnded."""
        while not self.stopping.wait(_WATCH_SECONDS):
            self.check()


def run_until_signalled(installation: Installation, say: Say) -> None:
    """The body of `lifeboat up`: run in the foreground until SIGINT or SIGTERM, then stop cleanly.

    A first signal drains, a second one cancels what still runs. Raises AlreadyUp, ServiceEnded and what
    running_services raises.
    """
    stopping, hurry = threading.Event(), threading.Event()

    def stop() -> None:
        (hurry if stopping.is_set() else stopping).set()

    with (
        at_stop_signals(stop),
        running_services(installation, say, stopping=stopping, hurry=hurry) as services,
    ):
        if not stopping.is_set():
            _introduce(services)
        services.watch()
        say("stopping")


@contextmanager
def running_services(
    installation: Installation,
    say: Say,
    *,
    stopping: threading.Event | None = None,
    hurry: threading.Event | None = None,
) -> Iterator[RunningServices]:
    """Start everything, yield when the worker waits for runs, and stop everything at the end.

    Only the main thread may enter it. Raises AlreadyUp, PortTaken, ForeignDeployment, ServiceEnded, and what
    PostgreSQL and the catalog raise. When `stopping` is set meanwhile it yields early, with what runs by then.
    """
    services = RunningServices(installation, say, stopping or threading.Event(), hurry or threading.Event())
    with ExitStack() as stack:
        home = _prepare_home(installation)
        stack.enter_context(_only_one(home / "up.lock", installation.settings.state_dir))
        if installation.settings.platform.embedded:
            stack.callback(stop_platform, installation)
        _start_server(services, home, stack)
        _start_platform(services)
        _start_agent(services, home, stack)
        _start_worker(services, home, stack)
        yield services


def _prepare_home(installation: Installation) -> Path:
    home = prefect_home(installation)
    home.mkdir(parents=True, exist_ok=True)
    # Results, logs and the database of flow runs are nobody else's business.
    home.chmod(0o700)
    return home


@contextmanager
def _only_one(path: Path, state_dir: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode("ascii", "replace").strip()
            raise AlreadyUp(
                f"`lifeboat up` runs already with {state_dir} (process {pid or 'unknown'})",
                hint="Use that one, stop it first, or give this installation another `state_dir` and `prefect.port`.",
            ) from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _start_server(services: RunningServices, home: Path, stack: ExitStack) -> None:
    settings = services.installation.settings.prefect
    if settings.api_url is not None:
        return
    refuse_taken_port(settings)
    services.server = server_process(service_environment(services.installation), home / "server.log")
    stack.callback(services.server.stop)
    services.say("starting the Prefect server")
    services.server.start()


def _start_platform(services: RunningServices) -> None:
    # The server needs seconds to come up: PostgreSQL and the catalog use them.
    installation = services.installation
    if services.stopping.is_set():
        return
    if installation.settings.platform.embedded:
        services.say("starting the embedded PostgreSQL")
        start_platform(installation)
    try:
        migrate(installation.catalog_connection)
    except CatalogUnavailable as error:
        # Backups do not need it (DESIGN principle 6); reconciling tells it later.
        services.say(f"going on without the catalog: {error}")


def _start_agent(services: RunningServices, home: Path, stack: ExitStack) -> None:
    # After the catalog's tables are made, and ended only when the flows are: they too want fresh targets.
    if services.stopping.is_set() or not services.installation.settings.agent.enabled:
        return
    services.agent = agent_process(service_environment(services.installation), home / "agent.log")
    stack.callback(services.agent.stop)
    services.say("starting the agent")
    services.agent.start()


def _start_worker(services: RunningServices, home: Path, stack: ExitStack) -> None:
    settings = services.installation.settings.prefect
    if not wait_until_healthy(settings, services.server, services.stopping.is_set):
        return
    mark = DrainMark(home / "drained")
    registry, owner = load_registry(), DeploymentOwner.of(services.installation)
    with prefect_api(settings) as client:
        if not _has_own_database(services):
            # Before the worker: it would take the runs of the other installation.
            refuse_foreign_deployments(client, registry, owner)
        ensure_work_pool(client, settings.work_pool)
        mark.resume(client, settings.work_pool)
        worker = worker_process(settings, service_environment(services.installation), home / "worker.log")
        stack.callback(_stop_worker, services, worker, mark)
        services.say("starting the worker")
        worker.start()
        services.worker = worker
        services.deployments = deploy(client, registry, settings.work_pool, owner)
        _wait_for_worker(services, worker, client)


def _has_own_database(services: RunningServices) -> bool:
    # What is in the database below our state folder is ours, even if the settings file has moved since.
    return services.server is not None and not any(name in os.environ for name in _DATABASE_VARIABLES)


def _wait_for_worker(services: RunningServices, worker: Supervised, client: SyncPrefectClient) -> None:
    deadline = time.monotonic() + _WORKER_SECONDS
    wanted = WorkerFilter.model_validate({"status": {"any_": ["ONLINE"]}})
    pool = services.installation.settings.prefect.work_pool
    while not services.stopping.wait(0.2):
        worker.refuse_end()
        if client.read_workers_for_work_pool(pool, worker_filter=wanted, limit=1, offset=0):
            return
        if time.monotonic() > deadline:
            raise ServiceEnded(
                f"the worker did not report itself within {_WORKER_SECONDS:.0f} s",
                hint=f"Its log is {worker.log_path}.",
            )


def _stop_worker(services: RunningServices, worker: Supervised, mark: DrainMark) -> None:
    try:
        _wait_for_runs(services, worker, mark)
    finally:
        # Whatever went wrong, a closed terminal that nothing can be said on included: flow runs are not left behind.
        worker.stop()


def _wait_for_runs(services: RunningServices, worker: Supervised, mark: DrainMark) -> None:
    settings = services.installation.settings.prefect
    if settings.api_url is not None:
        # Others may work for the pool, so it is not paused.
        services.say(f"waiting up to {settings.drain_seconds:.0f} s for the worker's runs; interrupt again to end them")
        worker.retire(settings.drain_seconds, services.hurry.is_set)
        return
    try:
        with prefect_api(settings) as client:
            mark.pause(client, settings.work_pool)
            drain(
                client,
                settings.work_pool,
                limit_seconds=settings.drain_seconds,
                hurry=services.hurry.is_set,
                say=services.say,
            )
    except LifeboatError as error:
        # Whatever still runs is ended with the worker; reconciling tells the catalog.
        services.say(f"running flows were not waited for: {error.message}")


def _introduce(services: RunningServices) -> None:
    services.say(f"{len(services.deployments)} deployments are ready:")
    for name in services.deployments:
        services.say(f"  prefect deployment run '{name}'")
    services.say(f"Prefect: {services.ui_url}    API for other terminals: export PREFECT_API_URL={services.api_url}")
    if services.installation.settings.platform.embedded:
        services.say(f"PostgreSQL: {psql_command(services.installation)}")
    services.say("Ctrl-C stops everything")
