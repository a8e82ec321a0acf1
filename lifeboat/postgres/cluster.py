"""One PostgreSQL cluster on this machine: created, configured, started, watched and stopped."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psycopg.conninfo import make_conninfo

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres import postmaster
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.conf import SettingValue, read_settings, render_settings
from lifeboat.postgres.folders import create_file, make_private_dir

INCLUDE_NAME = "lifeboat.conf"
SUPERUSER = "postgres"
StopMode = Literal["smart", "fast", "immediate"]

_INIT_TIMEOUT_SECONDS = 300.0
_CONTROL_TIMEOUT_SECONDS = 60.0
_LOG_TAIL_LINES = 20
_LOG_TAIL_BYTES = 64 * 1024
_LOG_KEEP_BYTES = 10 * 1024 * 1024


class ServerStartFailed(PermanentError):
    """The server did not start; the message ends with the last lines of its log."""


class ServerStopFailed(PermanentError):
    """The server did not stop, not even by an immediate shutdown."""


@dataclass(frozen=True)
class Cluster:
    """A data directory, the programs for it, and the socket folder and port that it listens on."""

    data_dir: Path
    tools: PgTools
    socket_dir: Path
    port: int = 5432

    @property
    def log_path(self) -> Path:
        """The server's log: beside the data directory, since what is in it goes into base backups."""
        return self.data_dir.with_name(f"{self.data_dir.name}.log")

    def init(self, *, auth_local: str = "trust", auth_host: str = "reject", extra_args: Sequence[str] = ()) -> None:
        """Create the cluster: UTF-8, C.UTF-8, data checksums, superuser `postgres`. Raises CommandFailed."""
        make_private_dir(self.data_dir, self.tools.user)
        self.tools.run(
            "initdb",
            [
                *("-D", self.data_dir, "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums"),
                *(f"--username={SUPERUSER}", "--no-instructions"),
                *(f"--auth-local={auth_local}", f"--auth-host={auth_host}", *extra_args),
            ],
            timeout_seconds=_INIT_TIMEOUT_SECONDS,
        )

    def write_settings(self, settings: Mapping[str, SettingValue]) -> bool:
        """Replace our include file of the server's configuration; returns whether it changed.

        ALTER SYSTEM still overrides it. Takes effect with `reload` or, for some settings, a restart.
        """
        text = render_settings(settings, heading="Written by Lifeboat: changes are overwritten.")
        main = self.data_dir / "postgresql.conf"
        if f"include '{INCLUDE_NAME}'" not in main.read_text("utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write(f"\ninclude '{INCLUDE_NAME}'\n")
        return write_server_file(self.data_dir / INCLUDE_NAME, text, self.tools.user)

    def start(
        self, *, wait: bool = True, timeout_seconds: float = 60.0, on_tick: Callable[[], None] | None = None
    ) -> None:
        """Start the server as a daemon that outlives us. Raises ServerStartFailed, and what `on_tick` raises.

        With `wait` it is ready for connections on return (a hot standby: consistent); a promotion may go on. `on_tick`
        is called about twice a second meanwhile; when it raises, the server is still starting.
        """
        make_private_dir(self.socket_dir, self.tools.user)
        postmaster.clear_stale_locks(self.data_dir, self.socket_dir, self.port)
        log_start = self._prepare_log()
        listen = {"unix_socket_directories": f'"{self.socket_dir}"', "port": str(self.port)}
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in listen.items())
        arguments: list[str | Path] = ["start", "-D", self.data_dir, "-l", self.log_path, "-s", "-o", options]
        arguments += ["-w", "-t", str(int(timeout_seconds))] if wait else ["-W"]
        try:
            # Without `env -u` the server would carry the tag of the command, and be ended with it.
            commands.run(
                ["env", "-u", commands.TAG_VARIABLE, self.tools.path("pg_ctl"), *arguments],
                timeout_seconds=timeout_seconds + _CONTROL_TIMEOUT_SECONDS,
                user=self.tools.user,
                on_tick=on_tick,
            )
        except (commands.CommandFailed, commands.CommandTimeout) as error:
            said = self._log_tail(log_start) or error.message
            # Only a late server is ours to stop: a refused one met another server on the same data.
            if isinstance(error, commands.CommandTimeout) or "did not start in time" in error.stderr_tail:
                said = f"not ready after {timeout_seconds:g} s; {said}"
                self.stop(mode="immediate")
            raise ServerStartFailed(
                f"the PostgreSQL server of {self.data_dir} did not start: {said}",
                hint=f"The whole log is {self.log_path}.",
            ) from error

    def stop(self, *, mode: StopMode = "fast", timeout_seconds: float = 60.0) -> None:
        """Stop the server; after `timeout_seconds` at once. Does nothing when it is not running.

        Raises ServerStopFailed.
        """
        for attempt in dict.fromkeys([mode, "immediate"]):
            if not self.is_running():
                return
            arguments = ["stop", "-D", str(self.data_dir), "-m", attempt, "-s", "-w"]
            arguments += ["-t", str(int(timeout_seconds))]
            limit = timeout_seconds + _CONTROL_TIMEOUT_SECONDS
            self.tools.run("pg_ctl", arguments, timeout_seconds=limit, accept=(0, 1))
        if self.is_running():
            raise ServerStopFailed(
                f"the PostgreSQL server of {self.data_dir} (pid {self.postmaster_pid()}) does not stop",
                hint=f"Look at {self.log_path}: a process that hangs in a dead mount cannot be ended.",
            )

    def reload(self) -> None:
        """Have the server read its configuration again."""
        self.tools.run("pg_ctl", ["reload", "-D", self.data_dir, "-s"], timeout_seconds=_CONTROL_TIMEOUT_SECONDS)

    def promote(self, *, timeout_seconds: float = 60.0) -> None:
        """End recovery and let the server accept writes. Raises CommandFailed."""
        arguments = ["promote", "-D", str(self.data_dir), "-s", "-w", "-t", str(int(timeout_seconds))]
        self.tools.run("pg_ctl", arguments, timeout_seconds=timeout_seconds + _CONTROL_TIMEOUT_SECONDS)

    def postmaster_pid(self) -> int | None:
        """The process id of the running server, None when it is not running."""
        return postmaster.running_pid(self.data_dir)

    def is_running(self) -> bool:
        """Whether a server of this very data directory runs (ready or not)."""
        return self.postmaster_pid() is not None

    def controldata(self) -> dict[str, str]:
        """The fields of pg_control under pg_controldata's English names, such as "Database cluster state"."""
        done = self.tools.run(
            "pg_controldata",
            ["-D", self.data_dir],
            timeout_seconds=_CONTROL_TIMEOUT_SECONDS,
            env={"LC_ALL": "C"},
        )
        pairs = (line.partition(":") for line in done.stdout.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, _, value in pairs}

    def settings(self) -> dict[str, str]:
        """What postgresql.conf, our include file and postgresql.auto.conf in the data directory set."""
        names = ("postgresql.conf", INCLUDE_NAME, "postgresql.auto.conf")
        return {key: value for name in names for key, value in read_settings(self.data_dir / name).items()}

    def dsn(self, database: str = SUPERUSER, user: str = SUPERUSER) -> str:
        """A connection string for the server's unix socket."""
        return make_conninfo("", host=str(self.socket_dir), port=str(self.port), dbname=database, user=user)

    def _prepare_log(self) -> int:
        path = self.log_path
        if path.exists() and path.stat().st_size > _LOG_KEEP_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))
        # The account of the server may not be allowed to create files here; we are.
        with suppress(FileExistsError):
            create_file(path, self.tools.user)
        return path.stat().st_size

    def _log_tail(self, start: int) -> str:
        size = self.log_path.stat().st_size
        with self.log_path.open("rb") as file:
            file.seek(max(start, size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])


def write_server_file(path: Path, text: str, user: str | None) -> bool:
    """Write a file of the server's configuration, whole or not at all, mode 0600; says if it changed."""
    if path.is_file() and not path.is_symlink() and path.read_text("utf-8", "replace") == text:
        return False
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    create_file(part, user, text.encode())
    part.replace(path)
    return True
