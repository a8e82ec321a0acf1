"""The catalog's tables about WAL: the activity index, where it stands, and the names of relations (DESIGN 7)."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, PrimaryKeyConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from lifeboat.catalog.columns import one_of
from lifeboat.catalog.tables import Base
from lifeboat.catalog.values import ActivityResolution

_EMPTY = text("'{}'")


class RelationNames(Base):
    """Observed pg_class: a rename, a rewrite (new relfilenode) or a new table is a new row, the old one is gone."""

    __tablename__ = "relation_names"
    __table_args__ = (
        PrimaryKeyConstraint("cluster", "database_oid", "oid", "relfilenode", "name"),
        CheckConstraint("gone_at >= observed_at", name="gone_at"),
    )

    cluster: Mapped[str]
    database: Mapped[str]
    database_oid: Mapped[int]
    relfilenode: Mapped[int]
    oid: Mapped[int]
    name: Mapped[str]
    kind: Mapped[str]
    observed_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]


class WalActivity(Base):
    """Rows that committed transactions changed, per relation's files and minute or hour.

    Named as WAL names them: a name may be observed later than the index reads, and changes.
    """

    __tablename__ = "wal_activity"
    __table_args__ = (
        PrimaryKeyConstraint("cluster", "timeline", "resolution", "bucket_at", "database_oid", "relfilenode"),
        one_of("resolution", ActivityResolution),
        CheckConstraint("inserted_rows >= 0 AND updated_rows >= 0 AND deleted_rows >= 0", name="rows"),
    )

    cluster: Mapped[str]
    timeline: Mapped[int]
    resolution: Mapped[ActivityResolution]
    bucket_at: Mapped[datetime]
    database_oid: Mapped[int]
    relfilenode: Mapped[int]
    inserted_rows: Mapped[int]
    updated_rows: Mapped[int]
    deleted_rows: Mapped[int]


class WalCommits(Base):
    """How many transactions changed something, per minute or hour."""

    __tablename__ = "wal_commits"
    __table_args__ = (
        PrimaryKeyConstraint("cluster", "timeline", "resolution", "bucket_at"),
        one_of("resolution", ActivityResolution),
        CheckConstraint("commits >= 0", name="commits"),
    )

    cluster: Mapped[str]
    timeline: Mapped[int]
    resolution: Mapped[ActivityResolution]
    bucket_at: Mapped[datetime]
    commits: Mapped[int]
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]


class WalIndexState(Base):
    """Where the index of a timeline stands, with the open and prepared transactions it carries over."""

    __tablename__ = "wal_index_state"
    __table_args__ = (PrimaryKeyConstraint("cluster", "timeline"),)

    cluster: Mapped[str]
    timeline: Mapped[int]
    segment_bytes: Mapped[int]
    next_lsn: Mapped[int]
    last_lsn: Mapped[int | None]
    read_to_lsn: Mapped[int | None]
    began_at: Mapped[datetime | None]
    latest_at: Mapped[datetime | None]
    minute_json: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY)
    transactions_json: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY)
    gaps_json: Mapped[dict[str, Any]] = mapped_column(server_default=_EMPTY)
    updated_at: Mapped[datetime]


class WalIndexPoint(Base):
    """Places where decoding can begin again, so that the minute of a recovery target is read exactly."""

    __tablename__ = "wal_index_points"
    __table_args__ = (
        PrimaryKeyConstraint("cluster", "timeline", "lsn"),
        Index("ix_wal_index_points_latest_at", "cluster", "timeline", "latest_at"),
    )

    cluster: Mapped[str]
    timeline: Mapped[int]
    lsn: Mapped[int]
    latest_at: Mapped[datetime]
    minute_json: Mapped[dict[str, Any]]
    transactions_json: Mapped[dict[str, Any]]
