"""What `pgbackrest info --output=json` says (docs: command reference, info), as far as we use it.

Fields that we do not know are left out: newer versions add some.
"""

import json
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lifeboat.engines.engine import EngineFailed
from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.storage.destination import DestinationUnavailable
from lifeboat.storage.manifest import BackupType

_TIMEOUT_SECONDS = 600.0


class StanzaStatus(IntEnum):
    """The status codes of a stanza and of a repository (src/command/info/info.c)."""

    OK = 0
    MISSING_STANZA_PATH = 1
    NO_BACKUP = 2
    MISSING_STANZA_DATA = 3
    MIXED = 4
    MISMATCH = 5
    NO_SUCH_BACKUP = 6
    OTHER = 99


class InfoType(StrEnum):
    """The backup types by pgBackRest's short names."""

    FULL = "full"
    DIFFERENTIAL = "diff"
    INCREMENTAL = "incr"

    @property
    def backup_type(self) -> BackupType:
        """Our name of it."""
        return BackupType[self.name]

    @classmethod
    def of(cls, kind: BackupType) -> "InfoType":
        """pgBackRest's name of it; raises KeyError for a logical one."""
        return cls[kind.name]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Database(_Model):
    """One entry of the stanza's history of clusters; the one with the highest id is the present one."""

    id: int
    repo_key: int = Field(1, alias="repo-key")
    system_id: int = Field(alias="system-id")
    version: str

    @property
    def archive_id(self) -> str:
        """The name of its folder in the archive."""
        return f"{self.version}-{self.id}"


class DatabaseReference(_Model):
    """Which entry of the history a backup or an archive belongs to."""

    id: int
    repo_key: int = Field(1, alias="repo-key")


class ArchiveRange(_Model):
    """The oldest and newest segment in the archive of one entry of the history; None when it is empty."""

    id: str
    min: str | None
    max: str | None
    database: DatabaseReference


class Bounds(_Model):
    """Start and stop: WAL segments or positions."""

    start: str | None
    stop: str | None


class Times(_Model):
    """Start and stop, in seconds since 1970."""

    start: int
    stop: int


class RepositorySize(_Model):
    """Bytes in the repository: what the backup added, and what a restore of it reads (newer versions: may lack it)."""

    delta: int
    size: int | None = None


class Sizes(_Model):
    """Bytes in the cluster: all that the backup covers, and what was copied for it."""

    size: int
    delta: int
    repository: RepositorySize


class Program(_Model):
    """The pgBackRest that took a backup."""

    format: int
    version: str


class TablespaceInfo(_Model):
    """A tablespace in a backup."""

    oid: int
    name: str
    destination: str


class BackupInfo(_Model):
    """One backup. `tablespace` is there only where one label was asked for."""

    label: str
    type: InfoType
    prior: str | None
    reference: list[str] | None
    archive: Bounds
    lsn: Bounds | None = None
    timestamp: Times
    info: Sizes
    database: DatabaseReference
    backrest: Program
    error: bool | None = None
    annotation: dict[str, str] | None = None
    tablespace: list[TablespaceInfo] | None = None

    @property
    def started_at(self) -> datetime:
        """When it began."""
        return datetime.fromtimestamp(self.timestamp.start, UTC)

    @property
    def completed_at(self) -> datetime:
        """When it ended."""
        return datetime.fromtimestamp(self.timestamp.stop, UTC)

    @property
    def timeline(self) -> int | None:
        """The timeline that it was taken on: the first digits of its last segment."""
        return int(self.archive.stop[:8], 16) if self.archive.stop else None


class BackupLock(_Model):
    """Whether a backup runs."""

    held: bool


class Lock(_Model):
    """The locks of a stanza."""

    backup: BackupLock


class Status(_Model):
    """The state of a stanza."""

    code: int
    message: str
    lock: Lock | None = None


class RepositoryState(_Model):
    """The state of one repository."""

    key: int
    cipher: str = "none"
    status: Status


class StanzaInfo(_Model):
    """One stanza; backups are sorted by label."""

    name: str
    status: Status
    db: list[Database]
    archive: list[ArchiveRange]
    backup: list[BackupInfo]
    repo: list[RepositoryState] = []

    @property
    def exists(self) -> bool:
        """Whether the stanza was created."""
        return bool(self.db)

    @property
    def backup_runs(self) -> bool:
        """Whether a backup, or an expiry, holds the lock on this host."""
        return self.status.lock is not None and self.status.lock.backup.held

    @property
    def current(self) -> Database | None:
        """The cluster that the stanza belongs to now."""
        return max(self.db, key=lambda entry: entry.id, default=None)

    def find(self, label: str) -> BackupInfo | None:
        """A backup by label."""
        return next((item for item in self.backup if item.label == label), None)

    def system_identifier(self, backup: BackupInfo) -> str:
        """The cluster that a backup was taken from."""
        return str(next(entry.system_id for entry in self.db if entry.id == backup.database.id))

    def chain(self, label: str) -> list[str]:
        """The labels from the full backup to this one; ends early where one is gone."""
        chain: list[str] = []
        backup = self.find(label)
        while backup is not None:
            chain.insert(0, backup.label)
            backup = self.find(backup.prior) if backup.prior else None
        return chain

    def dependents(self, label: str) -> list[str]:
        """The backups that need this one, its own label left out."""
        return [item.label for item in self.backup if label in (item.reference or []) or item.prior == label]

    def prior_for(self, kind: BackupType) -> str | None:
        """The label that pgBackRest would base the next backup of this type on."""
        current = self.current
        usable = [
            item
            for item in self.backup
            if current is not None
            and item.database.id == current.id
            and (kind is BackupType.INCREMENTAL or item.type is InfoType.FULL)
        ]
        return usable[-1].label if usable and kind is not BackupType.FULL else None

    def full_labels(self) -> list[str]:
        """The full backups, oldest first."""
        return [item.label for item in self.backup if item.type is InfoType.FULL]


def parse_info(text: str, stanza: str) -> StanzaInfo:
    """The stanza in the command's output; raises EngineFailed where it is not understood."""
    try:
        found: list[dict[str, Any]] = json.loads(text)
        return StanzaInfo.model_validate(next(item for item in found if item["name"] == stanza))
    except (ValueError, StopIteration, KeyError, TypeError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else error
        raise EngineFailed(
            f"what pgbackrest info says of stanza {stanza} is not understood: {fault}",
            hint="See `pgbackrest info` yourself: is this pgBackRest newer than Lifeboat knows?",
        ) from error


def read_info(pgbackrest: PgBackRest, label: str | None = None) -> StanzaInfo:
    """Ask for the stanza, or for one backup with its tablespaces; raises DestinationUnavailable, EngineFailed."""
    done = pgbackrest.run(
        "info",
        "--output=json",
        *([f"--set={label}"] if label else []),
        doing=f"asking for stanza {pgbackrest.stanza}",
        level="warn",
        timeout_seconds=_TIMEOUT_SECONDS,
    )
    found = parse_info(done.stdout, pgbackrest.stanza)
    if found.status.code == StanzaStatus.OTHER:
        # The command itself ends with 0 where it could not read the repository.
        raise DestinationUnavailable(
            f"the repository of stanza {pgbackrest.stanza} cannot be read: {found.status.message}",
            hint="Look at the repository's folder, its rights, and the passphrase.",
        )
    return found
