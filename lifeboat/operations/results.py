"""What operations return: plain values that flows turn into artifacts and the command line into tables."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository


@dataclass(frozen=True)
class BackupTaken:
    """A finished backup."""

    id: UUID
    label: str
    type: BackupType
    engine: str
    destination: str
    location: str
    size_bytes: int
    started_at: datetime
    completed_at: datetime
    manifest_sha256: str
    reason: str | None = None
    fingerprint_seconds: float | None = None
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def duration_seconds(self) -> float:
        """From the label to the manifest."""
        return (self.completed_at - self.started_at).total_seconds()

    @classmethod
    def of(
        cls, manifest: Manifest, repository: BackupRepository, sha256: str, phases: dict[str, float] | None = None
    ) -> "BackupTaken":
        """What a manifest and its place say."""
        return cls(
            id=manifest.id,
            label=manifest.label,
            type=manifest.type,
            engine=manifest.engine,
            destination=repository.destination.name,
            location=f"{repository.destination.describe()}/{repository.key(manifest.label)}",
            size_bytes=manifest.size_bytes,
            started_at=manifest.started_at,
            completed_at=manifest.completed_at,
            manifest_sha256=sha256,
            reason=manifest.reason,
            fingerprint_seconds=manifest.fingerprint.duration_seconds if manifest.fingerprint else None,
            phases=phases or {},
        )


@dataclass(frozen=True)
class DrillReport:
    """A restore drill: what was restored, how long each phase took (seconds), and every fault found."""

    id: UUID
    backup_id: UUID
    label: str
    target: str
    started_at: datetime
    completed_at: datetime
    phases: dict[str, float]
    faults: list[str]
    compared_tables: int
    not_compared: list[str]
    validations: list[tuple[str, bool, str]]
    notes: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.faults


@dataclass(frozen=True)
class ExpiryReport:
    """What retention did: label and reason of everything kept, expired, and removed as unfinished."""

    plan_hash: str
    kept: list[tuple[str, str]]
    expired: list[tuple[str, str]]
    removed_unfinished: list[str]
    freed_bytes: int
    applied: bool


@dataclass(frozen=True)
class ReconcileReport:
    """What reconciling changed: rows by id with what was done, scratch clusters and temporary databases removed, notes
    and restore points that the catalog did not have as storage has them, and what could not be read, by destination."""

    repaired: list[tuple[UUID, str]]
    adopted: list[str]
    missing_in_storage: list[str]
    removed_scratch: list[Path]
    unread: dict[str, str] = field(default_factory=dict)
    removed_databases: list[str] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
