"""The self-describing record of one backup: what is in it, where it stands in time, how to restore it.

The format is versioned by `FORMAT_VERSION`; a reader refuses a newer one. It is JSON, so that an administrator can
read it with stock tools while Lifeboat is not there.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from lifeboat.errors import PermanentError

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SIGNATURE_SUFFIX = ".sig"
STOPPED_AT = "stopped_at"  # in a manifest's details


class ManifestError(PermanentError):
    """A manifest is unreadable, of a newer format, or not signed by a trusted key."""


class BackupType(StrEnum):
    """What kind of backup a label stands for."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"
    LOGICAL = "logical"
    CONFIG = "config"


class TableKind(StrEnum):
    """How far a table's rows can be compared after a restore: only ordinary tables must match exactly."""

    ORDINARY = "ordinary"
    MATERIALIZED = "materialized"
    UNLOGGED = "unlogged"
    FOREIGN = "foreign"


def _safe_relative(name: str) -> str:
    if name.startswith("/") or "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError(f"object name {name!r} is not a plain relative path")
    return name


ObjectName = Annotated[str, AfterValidator(_safe_relative)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LABEL_PATTERN = re.compile(r"^\d{8}-\d{6}[FLC](_\d{8}-\d{6}[ID])?$")


class StrictModel(BaseModel):
    """A stored value: immutable, and unknown fields are refused rather than lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TableFingerprint(StrictModel):
    """Row count and, within the budget, content hash of one table under the backup's snapshot.

    `row_count` is None where rows cannot be compared (materialized, unlogged, foreign); `content_hash` is None
    there too and for tables beyond the budget. `size_bytes` is pg_table_size at the time.
    """

    schema_name: str
    table_name: str
    kind: TableKind
    row_count: int | None
    content_hash: str | None
    size_bytes: int

    @property
    def qualified_name(self) -> str:
        """`schema.table`, as people write it."""
        return f"{self.schema_name}.{self.table_name}"


class SchemaObject(StrictModel):
    """The hash of one object's definition, so that a drill can name what differs."""

    kind: str
    name: str
    sha256: Sha256


class Fingerprint(StrictModel):
    """What a restored database must equal (DESIGN 6)."""

    format_version: int = 1
    database: str
    server_version: str
    taken_at: AwareDatetime
    lsn: str | None
    duration_seconds: float
    extensions: dict[str, str]
    schema_sha256: Sha256
    objects: list[SchemaObject]
    tables: list[TableFingerprint]
    content_algorithm: str
    busy_tables: list[str] = []


class BackupObject(StrictModel):
    """One payload object of a backup: its name below the label, size in bytes, SHA-256 and file mode."""

    name: ObjectName
    size_bytes: int = Field(ge=0)
    sha256: Sha256
    mode: int = 0o600


class RestoreStep(StrictModel):
    """One step of a restore with stock tools: shell lines that use variables such as `$REPOSITORY` and `$TARGET`."""

    title: str
    commands: list[str]


class Manifest(StrictModel):
    """Everything a restore needs to know about one backup, written last."""

    format_version: int = FORMAT_VERSION
    id: UUID
    label: Annotated[str, Field(pattern=LABEL_PATTERN.pattern)]
    set_id: UUID
    type: BackupType
    engine: str
    cluster: str
    parent_id: UUID | None = None
    parent_label: str | None = None
    reason: str | None = None
    started_at: AwareDatetime
    completed_at: AwareDatetime
    pg_version: str | None = None
    system_identifier: str | None = None
    timeline: int | None = None
    start_lsn: str | None = None
    stop_lsn: str | None = None
    database: str | None = None
    flow_run_id: UUID | None = None
    objects: list[BackupObject]
    compression: str
    encryption_recipients: list[str] = []
    fingerprint: Fingerprint | None = None
    restore: list[RestoreStep]
    tools: dict[str, str]
    details: dict[str, Any] = {}
    lifeboat_version: str
    signed_by: str

    @property
    def size_bytes(self) -> int:
        """The sum of the payload objects, in bytes, or what the backup added to a repository of the tool's own."""
        if not self.objects:
            return int(self.details.get("repository_bytes", 0))
        return sum(item.size_bytes for item in self.objects)

    @property
    def stopped_at(self) -> datetime:
        """From when on a physical backup can be restored to; older manifests know only when they were complete."""
        known = self.details.get(STOPPED_AT)
        return datetime.fromisoformat(known) if known is not None else self.completed_at


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes that are signed and stored: indented JSON, readable with any pager."""
    return manifest.model_dump_json(indent=2, exclude_none=False).encode() + b"\n"


def decode_manifest(data: bytes, *, where: str) -> Manifest:
    """Parse a stored manifest; raises ManifestError that names `where` and the first fault."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValueError as error:
        raise ManifestError(
            f"cannot read the manifest {where}: {str(error).splitlines()[0]}",
            hint="The file is damaged or was written by a newer Lifeboat; compare it with the copy in another region.",
        ) from error
    if manifest.format_version > FORMAT_VERSION:
        raise ManifestError(
            f"the manifest {where} has format {manifest.format_version}, newer than {FORMAT_VERSION}",
            hint="Read it with the Lifeboat version that wrote it, or a later one.",
        )
    return manifest
