"""What every engine does: run a tool that fills a staged folder, and bring backups back from a repository."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from lifeboat.errors import PermanentError
from lifeboat.storage.manifest import STOPPED_AT, BackupType, Manifest, RestoreStep
from lifeboat.storage.repository import BackupRepository


class EngineFailed(PermanentError):
    """A backup or restore tool failed for a reason that a retry does not change."""


class IncrementalImpossible(PermanentError):
    """No differential or incremental backup can be taken on this parent: a full one has to be taken instead."""


@dataclass(frozen=True)
class Progress:
    """How far a tool is: bytes done and expected, which may be an estimate or unknown."""

    done_bytes: int
    total_bytes: int | None


def _nothing() -> None:
    return None


def _no_progress(progress: Progress) -> None:
    del progress


@dataclass(frozen=True)
class Watch:
    """What a running engine calls: when the backup has begun in the server, now and then, and with its progress.

    What `on_tick` raises stops the tool (no space left, the lock lost). `snapshot` is an exported snapshot that a
    logical backup has to be taken under, `identifier` the id that the backup's manifest will have. `check_files`
    names what is wrong with an unpacked base backup, and `check_combined` with what pg_combinebackup made of a chain;
    both are called before a server starts there.
    """

    on_begun: Callable[[], None] = _nothing
    on_tick: Callable[[], None] = _nothing
    on_progress: Callable[[Progress], None] = _no_progress
    on_line: Callable[[str], None] = field(default=lambda line: None)
    snapshot: str | None = None
    identifier: UUID | None = None
    check_files: Callable[[Path], list[str]] = field(default=lambda folder: [])
    check_combined: Callable[[Path], list[str]] = field(default=lambda folder: [])


@dataclass(frozen=True)
class Parent:
    """The backup that a differential or incremental one builds on, with PostgreSQL's own manifest of it.

    `backup_manifest` is None for engines whose tool keeps its own record of the backup.
    """

    manifest: Manifest
    backup_manifest: Path | None


@dataclass(frozen=True)
class Taken:
    """What the tool left in the folder, for the manifest.

    `label` is the one that a tool with a repository of its own gave the backup, None where it took ours. `stopped_at`
    is when a physical backup ended (backup_end.py), None where that is not known.
    """

    engine: str
    type: BackupType
    pg_version: str
    system_identifier: str
    compression: str
    tools: Mapping[str, str]
    restore: list[RestoreStep]
    timeline: int | None = None
    start_lsn: str | None = None
    stop_lsn: str | None = None
    stopped_at: datetime | None = None
    database: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

    @property
    def manifest_details(self) -> dict[str, Any]:
        """What the manifest keeps beyond its own fields; a reader of format 1 would refuse another field."""
        return {**self.details, **({STOPPED_AT: self.stopped_at.isoformat()} if self.stopped_at is not None else {})}


class Engine(Protocol):
    """One way to take backups."""

    @property
    def name(self) -> str:
        """The name that settings, manifests and the catalog use."""
        ...

    def types(self, server_major: int) -> frozenset[BackupType]:
        """The backup types that it can take from a server of that major version."""
        ...

    def take(self, folder: Path, kind: BackupType, label: str, parent: Parent | None, watch: Watch) -> Taken:
        """Fill `folder` with the payload of one backup.

        Raises EngineFailed, IncrementalImpossible, DestinationFull, SourceUnavailable, AuthenticationFailed,
        CommandTimeout.
        """
        ...

    def restore_files(self, repository: BackupRepository, chain: list[Manifest], target: Path, watch: Watch) -> None:
        """Bring the files of the last backup of `chain` into the new folder `target`, checked against the manifests.

        Raises BackupDamaged, EngineFailed, DestinationFull.
        """
        ...
