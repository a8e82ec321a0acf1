"""Which engines and backup types a flow may be asked for."""

from typing import Literal

from lifeboat.storage.manifest import BackupType

EngineName = Literal["basebackup", "pg_dump"]
PhysicalEngine = Literal["basebackup"]
DrillTarget = Literal["scratch", "database"]


def type_by_engine(kind: BackupType, engine: str) -> BackupType:
    """What an engine takes when `kind` is asked for: dumps know no full backup, theirs is a logical one."""
    return BackupType.LOGICAL if kind is BackupType.FULL and engine == "pg_dump" else kind
