"""The WAL activity index: names of relations, where the index stands, activity by the names that WAL has.

`wal_activity` is made anew: its first shape, by text names, was never written to. Annotations of the kind `event` are
of the kind `wal` now: it says where they come from.
"""

from alembic import op

revision = "0002"
down_revision = "0001"

NAMES = """
CREATE TABLE lifeboat.relation_names (
    cluster text NOT NULL,
    database text NOT NULL,
    database_oid bigint NOT NULL,
    relfilenode bigint NOT NULL,
    oid bigint NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    observed_at timestamptz NOT NULL,
    gone_at timestamptz,
    CONSTRAINT pk_relation_names PRIMARY KEY (cluster, database_oid, oid, relfilenode, name),
    CONSTRAINT ck_relation_names_gone_at CHECK (gone_at >= observed_at)
)
"""

ACTIVITY = """
CREATE TABLE lifeboat.wal_activity (
    cluster text NOT NULL,
    timeline bigint NOT NULL,
    resolution text NOT NULL,
    bucket_at timestamptz NOT NULL,
    database_oid bigint NOT NULL,
    relfilenode bigint NOT NULL,
    inserted_rows bigint NOT NULL,
    updated_rows bigint NOT NULL,
    deleted_rows bigint NOT NULL,
    CONSTRAINT pk_wal_activity PRIMARY KEY (cluster, timeline, resolution, bucket_at, database_oid, relfilenode),
    CONSTRAINT ck_wal_activity_resolution CHECK (resolution IN ('minute', 'hour')),
    CONSTRAINT ck_wal_activity_rows CHECK (inserted_rows >= 0 AND updated_rows >= 0 AND deleted_rows >= 0)
)
"""

COMMITS = """
CREATE TABLE lifeboat.wal_commits (
    cluster text NOT NULL,
    timeline bigint NOT NULL,
    resolution text NOT NULL,
    bucket_at timestamptz NOT NULL,
    commits bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT pk_wal_commits PRIMARY KEY (cluster, timeline, resolution, bucket_at),
    CONSTRAINT ck_wal_commits_resolution CHECK (resolution IN ('minute', 'hour')),
    CONSTRAINT ck_wal_commits_commits CHECK (commits >= 0)
)
"""

STATE = """
CREATE TABLE lifeboat.wal_index_state (
    cluster text NOT NULL,
    timeline bigint NOT NULL,
    segment_bytes bigint NOT NULL,
    next_lsn bigint NOT NULL,
    last_lsn bigint,
    read_to_lsn bigint,
    began_at timestamptz,
    latest_at timestamptz,
    minute_json jsonb NOT NULL DEFAULT '{}',
    transactions_json jsonb NOT NULL DEFAULT '{}',
    gaps_json jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL,
    CONSTRAINT pk_wal_index_state PRIMARY KEY (cluster, timeline)
)
"""

POINTS = """
CREATE TABLE lifeboat.wal_index_points (
    cluster text NOT NULL,
    timeline bigint NOT NULL,
    lsn bigint NOT NULL,
    latest_at timestamptz NOT NULL,
    minute_json jsonb NOT NULL,
    transactions_json jsonb NOT NULL,
    CONSTRAINT pk_wal_index_points PRIMARY KEY (cluster, timeline, lsn)
)
"""

KINDS = """
ALTER TABLE lifeboat.annotations DROP CONSTRAINT ck_annotations_kind;
UPDATE lifeboat.annotations SET kind = 'wal' WHERE kind = 'event';
ALTER TABLE lifeboat.annotations ADD CONSTRAINT ck_annotations_kind
    CHECK (kind IN ('note', 'restore-point', 'backup', 'drill', 'wal', 'audit'));
"""


def upgrade() -> None:
    """Create the tables of the index."""
    op.execute(KINDS)
    op.execute("DROP TABLE lifeboat.wal_activity")
    for table in (NAMES, ACTIVITY, COMMITS, STATE, POINTS):
        op.execute(table)
    op.execute("CREATE INDEX ix_wal_index_points_latest_at ON lifeboat.wal_index_points (cluster, timeline, latest_at)")
