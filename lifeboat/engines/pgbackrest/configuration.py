"""The generated configuration of pgBackRest, and the folders that its programs work in.

Two files: one with the server in it, for backups and archive_command, and one without, for restores and readers on
hosts where no server runs. Retention is in neither, and `expire-auto=n`: pgBackRest expires nothing by itself.
"""

import stat
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lifeboat.engines.engine import EngineFailed
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import FolderUnreachable, account_ids, check_reachable, give_to, make_private_dir
from lifeboat.settings.pgbackrest import PgBackRestSettings
from lifeboat.storage.durable import make_directories, write_durably

_HEADING = "# Written by Lifeboat from [engines.pgbackrest] in lifeboat.toml: changes are overwritten."
REPOSITORY_FOLDER = "pgbackrest"
_FOLDER_MODE = 0o711
_FILE_MODE = 0o600


@dataclass(frozen=True)
class Folders:
    """Where one cluster's repository is, and the files of pgBackRest on this host."""

    repository: Path
    state: Path
    config: Path
    reading_config: Path
    spool: Path

    @classmethod
    def of(
        cls, settings: PgBackRestSettings, *, cluster: str, destination: Path, state_dir: Path, copy: str | None = None
    ) -> "Folders":
        """The folders that settings name, or the defaults below the destination and `state_dir`.

        `copy` is the name of a destination that has only a copy of the repository, at the default place.
        """
        state, default = state_dir / "pgbackrest" / cluster, destination / cluster / REPOSITORY_FOLDER
        return cls(
            repository=default if copy else settings.repository_path or default,
            state=state,
            config=settings.config_path or state / "pgbackrest.conf",
            # It names no server.
            reading_config=state / (f"reading-{copy}.conf" if copy else "reading.conf"),
            spool=settings.spool_path or state / "spool",
        )

    @property
    def locks(self) -> Path:
        """Where running commands hold their locks."""
        return self.state / "lock"

    @property
    def logs(self) -> Path:
        """Where commands in the background log."""
        return self.state / "log"


@dataclass(frozen=True)
class ServerPlace:
    """How pgBackRest finds the server on this host: its data directory and its socket."""

    data_dir: Path
    socket_dir: Path
    port: int
    user: str
    database: str

    @classmethod
    def ask(cls, connection: ConnectionInfo) -> "ServerPlace":
        """What the server itself says; raises EngineFailed where it cannot, and what `connect` raises."""
        try:
            with connect(connection, application_name="lifeboat pgbackrest", autocommit=True) as session:
                row = session.execute(
                    "SELECT current_setting('data_directory'), current_setting('unix_socket_directories'),"
                    " current_setting('port')::int, session_user, current_database()"
                ).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            raise EngineFailed(
                f"the server does not tell where its data directory is: {error.diag.message_primary}",
                hint="Grant the role pg_read_all_settings: pgBackRest copies the data directory itself.",
            ) from error
        if row is None:
            raise EngineFailed("the server does not tell where its data directory is")
        data_dir, sockets, port, user, database = row
        folders = [word for part in str(sockets).split(",") if (word := part.strip().strip('"')).startswith("/")]
        if not folders:
            raise EngineFailed(
                "the server listens on no unix socket, and pgBackRest connects over nothing else",
                hint="Set `unix_socket_directories` in postgresql.conf.",
            )
        asked = connection.host
        socket = asked if asked is not None and asked in folders else folders[0]
        return cls(Path(str(data_dir)), Path(socket), int(port), str(user), str(database))


def render_configuration(
    settings: PgBackRestSettings, folders: Folders, stanza: str, server: ServerPlace | None = None
) -> str:
    """The text of pgbackrest.conf; it holds the passphrase where there is one."""
    options: dict[str, str | Path | int | float] = {
        "repo1-path": folders.repository,
        "lock-path": folders.locks,
        "log-path": folders.logs,
        "spool-path": folders.spool,
        "expire-auto": "n",
        "process-max": settings.process_max,
        "compress-type": settings.compress_type,
        # Two restored clusters that read ahead through one spool folder would take each other's segments.
        "archive-async": _yes_no(settings.archive_async and server is not None),
        "archive-copy": _yes_no(settings.archive_copy),
        "archive-timeout": f"{settings.archive_timeout_seconds:g}",
        "start-fast": _yes_no(settings.start_fast),
        "log-level-console": "off",
        "log-level-stderr": "warn",
        "log-level-file": "warn",
    }
    if settings.compress_level is not None:
        options["compress-level"] = settings.compress_level
    if settings.cipher_passphrase is not None:
        options["repo1-cipher-type"] = settings.cipher_type
        options["repo1-cipher-pass"] = settings.cipher_passphrase.get_secret_value()
    lines = [_HEADING, "[global]", *_lines(options)]
    if server is not None:
        place: dict[str, str | Path | int | float] = {
            "pg1-path": server.data_dir,
            "pg1-socket-path": server.socket_dir,
            "pg1-port": server.port,
            "pg1-user": server.user,
            "pg1-database": server.database,
        }
        lines += ["", f"[{stanza}]", *_lines(place)]
    return "\n".join(lines) + "\n"


def prepare_folders(folders: Folders, user: str | None) -> None:
    """Make the folders that pgBackRest works in, owned by the account that runs it; raises FolderUnreachable."""
    for made in make_directories(folders.state.parent, mode=_FOLDER_MODE):
        made.chmod(_FOLDER_MODE)
    check_reachable(folders.state.parent, user)
    make_private_dir(folders.state, user)
    for folder in (folders.locks, folders.logs, folders.spool):
        for made in make_directories(folder.parent, mode=_FOLDER_MODE):
            give_to(made, user)
        make_private_dir(folder, user)


def prepare_repository(folders: Folders, user: str | None) -> None:
    """Make the repository's folder where it is missing, with its parents; raises FolderUnreachable."""
    for made in make_directories(folders.repository, mode=0o750):
        give_to(made, user)
    check_reachable(folders.repository, user)


def write_configuration(path: Path, text: str, user: str | None) -> bool:
    """Write one configuration file, whole or not at all, for that account alone; says whether it changed.

    Raises FolderUnreachable where ours may not read it.
    """
    if read_configuration(path) == text and _is_private(path, user):
        return False
    for made in make_directories(path.parent, mode=_FOLDER_MODE):
        give_to(made, user)
    write_durably(path, text.encode(), mode=_FILE_MODE)
    give_to(path, user)
    return True


def read_configuration(path: Path) -> str | None:
    """The text that was written; None where there is none. Raises FolderUnreachable for an account that may not."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise FolderUnreachable(
            f"{path} is private, and this account may not read it",
            hint="Run it as root, or as the account that the server runs as.",
        ) from error


def _is_private(path: Path, user: str | None) -> bool:
    # It may hold a passphrase, or be unreadable to the server's account after somebody has edited it.
    found = path.stat()
    return stat.S_IMODE(found.st_mode) == _FILE_MODE and found.st_uid == account_ids(user)[0]


def _yes_no(value: bool) -> str:
    return "y" if value else "n"


def _lines(options: dict[str, str | Path | int | float]) -> list[str]:
    lines = []
    for name, value in options.items():
        text = str(value)
        # Values run to the end of the line as they are: there is no quoting that could hold a line break.
        if not text.isprintable() or text != text.strip():
            raise EngineFailed(f"pgbackrest.conf cannot hold the value of {name}: it has a line break or outer spaces")
        lines.append(f"{name}={text}")
    return lines
