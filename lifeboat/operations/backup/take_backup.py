"""Take one backup of the database: lock, run the engine, fingerprint, check, publish."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import UUID, uuid4

from lifeboat.engines.basebackup_restore import PG_MANIFEST
from lifeboat.engines.engine import Engine, IncrementalImpossible, Parent, Progress, Taken, Watch
from lifeboat.engines.pgbackrest.describing import BAD_PAGES
from lifeboat.engines.pgbackrest.describing import ENGINE as PGBACKREST
from lifeboat.errors import LifeboatError, SettingsError
from lifeboat.operations.backup.fingerprinting import SourceFingerprint
from lifeboat.operations.backup.integrity import payload_check
from lifeboat.operations.backup.observing import observe_names
from lifeboat.operations.backup.parents import choose_parent
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.leases import lease
from lifeboat.operations.pgbackrest.repository import adopt_under_lock, discard_in_repository
from lifeboat.operations.pgbackrest.stanza import ensure_stanza
from lifeboat.operations.recording import best_effort
from lifeboat.operations.results import BackupTaken
from lifeboat.operations.wal.archives import wait_in_pgbackrest
from lifeboat.operations.wal.health import why_full_wanted
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.postgres.lock import ClusterLock, LockHolder, cluster_lock
from lifeboat.storage.labels import backup_id
from lifeboat.storage.manifest import BackupObject, BackupType, Fingerprint, Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.storage.unfinished import UnfinishedBackup
from lifeboat.wal.coverage import wait_for_segment

ProgressCall = Callable[[Progress], None]
_LOCK_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class BackupOrder:
    """What is asked for; empty fields mean the settings' defaults."""

    type: BackupType
    engine: str | None = None
    destination: str | None = None
    set_id: UUID = field(default_factory=uuid4)
    flow_run_id: UUID | None = None


def take_backup(installation: Installation, order: BackupOrder, on_progress: ProgressCall | None = None) -> BackupTaken:
    """Take a backup and return only when it is durable; a failed one leaves nothing behind at the destination.

    Raises ClusterBusy when another one runs, and what Engine.take raises.
    """
    engine = installation.engine(order.engine, order.destination)
    identifier = backup_id(order.set_id, engine.name, order.type)
    _refuse_unencrypted_passwords(installation, engine.name, order.destination)
    with best_effort(f"the start of backup {identifier}"):
        installation.catalog.backups.record_started(
            identifier,
            set_id=order.set_id,
            type=order.type,
            engine=engine.name,
            cluster=installation.settings.platform.cluster,
            destination=order.destination or installation.settings.backup.destination,
            started_at=datetime.now(UTC),
            flow_run_id=order.flow_run_id,
        )
    try:
        taken = _locked(installation, engine, order, identifier, on_progress)
    except BaseException as error:
        with best_effort(f"the failure of backup {identifier}"):
            installation.catalog.backups.record_ended(identifier, status=status_of(error), error=_first_line(error))
        raise
    return taken


def status_of(error: BaseException) -> str:
    """The catalog's status for a backup that ended with this error."""
    if type(error).__name__ == "ClusterBusy":
        return "skipped"
    return "failed" if isinstance(error, Exception) else "cancelled"


def _first_line(error: BaseException) -> str:
    return error.message if isinstance(error, LifeboatError) else f"{type(error).__name__}: {error}".rstrip(": ")


def _locked(
    installation: Installation,
    engine: Engine,
    order: BackupOrder,
    identifier: UUID,
    on_progress: ProgressCall | None,
) -> BackupTaken:
    settings = installation.settings
    wait = settings.backup.lock_wait_seconds if settings.backup.when_locked == "wait" else 0

    def waiting(holder: LockHolder) -> None:
        LOG.warning("another backup of cluster %s runs (%s): waiting", settings.platform.cluster, holder)

    repository = installation.writable_repository(order.destination)
    with cluster_lock(
        installation.source,
        cluster=settings.platform.cluster,
        wait_seconds=wait,
        purpose=f"backup {order.type}",
        on_wait=waiting,
    ) as lock:
        installation.destination(order.destination).check()
        for label in repository.unfinished_labels():
            # Whoever holds the lock is the only writer of the database's backups: what is not finished now never will
            # be. The set's configuration archive, which is written beside us, is told apart by its hold.
            if repository.remove_unfinished(label):
                LOG.warning("removed the unfinished backup %s that a killed run left", label)
        if engine.name == PGBACKREST:
            ensure_stanza(installation, repository)
            # What a killed run or an administrator left there, the next incremental backup builds on.
            adopt_under_lock(installation, repository)
        run = _Run(installation, engine, repository, lock, order, identifier, on_progress)
        try:
            return run.take(order.type, None)
        except IncrementalImpossible as why:
            if order.type not in {BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}:
                raise
            LOG.warning("taking a full backup instead of the %s one: %s", order.type, why.message)
            return run.take(BackupType.FULL, f"instead of {order.type}: {why.message}")


@dataclass
class _Run:
    installation: Installation
    engine: Engine
    repository: BackupRepository
    lock: ClusterLock
    order: BackupOrder
    identifier: UUID
    on_progress: ProgressCall | None
    phases: dict[str, float] = field(default_factory=dict)
    elsewhere: str | None = None

    def take(self, kind: BackupType, reason: str | None) -> BackupTaken:
        """One attempt with one type."""
        self.phases.clear()
        if self.engine.name == PGBACKREST:
            # It chooses the label itself, at its start, and does not know of the other engines' backups.
            self.repository.wait_for_free_second()
        started_at = datetime.now(UTC)
        with self._parent(kind) as parent:
            backup = self.repository.begin(kind, started_at, parent.manifest.label if parent else None)
            try:
                return self._fill(backup, kind, parent, reason)
            except BaseException as error:
                backup.abandon()
                if self.elsewhere is not None and not backup.published:
                    discard_in_repository(self.installation, self.repository, self.elsewhere, _first_line(error))
                raise

    @contextmanager
    def _parent(self, kind: BackupType) -> Iterator[Parent | None]:
        if kind not in {BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}:
            yield None
            return
        if (wish := why_full_wanted(self.installation, self.repository, self.engine.name)) is not None:
            raise IncrementalImpossible(wish)
        manifest = choose_parent(self.repository, self.engine.name, kind)
        # The new backup will need the whole chain: retention must not take a part of it meanwhile.
        with lease(self.installation, self.repository, manifest.details["chain"]):
            if all(item.name != PG_MANIFEST for item in manifest.objects):
                yield Parent(manifest, None)
                return
            path = self._work_folder() / "backup_manifest"
            with self.repository.open_object(manifest.label, PG_MANIFEST) as stream:
                path.write_bytes(stream.read())
            give_to(path, self.installation.run_as)
            yield Parent(manifest, path)

    def _work_folder(self) -> Path:
        # Under the cluster's lock nobody else uses it: what a killed run left is overwritten.
        settings = self.installation.settings
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        return make_private_dir(settings.state_dir / f"work-{settings.platform.cluster}", self.installation.run_as)

    def _fill(
        self, backup: UnfinishedBackup, kind: BackupType, parent: Parent | None, reason: str | None
    ) -> BackupTaken:
        LOG.info("taking %s backup %s to %s", kind, backup.label, self.repository.destination.describe())
        settings = self.installation.settings
        with (
            SourceFingerprint(self.installation.source, settings.drills) as fingerprint,
            payload_check(settings, backup.directory, self.engine.name) as end_check,
        ):
            taken = self._run_engine(backup, kind, parent, fingerprint)
            self.elsewhere = taken.label
            if taken.details.get("page_checksum_errors"):
                # pgBackRest goes on and ends well: what can be saved is. Nobody may miss it, though.
                reason = "; ".join([*([reason] if reason else []), BAD_PAGES])
                LOG.error("%s: look at the server's disks, and run pg_amcheck there", BAD_PAGES)
            if taken.label is not None:
                self.repository.relabel(backup, taken.label)
            with self._phase("flush"):
                objects = backup.seal()
            with self._phase("check"):
                end_check()
            with self._phase("wait for WAL"):
                self._wait_for_wal(taken)
            with self._phase("wait for fingerprint"):
                proof = fingerprint.result()
        self.lock.ensure_held()
        manifest = self._manifest(backup, taken, objects, proof, parent, reason)
        sha256 = self.repository.publish(backup, manifest)
        with best_effort(f"backup {backup.label}"):
            self.installation.catalog.backups.record_completed(
                manifest, destination=self.repository.destination.name, manifest_sha256=sha256
            )
        for unseen in observe_names(self.installation):
            LOG.info("%s", unseen)
        return BackupTaken.of(manifest, self.repository, sha256, dict(self.phases))

    def _run_engine(
        self, backup: UnfinishedBackup, kind: BackupType, parent: Parent | None, fingerprint: SourceFingerprint
    ) -> Taken:
        logical = kind is BackupType.LOGICAL
        if logical:
            fingerprint.fix_snapshot()
        destination = self.installation.destination(self.order.destination)

        looked_at = time.monotonic()

        def tick() -> None:
            nonlocal looked_at
            destination.require_free(0)
            if time.monotonic() - looked_at >= _LOCK_CHECK_SECONDS:
                # Without the lock another backup may have begun: there is no use in going on for hours.
                self.lock.ensure_held()
                looked_at = time.monotonic()

        watch = Watch(
            on_begun=fingerprint.fix_snapshot,
            on_tick=tick,
            on_progress=self.on_progress or (lambda progress: None),
            on_line=lambda line: LOG.debug("%s", line),
            snapshot=fingerprint.snapshot if logical else None,
            identifier=self.identifier,
        )
        with self._phase(self.engine.name):
            return self.engine.take(backup.directory, kind, backup.label, parent, watch)

    def _wait_for_wal(self, taken: Taken) -> None:
        wal = self.installation.settings.wal
        # A tool with a repository of its own has waited for its WAL there.
        if not wal.archive or taken.label is not None or taken.stop_lsn is None or taken.timeline is None:
            return
        if self.installation.settings.pgbackrest_archives:
            wait_in_pgbackrest(self.installation, timeline=taken.timeline, lsn=taken.stop_lsn)
            return
        root = self.installation.destination(wal.destination).path
        with connect(self.installation.source, autocommit=True) as connection:
            wait_for_segment(
                root,
                self.repository.cluster,
                timeline=taken.timeline,
                lsn=taken.stop_lsn,
                timeout_seconds=wal.segment_timeout_seconds,
                connection=connection,
            )

    def _manifest(  # noqa: PLR0913
        self,
        backup: UnfinishedBackup,
        taken: Taken,
        objects: list[BackupObject],
        fingerprint: Fingerprint,
        parent: Parent | None,
        reason: str | None,
    ) -> Manifest:
        return Manifest(
            id=self.identifier,
            label=backup.label,
            set_id=self.order.set_id,
            type=taken.type,
            engine=taken.engine,
            cluster=self.repository.cluster,
            parent_id=parent.manifest.id if parent else None,
            parent_label=parent.manifest.label if parent else None,
            reason=reason,
            started_at=backup.started_at,
            completed_at=datetime.now(UTC),
            pg_version=taken.pg_version,
            system_identifier=taken.system_identifier,
            timeline=taken.timeline,
            start_lsn=taken.start_lsn,
            stop_lsn=taken.stop_lsn,
            database=taken.database or fingerprint.database,
            flow_run_id=self.order.flow_run_id,
            objects=objects,
            compression=taken.compression,
            fingerprint=fingerprint,
            restore=taken.restore,
            tools=dict(taken.tools),
            details={**taken.manifest_details, "phases": dict(self.phases)},
            lifeboat_version=version("lifeboat"),
            signed_by=self.installation.signer.key_id,
        )

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.phases[name] = round(time.monotonic() - began, 3)


def _refuse_unencrypted_passwords(installation: Installation, engine: str, destination: str | None) -> None:
    settings = installation.settings
    name = destination or settings.backup.destination
    if engine != "pg_dump" or settings.engines.pg_dump.globals != "with-passwords":
        return
    target = settings.destinations.get(name)
    if target is not None and not target.allow_role_passwords:
        raise SettingsError(
            f"dumps with the roles' password hashes are not written to the unencrypted destination {name}",
            hint=f'Set `engines.pg_dump.globals = "without-passwords"` or `destinations.{name}.allow_role_passwords`.',
        )
