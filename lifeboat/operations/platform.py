"""The platform's server where it is ours to run: the embedded PostgreSQL with its WAL archive."""

import shlex
from dataclasses import replace

from psycopg import sql

from lifeboat.operations.installation import LOG, Installation
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import connect
from lifeboat.wal.install import InstalledProgram, WalConfig, check_archive, install_archive_program, prepare_archive


def start_platform(installation: Installation) -> Cluster:
    """Start the embedded server, archiving where settings say so, and create its database; safe to call again.

    Raises what EmbeddedServer.start, install_archive_program and prepare_archive raise.
    """
    server = installation.embedded
    created = (server.state_dir / "data" / "PG_VERSION").is_file()
    if not created:
        LOG.info("creating the embedded PostgreSQL in %s", server.state_dir)
        server.start()
    settings = archive_settings(installation) if installation.settings.wal.archive else {}
    cluster = replace(server, settings=settings).start()
    _create_database(installation, installation.settings.platform.database)
    return cluster


def stop_platform(installation: Installation) -> None:
    """Stop the embedded server; nothing happens when it does not run."""
    installation.embedded.stop()


def psql_command(installation: Installation) -> str:
    """The command that opens a session in the embedded server, which listens on a socket."""
    server, source = installation.embedded, installation.source
    user = server.tools.user
    program = str(server.tools.path("psql")) if server.tools.has("psql") else "psql"
    command = shlex.join([program, source.dsn])
    return f"{command}   # as {user} or root" if user else command


def install_archiving(
    installation: Installation, *, system_identifier: str, segment_size_bytes: int
) -> InstalledProgram:
    """Put the archive program where the server's account can run it, prepare the archive, and try both."""
    wal = installation.settings.wal
    destination = installation.destination(wal.destination)
    destination.check()
    config = WalConfig.of(
        wal,
        destination.path,
        installation.settings.platform.cluster,
        system_identifier=system_identifier,
        segment_size_bytes=segment_size_bytes,
    )
    installed = install_archive_program(
        installation.settings.state_dir / "wal", config, user=installation.run_as, python=wal.python
    )
    prepare_archive(config, user=installation.run_as)
    check_archive(installed)
    return installed


def archive_settings(installation: Installation) -> dict[str, SettingValue]:
    """The server settings that archive WAL, for the embedded server."""
    control = installation.embedded.cluster.controldata()
    installed = install_archiving(
        installation,
        system_identifier=control["Database system identifier"],
        segment_size_bytes=int(control["Bytes per WAL segment"]),
    )
    return {
        "archive_mode": True,
        "archive_command": installed.archive_command,
        "archive_timeout": f"{installation.settings.wal.archive_timeout_seconds}s",
    }


def _create_database(installation: Installation, name: str) -> None:
    with connect(installation.embedded.dsn(), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", (name,)).fetchone():
            return
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
