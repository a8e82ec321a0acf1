"""What the catalog stores about WAL, as values: names of relations, activity, and where the index stands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from lifeboat.catalog.values import ActivityResolution

# A table's files as WAL names them: (database OID, relfilenode).
RelationFile = tuple[int, int]

_SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast", "lifeboat")
# The schemas of rescued tables: copies of what the platform has, or had.
_RESCUED = re.compile(r"rescue_\d{8}_\d{6}(_\d+)?")
_WITH_ROWS = frozenset("rmp")


@dataclass(frozen=True, slots=True)
class RelationName:
    """What pg_class said of a relation from `observed_at` until `gone_at`; a partitioned table has relfilenode 0."""

    cluster: str
    database: str
    database_oid: int
    relfilenode: int
    oid: int
    name: str
    kind: str
    observed_at: datetime
    gone_at: datetime | None = None

    @property
    def is_counted(self) -> bool:
        """Whether it holds rows of the platform: no catalog, TOAST, index, sequence, and none of our own tables."""
        schema = self.name.partition(".")[0]
        return self.kind in _WITH_ROWS and schema not in _SYSTEM_SCHEMAS and _RESCUED.fullmatch(schema) is None


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """Rows that committed transactions changed in one relation's files within one bucket."""

    bucket_at: datetime
    file: RelationFile
    inserted_rows: int
    updated_rows: int
    deleted_rows: int


@dataclass(frozen=True, slots=True)
class CommitsRow:
    """How many transactions changed something within one bucket, and when the first and last of them committed."""

    bucket_at: datetime
    commits: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class IndexPoint:
    """All that decoding needs to go on behind the record at `lsn`.

    `latest_at` is the latest time of any record up to there. `minute_json` holds what was counted in its minute so
    far, `transactions_json` the open and prepared transactions.
    """

    lsn: int
    latest_at: datetime
    minute_json: Mapping[str, Any]
    transactions_json: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IndexState:
    """Where the index of one timeline stands: decoding resumes at `next_lsn`.

    The record there is new unless it is `last_lsn`. Segments of `segment_bytes` were read up to `read_to_lsn`; records
    that go on behind it were not. `began_at` is where it goes on from another timeline: the parent's minutes
    before it count, later ones are counted here.
    """

    segment_bytes: int
    next_lsn: int
    last_lsn: int | None = None
    read_to_lsn: int | None = None
    began_at: datetime | None = None
    latest_at: datetime | None = None
    minute_json: Mapping[str, Any] = field(default_factory=dict)
    transactions_json: Mapping[str, Any] = field(default_factory=dict)
    gaps_json: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WalEvent:
    """A notable event in WAL, to become an annotation; its id follows from where it is, so that it exists once."""

    id: UUID
    at: datetime
    text: str
    detail_json: dict[str, Any]


@dataclass(frozen=True)
class IndexAdvance:
    """What one stretch of WAL adds to the index; written together or not at all."""

    state: IndexState
    activity: tuple[ActivityRow, ...] = ()
    commits: tuple[CommitsRow, ...] = ()
    points: tuple[IndexPoint, ...] = ()
    events: tuple[WalEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Buckets of one resolution, from `start` up to, not with, `end` (None: all later ones)."""

    resolution: ActivityResolution
    start: datetime
    end: datetime | None = None
