"""Settings of taking backups: where to, by which engine, and what to do when one is running already."""

from typing import Literal

from pydantic import Field

from lifeboat.settings.base import Name, Section
from lifeboat.settings.pgbackrest import PgBackRestSettings


class BackupSettings(Section):
    """Defaults of every backup."""

    destination: Name = Field("primary", description="The destination where a run names none.")
    engine: Literal["basebackup", "pgbackrest", "pg_dump"] = Field(
        "basebackup", description="The engine where a run names none."
    )
    when_locked: Literal["wait", "refuse"] = Field(
        "wait", description="What a second backup of the cluster does while one runs."
    )
    lock_wait_seconds: float = Field(3600, ge=0, description="How long `wait` waits before it refuses.")
    timeout_seconds: float = Field(6 * 3600, gt=0, description="The longest that a backup tool may run.")
    full_max_age_days: float = Field(
        8,
        ge=0,
        le=3650,
        description="Scheduled differential and incremental backups that the server never gives are skipped while the "
        "newest sound full backup is younger than this many days; after that a full one is taken in their place.",
    )


class BaseBackupSettings(Section):
    """pg_basebackup."""

    compression_level: int = Field(1, ge=0, le=9, description="gzip level; 0 stores the tar as it is.")
    max_rate_kilobytes_per_second: int | None = Field(
        None, ge=32, le=1048576, description="pg_basebackup --max-rate; nothing means as fast as it goes."
    )
    checkpoint: Literal["fast", "spread"] = Field("fast", description="How the server's checkpoint at the start runs.")
    check_after: bool = Field(
        False,
        description="Check the files against PostgreSQL's manifest while they are written. Every drill and every "
        "`backup verify` does it; here it costs the database's host about as much processor time as compressing.",
    )


class PgDumpSettings(Section):
    """pg_dump and pg_dumpall."""

    jobs: int = Field(2, ge=1, le=64, description="Parallel connections of pg_dump and pg_restore.")
    compression_level: int = Field(1, ge=0, le=9, description="gzip level of the table files.")
    globals: Literal["with-passwords", "without-passwords", "none"] = Field(
        "without-passwords", description="Whether roles and tablespaces are dumped, and the roles' password hashes."
    )


class EngineSettings(Section):
    """A table per engine."""

    basebackup: BaseBackupSettings = BaseBackupSettings()
    pg_dump: PgDumpSettings = PgDumpSettings()
    pgbackrest: PgBackRestSettings = PgBackRestSettings()
