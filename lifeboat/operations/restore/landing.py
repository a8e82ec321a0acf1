"""The commits around a landing, from WAL: the server's log tells them neither at a position nor from rollbacks."""

from dataclasses import replace
from pathlib import Path

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.planning import PlannedRestore, wal_reader
from lifeboat.recovery.landing import Landing
from lifeboat.wal.names import parse_lsn


def with_commits(
    installation: Installation, planned: PlannedRestore, landing: Landing, position: str | None, folder: Path
) -> Landing:
    """A proven landing with the last commit replayed, and the next one where replay stopped before a rollback.

    `position` is how far the server has replayed; WAL is unpacked in `folder`. Where WAL cannot be read again, the
    landing names no last commit.
    """
    plan = planned.plan
    if plan.last is not None and not plan.last.rolled_back:
        # It was proven to be the last record replayed.
        return replace(landing, last_commit_at=plan.last.at)
    if position is None:
        return replace(landing, unread=True)
    reader, lsn = wal_reader(installation, planned.material, folder), parse_lsn(position)
    try:
        last = reader.replayed_commit(plan.span, lsn)
        landing = replace(landing, last_commit_at=last.at if last is not None else None)
        if landing.rolled_back and landing.next_xid is not None:
            following = reader.first_commit(plan.span, lsn, rolled_back=False)
            landing = replace(landing, next_commit_at=following.at if following is not None else None)
    except (LifeboatError, OSError) as error:
        # What was restored is proven without it.
        LOG.warning("which commits are around the landing was not read from WAL: %s", error)
        return replace(landing, unread=True)
    return landing
