"""Backups that a server can never give: on schedule they are left out, not replaced by full backups time after time."""

from contextlib import closing

from lifeboat.engines.basebackup import lasting_obstacle
from lifeboat.engines.engine import IncrementalImpossible
from lifeboat.operations.installation import Installation
from lifeboat.operations.parents import choose_parent
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import BackupType


def why_leave_out(installation: Installation, kind: BackupType, destination: str | None = None) -> str | None:
    """Why a scheduled differential or incremental base backup is better left out; None where it should be taken.

    Left out is what this server will not give tomorrow either, once there is a sound full backup. Where there is none
    yet, or where only this one is impossible (its WAL summaries are gone), a full backup in its place is right. Raises
    what connections to the source and reads of the destination raise.
    """
    with closing(connect(installation.source, application_name="lifeboat schedule", autocommit=True)) as session:
        obstacle = lasting_obstacle(session)
    if obstacle is None:
        return None
    try:
        choose_parent(installation.repository(destination), installation.basebackup.name, kind)
    except IncrementalImpossible:
        return None
    return f"no {kind} backup is taken on schedule: {obstacle}"
