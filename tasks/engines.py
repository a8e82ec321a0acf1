"""Which engines and backup types a flow may be asked for."""

from typing import Literal

from lifeboat.storage.manifest import BackupType

EngineName = Literal["basebackup", "pgbackrest", "pg_dump"]
PhysicalEngine = Literal["basebackup", "pgbackrest"]
DrillTarget = Literal["scratch", "database"]


def type_by_engine(kind: BackupType, engine: str) -> BackupType:
    """What an engine takes when `kind` is asked for: dumps know no full backup, theirs is a logical one."""
    return BackupType.LOGICAL if kind is BackupType.FULL and engine == "pg_dump" else kind


def physical_engine(asked: str | None, configured: str) -> str:
    """The engine of a differential or incremental backup: the settings' one, unless that takes dumps only."""
    return asked or (configured if configured != "pg_dump" else "basebackup")
