"""What the catalog stores, as values: one frozen row class per table that a store reads, and their enums."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from lifeboat.storage.manifest import BackupType


class BackupStatus(StrEnum):
    """Where a backup stands (DESIGN 4)."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    SKIPPED = "skipped"
    EXPIRED = "expired"


class ScheduleType(StrEnum):
    """What a schedule starts: a backup of some type, or one of the other flows."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"
    LOGICAL = "logical"
    CONFIG = "config"
    TEST_RESTORE = "test-restore"
    ASSET_VERIFICATION = "asset-verification"
    RETENTION = "retention"
    RECONCILE = "reconcile"


class DrillTarget(StrEnum):
    """Where a restore drill restores to: a scratch cluster or a temporary database."""

    SCRATCH = "scratch"
    DATABASE = "database"


class RestoreTarget(StrEnum):
    """Where a restore goes."""

    DIRECTORY = "directory"
    IN_PLACE = "in-place"
    DATABASE = "database"
    EXPLORE = "explore"
    RESCUE = "rescue"


class RestoreStatus(StrEnum):
    """Where a restore stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CRASHED = "crashed"


class CopyStatus(StrEnum):
    """Where the copy of a backup in another region stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


class AnnotationKind(StrEnum):
    """Who says what happened at a time: a person, Lifeboat, the WAL, or the platform's audit query."""

    NOTE = "note"
    RESTORE_POINT = "restore-point"
    BACKUP = "backup"
    DRILL = "drill"
    WAL = "wal"
    AUDIT = "audit"


class ActivityResolution(StrEnum):
    """How long one bucket of the activity index is."""

    MINUTE = "minute"
    HOUR = "hour"


class AssetProblem(StrEnum):
    """What is wrong with an asset's file; an orphan is a file that no record knows."""

    MISSING = "missing"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class BackupRow:
    """One backup.

    `label` is None until the run that takes it has published its manifest. `completed_at` is set for completed and
    expired backups only; `ended_at` says when any run ended. `verified_at` is the last passed restore drill.
    """

    id: UUID
    set_id: UUID
    type: BackupType
    engine: str
    cluster: str
    destination: str
    label: str | None
    parent_id: UUID | None
    status: BackupStatus
    started_at: datetime
    completed_at: datetime | None
    ended_at: datetime | None
    expired_at: datetime | None
    size_bytes: int | None
    verified: bool
    verified_at: datetime | None
    pinned: bool
    suspect: bool
    pg_version: str | None
    timeline: int | None
    start_lsn: str | None
    stop_lsn: str | None
    flow_run_id: UUID | None
    error: str | None
    manifest_sha256: str | None


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """One schedule; `schedule` is a cron line. No destination and no retention policy mean the settings' defaults."""

    id: UUID
    name: str
    type: ScheduleType
    schedule: str
    destination: str | None
    retention_policy_json: dict[str, Any] | None
    timezone: str
    enabled: bool
    window_minutes: int | None
    parameters_json: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DrillRow:
    """One restore drill; `phases_json` has seconds by phase."""

    id: UUID
    backup_id: UUID
    label: str
    target_kind: DrillTarget
    started_at: datetime
    completed_at: datetime
    passed: bool
    phases_json: dict[str, float]
    report_json: dict[str, Any]
    error: str | None
    flow_run_id: UUID | None


@dataclass(frozen=True, slots=True)
class RestoreRow:
    """One restore; `phases_json` has seconds by phase."""

    id: UUID
    backup_id: UUID | None
    label: str | None
    cluster: str
    target_kind: RestoreTarget
    target: str
    recovery_target_at: datetime | None
    status: RestoreStatus
    actor: str
    started_at: datetime
    completed_at: datetime | None
    phases_json: dict[str, float]
    report_json: dict[str, Any]
    error: str | None
    flow_run_id: UUID | None


@dataclass(frozen=True, slots=True)
class SeenFinding:
    """Something wrong with one file, as a check saw it; an orphan has no `asset_id`."""

    asset_id: str | None
    kind: str
    path: str
    finding: AssetProblem
    expected_sha256: str | None = None
    actual_sha256: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding over time: open while `closed_at` is None; `first_seen_at` is when it became what it is."""

    id: UUID
    asset_id: str | None
    kind: str
    path: str
    finding: AssetProblem
    expected_sha256: str | None
    actual_sha256: str | None
    first_seen_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class StorageSample:
    """How full a destination was and what Lifeboat has there; None where it has no bound or was not measured."""

    destination: str
    taken_at: datetime
    total_bytes: int | None = None
    free_bytes: int | None = None
    backups_bytes: int | None = None
    wal_bytes: int | None = None
    backups_count: int | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Who did what to which object, and what changed."""

    id: int
    at: datetime
    actor: str
    action: str
    object: str
    before_json: dict[str, Any] | None
    after_json: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """What was happening at `at`, or from then to `until_at`; its id comes from what it is about."""

    id: UUID
    cluster: str
    at: datetime
    until_at: datetime | None
    kind: AnnotationKind
    text: str
    actor: str | None
    backup_id: UUID | None = None
    detail_json: dict[str, Any] | None = None
