"""The restore drill: bring a backup back somewhere else, and prove that it is what was backed up."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID, uuid4

from lifeboat.engines.engine import EngineFailed, Progress
from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.backup.selection import find_backup
from lifeboat.operations.drill.proving import Proof, prove
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.leases import lease
from lifeboat.operations.recording import best_effort
from lifeboat.operations.restore.scratch import (
    RecoveryStuck,
    Restored,
    restore_dump_beside,
    restore_dump_to_scratch,
    restore_physical,
)
from lifeboat.operations.results import DrillReport
from lifeboat.postgres.cluster import ServerStartFailed
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.postgres.folders import check_reachable
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.destination import ObjectMissing
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.manifest import BackupType, Manifest, ManifestError
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.touched import WalUnreadable
from lifeboat.wal.archive import WalDamaged, WalFileMissing

_SPACE_FACTOR = 1.2
# Only what lies in the backup itself speaks against it. A lost connection, a full disk or a missing program does not:
# that is raised, and the drill is held again.
_CONDEMNING = (
    BackupDamaged,
    ObjectMissing,
    ManifestError,
    EngineFailed,
    RecoveryStuck,
    ServerStartFailed,
    WalDamaged,
    WalFileMissing,
    WalUnreadable,
)


class NoRoomForDrill(PermanentError):
    """The scratch folder has less space than the restored backup needs."""


@dataclass(frozen=True)
class DrillOrder:
    """What to restore and where; `on_restored` is called with the restored database before it is compared."""

    backup: str = "latest"
    destination: str | None = None
    target: Literal["scratch", "database"] = "scratch"
    flow_run_id: UUID | None = None
    on_restored: Callable[[ConnectionInfo], None] | None = None


@dataclass
class Phases:
    """How long each phase took, in seconds, in order of their beginnings; one inside another counts for itself."""

    on_progress: Callable[[str], None] | None
    on_amount: Callable[[Progress], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    doing: str = "drill"
    _open: list[str] = field(default_factory=list, init=False)
    _told: str = field(default="", init=False)
    _since: float = field(default=0.0, init=False)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time one phase and tell that it has begun."""
        LOG.info("%s: %s", self.doing, name)
        self._count()
        self._open.append(name)
        self.seconds.setdefault(name, 0.0)
        self._tell()
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        now = time.monotonic()
        if self._open:
            self.seconds[self._open[-1]] = round(self.seconds[self._open[-1]] + now - self._since, 3)
        self._since = now

    def _tell(self) -> None:
        self._told = self._open[-1]
        if self.on_progress is not None:
            self.on_progress(self._told)

    def amount(self, progress: Progress) -> None:
        """Tell how far the present phase is, where that is known."""
        if self._open and self._told != self._open[-1]:
            self._tell()  # it goes on after one inside it
        if self.on_amount is not None:
            self.on_amount(progress)


def run_drill(
    installation: Installation,
    order: DrillOrder,
    on_progress: Callable[[str], None] | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> DrillReport:
    """Restore, compare, record; the report says whether it passed. The scratch is gone when this returns.

    `on_progress` is told each phase when it begins, `on_amount` how many bytes of its files are back.

    A backup that cannot be restored fails the drill, it does not raise. Raises only when the drill itself could not
    be held: no such backup, no room, no access to the destination.
    """
    repository = installation.writable_repository(order.destination)
    stored = find_backup(repository, order.backup)
    manifest = stored.manifest
    if manifest.type is BackupType.CONFIG:
        raise SettingsError(f"{manifest.label} is a configuration archive", hint="Use `lifeboat config diff` for it.")
    if order.target == "database" and manifest.engine != "pg_dump":
        raise SettingsError(
            f"{manifest.label} is a physical backup: it restores a whole cluster", hint="Use the target `scratch`."
        )
    started_at, phases, proof = datetime.now(UTC), Phases(on_progress, on_amount), Proof()
    with lease(installation, repository, manifest.details.get("chain", [manifest.label])):
        _require_room(installation, manifest)
        try:
            with _restored(installation, repository, manifest, order, phases) as restored:
                if order.on_restored is not None:
                    order.on_restored(restored.connection)
                proof = prove(installation, manifest, restored, phases)
        except _CONDEMNING as error:
            proof.faults.append(f"restoring {manifest.label} failed: {error.message}")
    report = DrillReport(
        id=order.flow_run_id or uuid4(),
        backup_id=manifest.id,
        label=manifest.label,
        target=order.target,
        started_at=started_at,
        completed_at=datetime.now(UTC),
        phases=phases.seconds,
        faults=proof.faults,
        compared_tables=proof.compared_tables,
        not_compared=proof.not_compared,
        validations=proof.validations,
        notes=proof.notes,
    )
    _record(installation, repository, report, order)
    return report


@contextmanager
def _restored(
    installation: Installation, repository: BackupRepository, manifest: Manifest, order: DrillOrder, phases: Phases
) -> Iterator[Restored]:
    if manifest.engine == "pg_dump":
        bring = restore_dump_beside if order.target == "database" else restore_dump_to_scratch
        with bring(installation, repository, manifest, phases) as restored:
            yield restored
        return
    with restore_physical(installation, repository, manifest, phases) as restored:
        yield restored


def _require_room(installation: Installation, manifest: Manifest) -> None:
    parent = installation.settings.scratch_dir
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o711)
    check_reachable(parent, installation.tools.user)
    tables = sum(table.size_bytes for table in manifest.fingerprint.tables) if manifest.fingerprint else 0
    # Incremental backups in a tool's own repository are small, and what a restore brings back is not.
    cluster = int(manifest.details.get("cluster_bytes") or 0)
    needed = int(max(tables + manifest.size_bytes, cluster) * _SPACE_FACTOR)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise NoRoomForDrill(
            f"a drill of {manifest.label} needs about {needed:,} bytes below {parent}, where {free:,} are free",
            hint="Free space there, or move `state_dir` to a larger volume.",
        )


def _record(installation: Installation, repository: BackupRepository, report: DrillReport, order: DrillOrder) -> None:
    kind = EventKind.VERIFIED if report.passed else EventKind.DRILL_FAILED
    detail = {"drill": str(report.id), "phases": report.phases, "faults": report.faults[:20], "target": report.target}
    repository.append_event(
        Event(kind=kind, at=report.completed_at, backup_id=report.backup_id, label=report.label, detail=detail)
    )
    with best_effort(f"the drill of {report.label}"):
        installation.catalog.backups.mark_verified(report.backup_id, report.completed_at, passed=report.passed)
        installation.catalog.drills.record(
            report.id,
            backup_id=report.backup_id,
            label=report.label,
            target_kind=report.target,
            started_at=report.started_at,
            completed_at=report.completed_at,
            passed=report.passed,
            phases=report.phases,
            report={
                "faults": report.faults,
                "not_compared": report.not_compared,
                "validations": report.validations,
                "notes": report.notes,
                "compared_tables": report.compared_tables,
            },
            error="; ".join(report.faults) or None,
            flow_run_id=order.flow_run_id,
        )
