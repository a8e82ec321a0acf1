"""Backups brought back to where they disturb nobody: an isolated scratch cluster, or a temporary database."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from lifeboat.engines.engine import Watch
from lifeboat.engines.pg_dump import database_options
from lifeboat.errors import PermanentError
from lifeboat.operations.installation import Installation
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.isolation import isolate
from lifeboat.postgres.scratch import scratch_cluster
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.integrity import check_directory
from lifeboat.verification.touched import touched_relations

Phase = Callable[[str], AbstractContextManager[None]]
_PROMOTION_POLL_SECONDS = 0.2
_BY_SERVER_ONLY = {"allow_in_place_tablespaces": True}


class RecoveryStuck(PermanentError):
    """A restored server did not come out of recovery in time."""


@dataclass(frozen=True)
class Restored:
    """A restored database; `cluster` is its server where it is ours.

    `touched` is what WAL says was written between the fingerprint's snapshot and the recovery's stop; None for dumps,
    which are taken under that very snapshot.
    """

    connection: ConnectionInfo
    cluster: Cluster | None
    touched: frozenset[tuple[int, int]] | None = None


@contextmanager
def restore_physical(
    installation: Installation, repository: BackupRepository, manifest: Manifest, phase: Phase
) -> Iterator[Restored]:
    """A physical backup in a scratch cluster, recovered to the moment where the backup ended and opened."""
    engine, tools = installation.basebackup, installation.tools
    with scratch_cluster(tools, installation.settings.scratch_dir) as scratch:
        with phase("read chain"):
            chain = repository.chain(manifest.label)
        with phase("restore files"):
            engine.restore_files(repository, chain, scratch.data_dir, Watch(check_files=_differences))
        with phase("read WAL"):
            touched = _touched(installation, manifest, scratch.data_dir)
        with phase("recover"):
            isolated = isolate(
                scratch.data_dir,
                tools=tools,
                socket_dir=scratch.socket_dir,
                # The backup holds the WAL that it needs: stop where it is consistent, and fetch nothing.
                recovery={
                    "restore_command": "false",
                    "recovery_target": "immediate",
                    "recovery_target_action": "promote",
                },
                extra_settings=_BY_SERVER_ONLY,
            )
            isolated.cluster.start(timeout_seconds=installation.settings.drills.timeout_seconds)
            database = manifest.database or "postgres"
            connection = ConnectionInfo.parse(isolated.cluster.dsn(database, str(manifest.details["superuser"])))
            _wait_for_promotion(connection, installation.settings.drills.timeout_seconds)
        yield Restored(connection, isolated.cluster, touched)


@contextmanager
def restore_dump_to_scratch(
    installation: Installation, repository: BackupRepository, manifest: Manifest, phase: Phase
) -> Iterator[Restored]:
    """A dump with its globals in a new scratch cluster, under its own name."""
    engine, tools = installation.pg_dump, installation.tools
    database = manifest.database or "postgres"
    with scratch_cluster(tools, installation.settings.scratch_dir) as scratch:
        with phase("create scratch cluster"):
            scratch.cluster.init()
            cluster = isolate(scratch.data_dir, tools=tools, socket_dir=scratch.socket_dir).cluster
            cluster.start()
            server = ConnectionInfo.parse(cluster.dsn())
        with phase("restore files"):
            engine.restore_files(repository, [manifest], scratch.directory / "backup", Watch())
        with phase("load"):
            engine.load_server(scratch.directory / "backup", server, database=database, watch=Watch())
        yield Restored(server.with_database(database), cluster)


@contextmanager
def restore_dump_beside(
    installation: Installation, repository: BackupRepository, manifest: Manifest, phase: Phase
) -> Iterator[Restored]:
    """A dump in a temporary database of the source's own server; roles and tablespaces are those of the server."""
    engine, tools = installation.pg_dump, installation.tools
    server = installation.source.with_database("postgres")
    name = f"lifeboat_drill_{secrets.token_hex(4)}"
    with scratch_cluster(tools, installation.settings.scratch_dir) as scratch:
        with phase("restore files"):
            engine.restore_files(repository, [manifest], scratch.directory / "backup", Watch())
        try:
            with phase("load"):
                tools.run(
                    "createdb",
                    [*database_options(manifest.details), "--no-password", name],
                    connection=server,
                    timeout_seconds=300,
                )
                engine.load_database(scratch.directory / "backup", server.with_database(name), watch=Watch())
            yield Restored(server.with_database(name), None)
        finally:
            _drop_database(server, name)


def _differences(folder: Path) -> list[str]:
    return [str(problem) for problem in check_directory(folder, folder / "backup_manifest").problems]


def _touched(installation: Installation, manifest: Manifest, data_dir: Path) -> frozenset[tuple[int, int]]:
    fingerprint = manifest.fingerprint
    if fingerprint is None or fingerprint.lsn is None or manifest.timeline is None or manifest.stop_lsn is None:
        raise PermanentError(f"{manifest.label} has no fingerprint of a physical backup: nothing can be proven of it")
    found = touched_relations(
        installation.tools,
        data_dir / "pg_wal",
        manifest.timeline,
        fingerprint.lsn,
        manifest.stop_lsn,
        timeout_seconds=installation.settings.drills.timeout_seconds,
    )
    return frozenset(found)


def _drop_database(server: ConnectionInfo, name: str) -> None:
    with connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _wait_for_promotion(connection: ConnectionInfo, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    with connect(connection, application_name="lifeboat drill", autocommit=True) as session:
        while True:
            row = session.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
            if row is not None and not row[0]:
                return
            if time.monotonic() > deadline:
                raise RecoveryStuck(f"the restored server is still in recovery after {timeout_seconds:g} s")
            time.sleep(_PROMOTION_POLL_SECONDS)
