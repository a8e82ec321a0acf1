"""A dump restored to a new database of the platform's server."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime

from lifeboat.engines.engine import Watch
from lifeboat.errors import PermanentError
from lifeboat.operations.backup.selection import find_backup, tell_fault
from lifeboat.operations.drill.restore_drill import Phases
from lifeboat.operations.installation import Installation
from lifeboat.operations.leases import lease
from lifeboat.operations.restore.place import PlaceTaken
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport
from lifeboat.operations.restore.scratch import sweep_drill_databases
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.drill_databases import DrillDatabaseFailed, draft_database
from lifeboat.postgres.scratch import scratch_cluster
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.reading import read_tables

_NAME_BYTES_MAX = 63


class DatabaseNotRestored(PermanentError):
    """The server refuses the new database, or what was restored to it cannot be read."""


def restore_to_database(installation: Installation, order: RestoreOrder, phases: Phases) -> RestoreReport:
    """Restore a dump into a new database, under a name of its own until it is whole.

    Raises TargetRefused, PlaceTaken, DatabaseNotRestored, BackupDamaged, EngineFailed, SourceUnavailable.
    """
    started_at, name = datetime.now(UTC), order.to.database or ""
    with phases("plan"):
        repository = installation.repository(order.destination)
        manifest = plan_database(installation, order)
        server = installation.source.with_database("postgres")
    sweep_drill_databases(installation)
    with (
        lease(installation, repository, [manifest.label]),
        scratch_cluster(installation.tools, installation.settings.scratch_dir, purpose="restore") as scratch,
    ):
        folder = scratch.directory / "backup"
        with phases("restore files"):
            installation.pg_dump.restore_files(repository, [manifest], folder, Watch(on_progress=phases.amount))
        with ExitStack() as stack:
            with phases("create database"):
                database = stack.enter_context(_draft(server, manifest, name))
            with phases("load"):
                installation.pg_dump.load_database(folder, database, watch=Watch())
            with phases("read all"):
                _read(database, manifest)
    return _report(order, manifest, started_at, phases)


def plan_database(installation: Installation, order: RestoreOrder) -> Manifest:
    """The dump that would be restored to a new database; raises what find_dump does, PlaceTaken, SourceUnavailable."""
    manifest = find_dump(installation.repository(order.destination), order.target)
    _refuse_taken(installation.source.with_database("postgres"), order.to.database or "")
    return manifest


def find_dump(repository: BackupRepository, target: RecoveryTarget) -> Manifest:
    """The dump that a target means: by label, the newest, or the last one taken at or before a moment.

    Raises TargetRefused, NoSuchBackup.
    """
    if target.kind is TargetKind.BACKUP and target.backup not in {None, "latest"}:
        manifest = find_backup(repository, str(target.backup)).manifest
        if manifest.type is not BackupType.LOGICAL:
            raise TargetRefused(
                f"{manifest.label} is no dump: a single database comes from a dump",
                hint="Restore the cluster with `--to new:DIR`, and copy the database from there.",
            )
        return manifest
    if target.kind not in {TargetKind.TIME, TargetKind.LATEST, TargetKind.BACKUP}:
        raise TargetRefused(f"a dump cannot be restored to {target}", hint="Name a dump with --backup, or a time.")
    dumps = sorted(
        (item.manifest for item in repository.sound_backups(tell_fault) if item.manifest.type is BackupType.LOGICAL),
        key=lambda manifest: manifest.started_at,
    )
    found = [manifest for manifest in dumps if target.at is None or manifest.started_at <= target.at]
    if not found:
        later = dumps[0].started_at if dumps else None
        raise TargetRefused(f"there is no dump for {target}", hint=_without_dump(later))
    return found[-1]


def _without_dump(later: datetime | None) -> str:
    first = f"The first dump is of {time_text(later)}. " if later is not None else ""
    return (
        f"{first}A single database comes from a dump: make one with `lifeboat backup run --type logical`; or restore"
        " the cluster to any moment with `--to new:DIR`, and copy the database from there."
    )


def _refuse_taken(server: ConnectionInfo, name: str) -> None:
    if not name or len(name.encode()) > _NAME_BYTES_MAX:
        raise PlaceTaken(f"{name!r} cannot be a database's name", hint=f"Names have 1 to {_NAME_BYTES_MAX} bytes.")
    with closing(connect(server, application_name="lifeboat restore", autocommit=True)) as session:
        if session.execute("SELECT FROM pg_catalog.pg_database WHERE datname = %s", (name,)).fetchone() is not None:
            raise PlaceTaken(f"there is a database {name} already", hint="Name one that is not there yet.")


@contextmanager
def _draft(server: ConnectionInfo, manifest: Manifest, name: str) -> Iterator[ConnectionInfo]:
    try:
        with draft_database(server, manifest.details, name) as database:
            yield database
    except DrillDatabaseFailed as error:
        raise DatabaseNotRestored(
            f"the server refuses the new database: {error.message}",
            hint="The role needs CREATEDB; `lifeboat doctor` shows its rights.",
        ) from error


def _read(database: ConnectionInfo, manifest: Manifest) -> None:
    with closing(connect(database, application_name="lifeboat restore", autocommit=True)) as session:
        problems = read_tables(session).problems
    if problems:
        faults = "; ".join(f"{problem.table}: {problem.error}" for problem in problems[:5])
        raise DatabaseNotRestored(f"what {manifest.label} holds cannot be read: {faults}")


def _report(order: RestoreOrder, manifest: Manifest, started_at: datetime, phases: Phases) -> RestoreReport:
    notes = ["subscriptions, roles and tablespaces are not in it: they belong to the server"]
    if order.target.at is not None:
        notes.insert(0, f"a dump has no moments in between: this is the state of {time_text(manifest.started_at)}")
    return RestoreReport(
        id=order.id,
        target=str(order.target),
        to=str(order.to),
        label=manifest.label,
        chain=[manifest.label],
        started_at=started_at,
        completed_at=datetime.now(UTC),
        phases=phases.seconds,
        place=str(order.to.database),
        landing=f"the dump of {time_text(manifest.started_at)}",
        notes=notes,
        next_steps=[f"Compare it, then rename it or point the platform at it: database {order.to.database}"],
    )
