"""The embedded PostgreSQL server: created on first use, then started, used again and stopped."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres import postmaster
from lifeboat.postgres.binaries import PgTools, can_execute, discover_bin_dir, reachable_bin_dir
from lifeboat.postgres.cluster import SUPERUSER, Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import check_reachable, create_file, socket_dir_for
from lifeboat.postgres.restoring import refuse_while_restored

_SUMMARIES_SINCE = 17
_PASSWORD_BYTES = 24
_DRAFT_PREFIX = "draft-"
_RELOAD_WAIT_SECONDS = 10.0
_RELOAD_POLL_SECONDS = 0.05


class WrongServerVersion(PermanentError):
    """A data directory belongs to another major version than the programs at hand."""


@dataclass(frozen=True)
class EmbeddedServer:
    """A PostgreSQL server of our own below `state_dir`.

    It listens on a unix socket in a private folder; with `tcp_port` also on 127.0.0.1, with SCRAM and a
    generated password. `settings` are added to its configuration (archiving, for example). Started by root it
    runs as `run_as`.
    """

    state_dir: Path
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    tcp_port: int | None = None
    bin_dir: Path | None = None
    run_as: str | None = None

    @cached_property
    def tools(self) -> PgTools:
        """The server's programs, run by the server's account, where that account can execute them.

        The state folder is made only where the programs must be copied into it.
        """
        user = commands.effective_user(self.run_as)
        found = discover_bin_dir(self.bin_dir)
        if can_execute(found, user):
            if self.state_dir.is_dir():
                check_reachable(self.state_dir, user)
            return PgTools(found, user)
        self._make_state_dir(user)
        return PgTools(reachable_bin_dir(found, user, self.state_dir / "programs"), user)

    @cached_property
    def cluster(self) -> Cluster:
        """The cluster itself, started or not."""
        port = self.tcp_port or 5432
        return Cluster(self.state_dir / "data", self.tools, socket_dir_for(self.state_dir), port)

    def start(self, *, timeout_seconds: float = 60.0) -> Cluster:
        """Create the server if needed and have it run with the present settings; may be called again.

        A running server is restarted only when a changed setting needs it. Raises ServerStartFailed,
        FolderUnreachable, WrongServerVersion, RestoreInProgress, RestoreInterrupted.
        """
        with self._exclusive():
            cluster = self.cluster
            refuse_while_restored(cluster.data_dir)
            self._create(cluster)
            changed = cluster.write_settings(self._settings())
            if not cluster.is_running():
                _start_awake(cluster, timeout_seconds)
            elif changed or postmaster.listening_port(cluster.data_dir) != cluster.port:
                self._apply(cluster, timeout_seconds)
            return cluster

    def stop(self, *, timeout_seconds: float = 60.0) -> None:
        """Stop the server; nothing happens when it does not run or was never created."""
        if not (self.state_dir / "data").is_dir():
            return
        with self._exclusive():
            self.cluster.stop(timeout_seconds=timeout_seconds)

    def is_running(self) -> bool:
        """Whether the server runs."""
        return self.was_created() and self.cluster.is_running()

    def was_created(self) -> bool:
        """Whether it has its data directory."""
        return (self.state_dir / "data").is_dir()

    def dsn(self, database: str = SUPERUSER, user: str = SUPERUSER) -> str:
        """A connection string over the unix socket; the private folder is what protects it."""
        return self.cluster.dsn(database, user)

    def tcp_dsn(self, database: str = SUPERUSER) -> str:
        """A connection string over 127.0.0.1, with the generated password: a secret."""
        if self.tcp_port is None:
            raise PermanentError("the embedded server listens on no TCP port", hint="Set a port in lifeboat.toml.")
        password = self._password_path.read_text("utf-8").strip()
        return make_conninfo(
            "", host="127.0.0.1", port=str(self.tcp_port), dbname=database, user=SUPERUSER, password=password
        )

    @property
    def _password_path(self) -> Path:
        return self.state_dir / "superuser-password"

    def _settings(self) -> dict[str, SettingValue]:
        settings: dict[str, SettingValue] = {
            "listen_addresses": "127.0.0.1" if self.tcp_port else "",
            "unix_socket_permissions": "0700",
            "password_encryption": "scram-sha-256",
            "wal_level": "replica",
            "max_wal_senders": 10,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%a %u@%d ",
        }
        if self.tools.major >= _SUMMARIES_SINCE:
            settings["summarize_wal"] = True
        return {**settings, **self.settings}

    def _make_state_dir(self, user: str | None) -> None:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        # While it is empty, so that a second starter never sees it closed.
        if not any(self.state_dir.iterdir()):
            # The server's account has to pass through; what is private inside has rights of its own.
            self.state_dir.chmod(0o711)
        check_reachable(self.state_dir, user)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._make_state_dir(commands.effective_user(self.run_as))
        descriptor = os.open(self.state_dir / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _create(self, cluster: Cluster) -> None:
        self._remove_drafts()
        version_file = cluster.data_dir / "PG_VERSION"
        if not cluster.data_dir.exists():
            self._init(cluster)
        found = version_file.read_text().strip() if version_file.is_file() else "none"
        if found != str(cluster.tools.major):
            raise WrongServerVersion(
                f"{cluster.data_dir} holds PostgreSQL {found}, the programs are {cluster.tools.major}",
                hint=f"Set `bin_dir` to PostgreSQL {found}, or restore a backup into another state folder.",
            )

    def _init(self, cluster: Cluster) -> None:
        # Under another name until it has a password: a killed creation leaves nothing that looks finished. And under
        # a new name each time: the initdb of a killed starter removes its folder while it dies.
        name = f"{_DRAFT_PREFIX}{secrets.token_hex(4)}"
        draft = Cluster(self.state_dir / name, cluster.tools, cluster.socket_dir, cluster.port)
        draft.init(auth_host="scram-sha-256")
        draft.write_settings({"listen_addresses": ""})
        draft.start()
        try:
            self._set_password(draft)
        finally:
            draft.stop()
        draft.log_path.unlink(missing_ok=True)
        draft.data_dir.rename(cluster.data_dir)

    def _remove_drafts(self) -> None:
        for left in self.state_dir.glob(f"{_DRAFT_PREFIX}*"):
            if left.is_dir():
                postmaster.end_servers_in(left)
                # What a dying initdb removes at the same moment is no error; the rest goes at the next start.
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _set_password(self, cluster: Cluster) -> None:
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        self._password_path.unlink(missing_ok=True)
        create_file(self._password_path, None, f"{password}\n".encode())
        with connect(cluster.dsn(), autocommit=True) as connection:
            # Only the SCRAM verifier travels, so that no log can show the password.
            verifier = connection.pgconn.encrypt_password(password.encode(), SUPERUSER.encode(), b"scram-sha-256")
            connection.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(SUPERUSER), sql.Literal(verifier.decode()))
            )

    def _apply(self, cluster: Cluster, timeout_seconds: float) -> None:
        if postmaster.listening_port(cluster.data_dir) != cluster.port or self._reload_is_not_enough(cluster):
            cluster.stop(timeout_seconds=timeout_seconds)
            _start_awake(cluster, timeout_seconds)

    def _reload_is_not_enough(self, cluster: Cluster) -> bool:
        with connect(cluster.dsn(), autocommit=True) as connection:
            read_at = "SELECT pg_conf_load_time()"
            before = connection.execute(read_at).fetchone()
            cluster.reload()
            give_up_at = time.monotonic() + _RELOAD_WAIT_SECONDS
            # The signal is asynchronous: this session knows what is pending once it has read the files.
            while connection.execute(read_at).fetchone() == before and time.monotonic() < give_up_at:
                time.sleep(_RELOAD_POLL_SECONDS)
            row = connection.execute("SELECT count(*) FROM pg_settings WHERE pending_restart").fetchone()
        return row is not None and row[0] > 0


def _start_awake(cluster: Cluster, timeout_seconds: float) -> None:
    cluster.start(timeout_seconds=timeout_seconds)
    # The checkpointer fell asleep in recovery, where it does not look at archive_timeout, for all of
    # checkpoint_timeout: a reload wakes it, and commits are archived in time from the start.
    cluster.reload()
