"""The Prefect server and the worker as processes of ours: how they start, that they live, how they end."""

import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deployments.api import is_healthy
from lifeboat.commands import Service, start_service
from lifeboat.errors import PermanentError, SettingsError
from lifeboat.settings.prefect import PrefectSettings

_STOP_SECONDS = 20.0
_START_SECONDS = 120.0
_POLL_SECONDS = 0.2
_LOG_BYTES_MAX = 20 * 1024 * 1024
_RESTARTS_MAX = 3
_RESTART_WINDOW_SECONDS = 600.0


class ServiceEnded(PermanentError):
    """A process that should run on has ended."""


class PortTaken(SettingsError):
    """Somebody else listens on the port of our Prefect server."""


@dataclass
class Supervised:
    """One process, started again when it ends by itself, but not for ever."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    log_path: Path
    _service: Service | None = None
    _former: list[Service] = field(default_factory=list)
    _restarts: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it."""
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.old"))
        self._service = start_service(self.argv, env=self.environment, log_path=self.log_path)

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        return self._service.pid if self._service and self._service.returncode() is None else None

    def tree(self) -> set[int]:
        """The process ids of it and of what it has started, none when it does not run."""
        if self.pid is None:
            return set()
        try:
            return {self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))}
        except psutil.NoSuchProcess:
            return set()

    def ensure(self, say: Callable[[str], None]) -> bool:
        """Whether it had ended and was started again; raises ServiceEnded when that happens too often."""
        if self._service is None or (code := self._service.returncode()) is None:
            return False
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < _RESTART_WINDOW_SECONDS]
        if len(self._restarts) >= _RESTARTS_MAX:
            raise self.ended(f"again with code {code}, after {_RESTARTS_MAX} restarts")
        self._restarts.append(now)
        say(f"the {self.name} ended unexpectedly with code {code}: starting it again")
        # Flow runs outlive a worker that was killed, and report their own end: only `stop` ends what it left behind.
        self._former.append(self._service)
        self.start()
        return True

    def refuse_end(self) -> None:
        """Raise ServiceEnded when it has ended."""
        if self._service is not None and (code := self._service.returncode()) is not None:
            raise self.ended(f"with code {code}")

    def ended(self, how: str) -> ServiceEnded:
        """The error that says so, with its last words."""
        said = self._service.last_words() if self._service else ""
        return ServiceEnded(
            f"the {self.name} ended {how}; its last words:\n{said}", hint=f"Its log is {self.log_path}."
        )

    def retire(self, limit_seconds: float, hurry: Callable[[], bool]) -> None:
        """Let what it has started end by itself, for at most `limit_seconds`.

        The worker itself is killed: asked to end, it would kill its flow runs and leave them RUNNING for ever.
        """
        deadline = time.monotonic() + limit_seconds
        for service in self._all():
            service.kill_alone()
        while any(service.is_alive() for service in self._all()) and time.monotonic() < deadline and not hurry():
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Ask it to end, wait, then end it and what it has started."""
        for service in self._all():
            service.stop(timeout_seconds=_STOP_SECONDS)

    def _all(self) -> list[Service]:
        return [*([self._service] if self._service else []), *self._former]


def server_process(environment: dict[str, str], log_path: Path) -> Supervised:
    """The Prefect server."""
    argv = [sys.executable, "-m", "prefect", "server", "start", "--log-level", "WARNING"]
    return Supervised("Prefect server", argv, environment, log_path)


def worker_process(settings: PrefectSettings, environment: dict[str, str], log_path: Path) -> Supervised:
    """The worker of our pool."""
    name = f"lifeboat on {socket.gethostname()}"
    words = ["worker", "start", "--pool", settings.work_pool, "--type", "process", "--name", name]
    argv = [sys.executable, "-m", "prefect", *words, "--limit", str(settings.worker_limit)]
    return Supervised("Prefect worker", argv, environment, log_path)


def agent_process(environment: dict[str, str], log_path: Path) -> Supervised:
    """The agent; it finds its settings by the environment."""
    # What systemd waits for is `lifeboat up`, where that is its service.
    own = {name: value for name, value in environment.items() if name != "NOTIFY_SOCKET"}
    return Supervised("agent", [sys.executable, "-m", "console.cli.main", "agent"], own, log_path)


def refuse_taken_port(settings: PrefectSettings) -> None:
    """Raise PortTaken when somebody else listens on the server's port already."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise _port_taken(settings, error.strerror or str(error), _port_listeners(settings)) from error


def listens(settings: PrefectSettings, server: Supervised) -> bool:
    """Whether our server, or a process that it has started, is the one that listens on its port.

    Raises PortTaken when somebody else does: whoever answers there is then not our server.
    """
    found = _port_listeners(settings)
    ours = server.tree()
    if not found or not ours.isdisjoint(found):
        return bool(found)
    raise _port_taken(settings, "somebody else listens there", found)


def wait_until_healthy(settings: PrefectSettings, server: Supervised | None, stopping: Callable[[], bool]) -> bool:
    """Wait for the API of our server, or of somebody else's without one; False when we are to stop.

    Raises PortTaken, and ServiceEnded when our server ends or does not answer.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not _is_ready(settings, server):
        if stopping():
            return False
        if time.monotonic() > deadline:
            raise ServiceEnded(
                f"the Prefect API at {settings.effective_api_url} did not answer within {_START_SECONDS:.0f} s",
                hint=f"Its log is {server.log_path}." if server else "Check `prefect.api_url` in lifeboat.toml.",
            )
        time.sleep(_POLL_SECONDS)
    return True


def _is_ready(settings: PrefectSettings, server: Supervised | None) -> bool:
    if server is None:
        return is_healthy(settings)
    # The port first: a server that found it taken has ended, and who took it says more than how it ended.
    listening = listens(settings, server)
    server.refuse_end()
    return listening and is_healthy(settings)


def _port_taken(settings: PrefectSettings, why: str, listeners: set[int | None]) -> PortTaken:
    return PortTaken(
        f"the Prefect server cannot listen on {settings.host}:{settings.port}: {why}{_named(listeners)}",
        hint="Stop what uses it, or set another `prefect.port`; a Prefect server that runs already is used with "
        "`prefect.api_url`.",
    )


def _port_listeners(settings: PrefectSettings) -> set[int | None]:
    """The processes that listen where our server does; None stands for one that we may not look into."""
    addresses = {str(found[4][0]) for found in socket.getaddrinfo(settings.host, settings.port)}
    # A socket on all of IPv6 may leave IPv4 alone.
    addresses |= {"::", "0.0.0.0"} if any(":" in address for address in addresses) else {"0.0.0.0"}  # noqa: S104
    return {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
        and connection.laddr
        and connection.laddr[1] == settings.port
        and connection.laddr[0] in addresses
    }


def _named(listeners: set[int | None]) -> str:
    for pid in listeners:
        with suppress(psutil.Error):
            if pid is not None:
                return f" (process {pid}, {psutil.Process(pid).name()}, is there)"
    return ""
