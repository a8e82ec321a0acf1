"""Backup labels, after pgBackRest: `20261122-190000F`, `20261122-190000F_20261122-200000I`, `…L`, `…C`; in UTC."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

from lifeboat.storage.manifest import LABEL_PATTERN, BackupType

_LETTERS = {
    BackupType.FULL: "F",
    BackupType.DIFFERENTIAL: "D",
    BackupType.INCREMENTAL: "I",
    BackupType.LOGICAL: "L",
    BackupType.CONFIG: "C",
}


def make_label(kind: BackupType, started_at: datetime, parent_label: str | None = None) -> str:
    """The label of a backup; differential and incremental ones start with their full backup's label."""
    stamp = started_at.astimezone(UTC).strftime("%Y%m%d-%H%M%S") + _LETTERS[kind]
    if kind not in {BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}:
        return stamp
    if parent_label is None:
        raise ValueError(f"a {kind} backup needs the label of its parent")
    return f"{full_label(parent_label)}_{stamp}"


def full_label(label: str) -> str:
    """The label of the full backup at the start of `label`'s chain."""
    return label.partition("_")[0]


def is_label(name: str) -> bool:
    """Whether `name` has the form of a label."""
    return LABEL_PATTERN.fullmatch(name) is not None


def backup_id(set_id: UUID, engine: str, kind: BackupType) -> UUID:
    """The id of one backup of a set: derived, so that a retried or mirrored run names the same row (RFC 9562, v5)."""
    # Differential and incremental runs may turn into a full one (DESIGN 3): the id must not depend on that.
    part = kind.value if kind in {BackupType.LOGICAL, BackupType.CONFIG} else "physical"
    return uuid5(set_id, f"{engine}:{part}")
