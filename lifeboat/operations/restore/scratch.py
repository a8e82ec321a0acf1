"""Backups brought back to where they disturb nobody: an isolated scratch cluster, or a temporary database."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lifeboat.engines.engine import Engine, Progress, Watch
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.errors import PermanentError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.wal.archives import fetch_wal_of
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.drill_databases import drill_database, remove_abandoned_databases
from lifeboat.postgres.folders import make_private_dir
from lifeboat.postgres.isolation import isolate
from lifeboat.postgres.scratch import scratch_cluster
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.integrity import check_directory
from lifeboat.verification.touched import touched_relations
from lifeboat.verification.verifybackup import FileCheckFailed, verify_directory

_PROMOTION_POLL_SECONDS = 0.2
_BY_SERVER_ONLY = {"allow_in_place_tablespaces": True}


class Phase(Protocol):
    """Times the parts of a drill and tells of them."""

    def __call__(self, name: str) -> AbstractContextManager[None]:
        """One part, while the context lasts; one inside another stops the other's clock."""
        ...

    def amount(self, progress: Progress) -> None:
        """How far the present part is."""
        ...


class RecoveryStuck(PermanentError):
    """A restored server did not come out of recovery in time."""


@dataclass(frozen=True)
class Restored:
    """A restored database; `cluster` is its server where it is ours.

    `touched` is what WAL says was written between the fingerprint's snapshot and the recovery's stop; None for dumps,
    which are taken under that very snapshot, and where there is no fingerprint. `notes` say which check of the files
    could not be made.
    """

    connection: ConnectionInfo
    cluster: Cluster | None
    touched: frozenset[tuple[int, int]] | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def restore_physical(
    installation: Installation, repository: BackupRepository, manifest: Manifest, phase: Phase
) -> Iterator[Restored]:
    """A physical backup in a scratch cluster, recovered to the moment where the backup ended and opened."""
    engine = installation.engine(manifest.engine, repository.destination.name)
    tools, checks = installation.tools, _FileChecks(installation, phase)
    with scratch_cluster(tools, installation.settings.scratch_dir) as scratch:
        with phase("read chain"):
            chain = repository.chain(manifest.label)
        with phase("restore files"):
            watch = Watch(
                on_progress=phase.amount, check_files=checks.check_unpacked, check_combined=checks.check_combined
            )
            engine.restore_files(repository, chain, scratch.data_dir, watch)
        with phase("read WAL"):
            wal_dir = scratch.data_dir / "pg_wal"
            if not manifest.details.get("holds_wal", True) and manifest.fingerprint is not None:
                wal_dir = make_private_dir(scratch.directory / "wal", tools.user)
                fetch_wal_of(installation, manifest, wal_dir, repository.destination.name)
            touched = _touched(installation, manifest, wal_dir)
        with phase("recover"):
            isolated = isolate(
                scratch.data_dir,
                tools=tools,
                socket_dir=scratch.socket_dir,
                # Stop where it is consistent. Most backups hold the WAL for that, and nothing is fetched.
                recovery={
                    "restore_command": _restore_command(engine, manifest),
                    "recovery_target": "immediate",
                    "recovery_target_action": "promote",
                },
                extra_settings=_BY_SERVER_ONLY,
            )
            isolated.cluster.start(timeout_seconds=installation.settings.drills.timeout_seconds)
            database = manifest.database or "postgres"
            connection = ConnectionInfo.parse(isolated.cluster.dsn(database, str(manifest.details["superuser"])))
            _wait_for_promotion(connection, installation.settings.drills.timeout_seconds)
        yield Restored(connection, isolated.cluster, touched, tuple(checks.notes))


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
            watch = Watch(on_progress=phase.amount)
            engine.restore_files(repository, [manifest], scratch.directory / "backup", watch)
        with phase("load"):
            engine.load_server(scratch.directory / "backup", server, database=database, watch=Watch())
        yield Restored(server.with_database(database), cluster)


@contextmanager
def restore_dump_beside(
    installation: Installation, repository: BackupRepository, manifest: Manifest, phase: Phase
) -> Iterator[Restored]:
    """A dump in a temporary database of the source's own server; roles and tablespaces are those of the server."""
    engine, tools = installation.pg_dump, installation.tools
    sweep_drill_databases(installation)
    with scratch_cluster(tools, installation.settings.scratch_dir) as scratch, ExitStack() as stack:
        with phase("restore files"):
            watch = Watch(on_progress=phase.amount)
            engine.restore_files(repository, [manifest], scratch.directory / "backup", watch)
        with phase("create database"):
            database = stack.enter_context(drill_database(installation.source, manifest.details))
        with phase("load"):
            engine.load_database(scratch.directory / "backup", database, watch=Watch())
        yield Restored(database, None)


def sweep_drill_databases(installation: Installation) -> list[str]:
    """Drop the temporary databases that killed drills and restores left on the source's server; returns their names.

    Raises what connections to the source raise.
    """
    found = remove_abandoned_databases(installation.source)
    for name in found.removed:
        LOG.warning("dropped the temporary database %s that a killed drill or restore left", name)
    for name, why in found.left.items():
        LOG.warning("the temporary database %s of a killed drill stays for now: %s", name, why)
    return found.removed


@dataclass
class _FileChecks:
    """Checks unpacked base backups against PostgreSQL's manifest of them: by our code, and by PostgreSQL's own.

    What no restore would do beside a drill is the phase "check files": the others predict how long a restore takes.
    """

    installation: Installation
    phase: Phase
    notes: list[str] = field(default_factory=list)

    def check_unpacked(self, folder: Path) -> list[str]:
        ours = _differences(folder)
        if not self.installation.settings.drills.verifybackup:
            return ours
        with self.phase("check files"):
            return self._with_second_opinion(folder, ours)

    def check_combined(self, folder: Path) -> list[str]:
        with self.phase("check files"):
            return self._with_second_opinion(folder, _differences(folder))

    def _with_second_opinion(self, folder: Path, ours: list[str]) -> list[str]:
        drills = self.installation.settings.drills
        if not drills.verifybackup:
            return ours
        try:
            result = verify_directory(self.installation.tools, folder, timeout_seconds=drills.timeout_seconds)
        except FileCheckFailed:
            if ours:
                return ours
            raise
        alone = "the files were checked by Lifeboat alone, for PostgreSQL's own pg_verifybackup cannot run"
        note = f"{alone}: {result.reason}"
        if result.reason is not None and note not in self.notes:
            self.notes.append(note)
        elif result.reason is None and not result.problems:
            LOG.info("pg_verifybackup: %s is as its manifest says", folder.name)
        return [*ours, *(f"pg_verifybackup: {problem}" for problem in result.problems)]


def _differences(folder: Path) -> list[str]:
    return [str(problem) for problem in check_directory(folder, folder / "backup_manifest").problems]


def _restore_command(engine: Engine, manifest: Manifest) -> str:
    if isinstance(engine, PgBackRestEngine) and not manifest.details.get("holds_wal"):
        # Nothing ahead: a few segments are needed, and what got more of them could outlive the drill.
        return engine.reader().restore_command()
    return "false"


def _touched(installation: Installation, manifest: Manifest, wal_dir: Path) -> frozenset[tuple[int, int]] | None:
    fingerprint = manifest.fingerprint
    if fingerprint is None and manifest.details.get("adopted"):
        return None
    if fingerprint is None or fingerprint.lsn is None or manifest.timeline is None or manifest.stop_lsn is None:
        raise PermanentError(f"{manifest.label} has no fingerprint of a physical backup: nothing can be proven of it")
    found = touched_relations(
        installation.tools,
        wal_dir,
        manifest.timeline,
        fingerprint.lsn,
        manifest.stop_lsn,
        timeout_seconds=installation.settings.drills.timeout_seconds,
    )
    return frozenset(found)


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
