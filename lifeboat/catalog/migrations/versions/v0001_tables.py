"""The first tables."""

from alembic import op

revision = "0001"
down_revision = None

BACKUPS = """
CREATE TABLE lifeboat.backups (
    id uuid NOT NULL,
    set_id uuid NOT NULL,
    type text NOT NULL,
    engine text NOT NULL,
    cluster text NOT NULL,
    destination text NOT NULL,
    label text,
    parent_id uuid,
    status text NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    ended_at timestamptz,
    expired_at timestamptz,
    size_bytes bigint,
    verified boolean NOT NULL DEFAULT false,
    verified_at timestamptz,
    pinned boolean NOT NULL DEFAULT false,
    suspect boolean NOT NULL DEFAULT false,
    pg_version text,
    timeline bigint,
    start_lsn text,
    stop_lsn text,
    flow_run_id uuid,
    error text,
    manifest_sha256 text,
    CONSTRAINT pk_backups PRIMARY KEY (id),
    CONSTRAINT uq_backups_label UNIQUE (label, cluster, destination),
    CONSTRAINT ck_backups_type CHECK (type IN ('full', 'differential', 'incremental', 'logical', 'config')),
    CONSTRAINT ck_backups_status
        CHECK (status IN ('running', 'completed', 'failed', 'cancelled', 'crashed', 'skipped', 'expired')),
    CONSTRAINT ck_backups_size_bytes CHECK (size_bytes >= 0),
    CONSTRAINT ck_backups_completed_at
        CHECK ((status IN ('completed', 'expired')) = (completed_at IS NOT NULL)),
    CONSTRAINT ck_backups_manifest
        CHECK (completed_at IS NULL
               OR (label IS NOT NULL AND size_bytes IS NOT NULL AND manifest_sha256 IS NOT NULL)),
    CONSTRAINT ck_backups_verified
        CHECK (NOT verified OR (verified_at IS NOT NULL AND completed_at IS NOT NULL)),
    CONSTRAINT ck_backups_ended_at CHECK ((status = 'running') = (ended_at IS NULL)),
    CONSTRAINT ck_backups_expired_at CHECK ((status = 'expired') = (expired_at IS NOT NULL))
)
"""

SCHEDULES = """
CREATE TABLE lifeboat.backup_schedules (
    id uuid NOT NULL,
    name text NOT NULL,
    type text NOT NULL,
    schedule text NOT NULL,
    destination text,
    retention_policy_json jsonb,
    timezone text NOT NULL DEFAULT 'UTC',
    enabled boolean NOT NULL DEFAULT true,
    window_minutes bigint,
    parameters_json jsonb NOT NULL DEFAULT '{}',
    CONSTRAINT pk_backup_schedules PRIMARY KEY (id),
    CONSTRAINT uq_backup_schedules_name UNIQUE (name),
    CONSTRAINT ck_backup_schedules_type
        CHECK (type IN ('full', 'differential', 'incremental', 'logical', 'config',
                        'test-restore', 'asset-verification', 'retention', 'reconcile')),
    CONSTRAINT ck_backup_schedules_window_minutes CHECK (window_minutes > 0)
)
"""

COPIES = """
CREATE TABLE lifeboat.backup_copies (
    backup_id uuid NOT NULL,
    destination text NOT NULL,
    status text NOT NULL,
    size_bytes bigint,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    checked_at timestamptz,
    error text,
    CONSTRAINT pk_backup_copies PRIMARY KEY (backup_id, destination),
    CONSTRAINT fk_backup_copies_backup_id
        FOREIGN KEY (backup_id) REFERENCES lifeboat.backups (id) ON DELETE CASCADE,
    CONSTRAINT ck_backup_copies_status CHECK (status IN ('running', 'completed', 'failed', 'expired')),
    CONSTRAINT ck_backup_copies_size_bytes CHECK (size_bytes >= 0)
)
"""

DRILLS = """
CREATE TABLE lifeboat.restore_drills (
    id uuid NOT NULL,
    backup_id uuid NOT NULL,
    label text NOT NULL,
    target_kind text NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz NOT NULL,
    passed boolean NOT NULL,
    phases_json jsonb NOT NULL,
    report_json jsonb NOT NULL,
    error text,
    flow_run_id uuid,
    CONSTRAINT pk_restore_drills PRIMARY KEY (id),
    CONSTRAINT ck_restore_drills_target_kind CHECK (target_kind IN ('scratch', 'database'))
)
"""

RESTORES = """
CREATE TABLE lifeboat.restores (
    id uuid NOT NULL,
    backup_id uuid,
    label text,
    cluster text NOT NULL,
    target_kind text NOT NULL,
    target text NOT NULL,
    recovery_target_at timestamptz,
    status text NOT NULL,
    actor text NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz,
    phases_json jsonb NOT NULL DEFAULT '{}',
    report_json jsonb NOT NULL DEFAULT '{}',
    error text,
    flow_run_id uuid,
    CONSTRAINT pk_restores PRIMARY KEY (id),
    CONSTRAINT ck_restores_target_kind
        CHECK (target_kind IN ('directory', 'in-place', 'database', 'explore', 'rescue')),
    CONSTRAINT ck_restores_status CHECK (status IN ('running', 'completed', 'failed', 'cancelled', 'crashed')),
    CONSTRAINT ck_restores_completed_at CHECK ((status = 'running') = (completed_at IS NULL))
)
"""

ACTIVITY = """
CREATE TABLE lifeboat.wal_activity (
    cluster text NOT NULL,
    timeline bigint NOT NULL,
    resolution text NOT NULL,
    bucket_at timestamptz NOT NULL,
    database text NOT NULL,
    relation text NOT NULL,
    inserted_rows bigint NOT NULL,
    updated_rows bigint NOT NULL,
    deleted_rows bigint NOT NULL,
    CONSTRAINT pk_wal_activity PRIMARY KEY (cluster, timeline, resolution, bucket_at, database, relation),
    CONSTRAINT ck_wal_activity_resolution CHECK (resolution IN ('minute', 'hour')),
    CONSTRAINT ck_wal_activity_rows CHECK (inserted_rows >= 0 AND updated_rows >= 0 AND deleted_rows >= 0)
)
"""

ANNOTATIONS = """
CREATE TABLE lifeboat.annotations (
    id uuid NOT NULL,
    cluster text NOT NULL,
    at timestamptz NOT NULL,
    until_at timestamptz,
    kind text NOT NULL,
    text text NOT NULL,
    actor text,
    backup_id uuid,
    detail_json jsonb,
    CONSTRAINT pk_annotations PRIMARY KEY (id),
    CONSTRAINT ck_annotations_kind
        CHECK (kind IN ('note', 'restore-point', 'backup', 'drill', 'event', 'audit')),
    CONSTRAINT ck_annotations_until_at CHECK (until_at >= at)
)
"""

FINDINGS = """
CREATE TABLE lifeboat.asset_findings (
    id uuid NOT NULL,
    asset_id text,
    kind text NOT NULL,
    path text NOT NULL,
    finding text NOT NULL,
    expected_sha256 text,
    actual_sha256 text,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    closed_at timestamptz,
    detail text,
    CONSTRAINT pk_asset_findings PRIMARY KEY (id),
    CONSTRAINT ck_asset_findings_finding
        CHECK (finding IN ('missing', 'corrupt', 'unreadable', 'changed', 'orphan')),
    CONSTRAINT ck_asset_findings_asset_id CHECK (asset_id IS NOT NULL OR finding = 'orphan'),
    CONSTRAINT ck_asset_findings_last_seen_at CHECK (last_seen_at >= first_seen_at)
)
"""

SAMPLES = """
CREATE TABLE lifeboat.storage_samples (
    destination text NOT NULL,
    taken_at timestamptz NOT NULL,
    total_bytes bigint,
    free_bytes bigint,
    backups_bytes bigint,
    wal_bytes bigint,
    backups_count bigint,
    CONSTRAINT pk_storage_samples PRIMARY KEY (destination, taken_at),
    CONSTRAINT ck_storage_samples_free_bytes CHECK (free_bytes >= 0 AND free_bytes <= total_bytes)
)
"""

AUDIT = """
CREATE TABLE lifeboat.audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    object text NOT NULL,
    before_json jsonb,
    after_json jsonb,
    CONSTRAINT pk_audit_log PRIMARY KEY (id)
)
"""

INDEXES = (
    "ix_backups_started_at ON lifeboat.backups (started_at, id)",
    "ix_backups_status ON lifeboat.backups (status, started_at, id)",
    "ix_backups_type ON lifeboat.backups (type, started_at, id)",
    "ix_backups_engine ON lifeboat.backups (engine, started_at, id)",
    "ix_backups_cluster ON lifeboat.backups (cluster, started_at, id)",
    "ix_backups_destination ON lifeboat.backups (destination, started_at, id)",
    "ix_backups_set_id ON lifeboat.backups (set_id)",
    "ix_backups_parent_id ON lifeboat.backups (parent_id)",
    "ix_backups_flow_run_id ON lifeboat.backups (flow_run_id)",
    "ix_backup_copies_destination ON lifeboat.backup_copies (destination, started_at, backup_id)",
    "ix_restore_drills_started_at ON lifeboat.restore_drills (started_at, id)",
    "ix_restore_drills_backup_id ON lifeboat.restore_drills (backup_id, started_at, id)",
    "ix_restores_started_at ON lifeboat.restores (started_at, id)",
    "ix_annotations_at ON lifeboat.annotations (cluster, at, id)",
    "ix_asset_findings_open ON lifeboat.asset_findings (first_seen_at, id) WHERE closed_at IS NULL",
    "ix_audit_log_at ON lifeboat.audit_log (at)",
    "ix_audit_log_object ON lifeboat.audit_log (object, id)",
)

ONE_OPEN_FINDING = """
CREATE UNIQUE INDEX uq_asset_findings_open ON lifeboat.asset_findings (path, asset_id)
    NULLS NOT DISTINCT WHERE closed_at IS NULL
"""


def upgrade() -> None:
    """Create the tables and their indexes."""
    for table in (
        BACKUPS, SCHEDULES, COPIES, DRILLS, RESTORES, ACTIVITY, ANNOTATIONS, FINDINGS, SAMPLES, AUDIT,
    ):  # fmt: skip
        op.execute(table)
    for index in INDEXES:
        op.execute(f"CREATE INDEX {index}")
    op.execute(ONE_OPEN_FINDING)
