"""Backups that a server can never give: on schedule they are left out, not replaced by full backups time after time."""

from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.rows import TupleRow

from lifeboat.engines.basebackup import BaseBackupEngine, lasting_obstacle
from lifeboat.engines.engine import Engine, IncrementalImpossible
from lifeboat.operations.backup.parents import choose_parent
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.health import why_full_wanted
from lifeboat.postgres.connections import connect, server_major, system_identifier
from lifeboat.storage.manifest import BackupType


def why_leave_out(
    installation: Installation, kind: BackupType, engine: str | None = None, destination: str | None = None
) -> str | None:
    """Why a scheduled differential or incremental backup is better left out; None where it should be taken.

    Left out is what this server will not give that engine tomorrow either, while there is a sound full backup of this
    cluster, younger than `backup.full_max_age_days`. Where there is none, where a gap in the WAL asks for one, or where
    only this one is impossible (its WAL summaries are gone), a full backup in its place is right. Raises what
    connections to the source and reads of the destination raise.
    """
    asked = installation.engine(engine, destination)
    with closing(connect(installation.source, application_name="lifeboat schedule", autocommit=True)) as session:
        obstacle, cluster = _obstacle(asked, kind, session), system_identifier(session)
    if obstacle is None:
        return None
    repository = installation.repository(destination)
    if why_full_wanted(installation, repository, asked.name) is not None:
        return None
    try:
        full = choose_parent(repository, asked.name, BackupType.DIFFERENTIAL, system_identifier=cluster)
    except IncrementalImpossible:
        return None
    if datetime.now(UTC) - full.started_at >= timedelta(days=installation.settings.backup.full_max_age_days):
        return None
    return f"no {kind} backup is taken on schedule: {obstacle}"


def _obstacle(engine: Engine, kind: BackupType, session: psycopg.Connection[TupleRow]) -> str | None:
    if isinstance(engine, BaseBackupEngine):  # whose types depend on more than the version
        return lasting_obstacle(session)
    if kind in engine.types(major := server_major(session)):
        return None
    return f"{engine.name} takes none of PostgreSQL {major}"
