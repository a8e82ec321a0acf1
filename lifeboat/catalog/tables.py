"""The catalog's tables (DESIGN 4), in the schema `lifeboat`.

Storage is the truth and the catalog an index that may lag behind it or be rebuilt from a part of it. So a parent, a
drill's or a restore's backup need not have a row: only copies, which are found through their manifest, have a
foreign key.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from lifeboat.catalog.columns import EnumText, PlainJson, PlainText, UtcDateTime, one_of
from lifeboat.catalog.values import (
    ActivityResolution,
    AnnotationKind,
    AssetProblem,
    BackupStatus,
    CopyStatus,
    DrillTarget,
    RestoreStatus,
    RestoreTarget,
    ScheduleType,
)
from lifeboat.storage.manifest import BackupType

SCHEMA = "lifeboat"
REVISION = "0002"  # the migration that makes these tables, with those of wal_tables

_NO = text("false")
_OPEN = text("closed_at IS NULL")
_NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


class Base(DeclarativeBase):
    """All tables."""

    metadata = MetaData(schema=SCHEMA, naming_convention=_NAMES)
    type_annotation_map = {
        datetime: UtcDateTime(),
        int: BigInteger(),
        str: PlainText(),
        dict[str, Any]: PlainJson(),
        BackupStatus: EnumText(BackupStatus),
        BackupType: EnumText(BackupType),
        ScheduleType: EnumText(ScheduleType),
        DrillTarget: EnumText(DrillTarget),
        RestoreTarget: EnumText(RestoreTarget),
        RestoreStatus: EnumText(RestoreStatus),
        CopyStatus: EnumText(CopyStatus),
        AnnotationKind: EnumText(AnnotationKind),
        ActivityResolution: EnumText(ActivityResolution),
        AssetProblem: EnumText(AssetProblem),
    }


class Backup(Base):
    """Every backup, running and ended."""

    __tablename__ = "backups"
    __table_args__ = (
        one_of("type", BackupType),
        one_of("status", BackupStatus),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        # Nothing may look like a good backup that has no manifest behind it.
        CheckConstraint("(status IN ('completed', 'expired')) = (completed_at IS NOT NULL)", name="completed_at"),
        CheckConstraint(
            "completed_at IS NULL OR (label IS NOT NULL AND size_bytes IS NOT NULL AND manifest_sha256 IS NOT NULL)",
            name="manifest",
        ),
        CheckConstraint("NOT verified OR (verified_at IS NOT NULL AND completed_at IS NOT NULL)", name="verified"),
        CheckConstraint("(status = 'running') = (ended_at IS NULL)", name="ended_at"),
        CheckConstraint("(status = 'expired') = (expired_at IS NOT NULL)", name="expired_at"),
        UniqueConstraint("label", "cluster", "destination", name="uq_backups_label"),
        # Lists are ordered by time and id, newest first, whatever they are filtered by; cursors go on from there.
        Index("ix_backups_started_at", "started_at", "id"),
        Index("ix_backups_status", "status", "started_at", "id"),
        Index("ix_backups_type", "type", "started_at", "id"),
        Index("ix_backups_engine", "engine", "started_at", "id"),
        Index("ix_backups_cluster", "cluster", "started_at", "id"),
        Index("ix_backups_destination", "destination", "started_at", "id"),
        Index("ix_backups_set_id", "set_id"),
        Index("ix_backups_parent_id", "parent_id"),
        Index("ix_backups_flow_run_id", "flow_run_id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    set_id: Mapped[UUID]
    type: Mapped[BackupType]
    engine: Mapped[str]
    cluster: Mapped[str]
    destination: Mapped[str]
    label: Mapped[str | None]
    parent_id: Mapped[UUID | None]
    status: Mapped[BackupStatus]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    expired_at: Mapped[datetime | None]
    size_bytes: Mapped[int | None]
    verified: Mapped[bool] = mapped_column(server_default=_NO)
    verified_at: Mapped[datetime | None]
    pinned: Mapped[bool] = mapped_column(server_default=_NO)
    suspect: Mapped[bool] = mapped_column(server_default=_NO)
    pg_version: Mapped[str | None]
    timeline: Mapped[int | None]
    start_lsn: Mapped[str | None]
    stop_lsn: Mapped[str | None]
    flow_run_id: Mapped[UUID | None]
    error: Mapped[str | None]
    manifest_sha256: Mapped[str | None]


class BackupSchedule(Base):
    """One row is one Prefect schedule (DESIGN 5)."""

    __tablename__ = "backup_schedules"
    __table_args__ = (
        one_of("type", ScheduleType),
        CheckConstraint("window_minutes > 0", name="window_minutes"),
        UniqueConstraint("name", name="uq_backup_schedules_name"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    type: Mapped[ScheduleType]
    schedule: Mapped[str]
    destination: Mapped[str | None]
    retention_policy_json: Mapped[dict[str, Any] | None]
    timezone: Mapped[str] = mapped_column(server_default="UTC")
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    window_minutes: Mapped[int | None]
    parameters_json: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class BackupCopy(Base):
    """The copy of a backup at another destination."""

    __tablename__ = "backup_copies"
    __table_args__ = (
        PrimaryKeyConstraint("backup_id", "destination"),
        one_of("status", CopyStatus),
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        Index("ix_backup_copies_destination", "destination", "started_at", "backup_id"),
    )

    backup_id: Mapped[UUID] = mapped_column(ForeignKey(Backup.id, ondelete="CASCADE"))
    destination: Mapped[str]
    status: Mapped[CopyStatus]
    size_bytes: Mapped[int | None]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    error: Mapped[str | None]


class RestoreDrill(Base):
    """Every restore drill, passed or not."""

    __tablename__ = "restore_drills"
    __table_args__ = (
        one_of("target_kind", DrillTarget),
        Index("ix_restore_drills_started_at", "started_at", "id"),
        Index("ix_restore_drills_backup_id", "backup_id", "started_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    backup_id: Mapped[UUID]
    label: Mapped[str]
    target_kind: Mapped[DrillTarget]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime]
    passed: Mapped[bool]
    phases_json: Mapped[dict[str, Any]]
    report_json: Mapped[dict[str, Any]]
    error: Mapped[str | None]
    flow_run_id: Mapped[UUID | None]


class Restore(Base):
    """Every restore that somebody asked for; `recovery_target_at` is None where a backup itself was the target."""

    __tablename__ = "restores"
    __table_args__ = (
        one_of("target_kind", RestoreTarget),
        one_of("status", RestoreStatus),
        CheckConstraint("(status = 'running') = (completed_at IS NULL)", name="completed_at"),
        Index("ix_restores_started_at", "started_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    backup_id: Mapped[UUID | None]
    label: Mapped[str | None]
    cluster: Mapped[str]
    target_kind: Mapped[RestoreTarget]
    target: Mapped[str]
    recovery_target_at: Mapped[datetime | None]
    status: Mapped[RestoreStatus]
    actor: Mapped[str]
    started_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]
    phases_json: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    report_json: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    error: Mapped[str | None]
    flow_run_id: Mapped[UUID | None]


class Annotation(Base):
    """What was happening at a restore point (DESIGN 7)."""

    __tablename__ = "annotations"
    __table_args__ = (
        one_of("kind", AnnotationKind),
        CheckConstraint("until_at >= at", name="until_at"),
        Index("ix_annotations_at", "cluster", "at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    cluster: Mapped[str]
    at: Mapped[datetime]
    until_at: Mapped[datetime | None]
    kind: Mapped[AnnotationKind]
    text: Mapped[str]
    actor: Mapped[str | None]
    backup_id: Mapped[UUID | None]
    detail_json: Mapped[dict[str, Any] | None]


class AssetFinding(Base):
    """What asset checks found; a file has at most one open finding."""

    __tablename__ = "asset_findings"
    __table_args__ = (
        one_of("finding", AssetProblem),
        CheckConstraint("asset_id IS NOT NULL OR finding = 'orphan'", name="asset_id"),
        CheckConstraint("last_seen_at >= first_seen_at", name="last_seen_at"),
        Index(
            "uq_asset_findings_open",
            "path",
            "asset_id",
            unique=True,
            postgresql_where=_OPEN,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_asset_findings_open", "first_seen_at", "id", postgresql_where=_OPEN),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    asset_id: Mapped[str | None]
    kind: Mapped[str]
    path: Mapped[str]
    finding: Mapped[AssetProblem]
    expected_sha256: Mapped[str | None]
    actual_sha256: Mapped[str | None]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class StorageSample(Base):
    """How full the destinations were over time: what capacity forecasts are made from."""

    __tablename__ = "storage_samples"
    __table_args__ = (
        PrimaryKeyConstraint("destination", "taken_at"),
        CheckConstraint("free_bytes >= 0 AND free_bytes <= total_bytes", name="free_bytes"),
    )

    destination: Mapped[str]
    taken_at: Mapped[datetime]
    total_bytes: Mapped[int | None]
    free_bytes: Mapped[int | None]
    backups_bytes: Mapped[int | None]
    wal_bytes: Mapped[int | None]
    backups_count: Mapped[int | None]


class AuditEntry(Base):
    """Every write that somebody ordered."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_at", "at"), Index("ix_audit_log_object", "object", "id"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    action: Mapped[str]
    object: Mapped[str]
    before_json: Mapped[dict[str, Any] | None]
    after_json: Mapped[dict[str, Any] | None]
