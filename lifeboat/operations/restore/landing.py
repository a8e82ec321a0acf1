"""The commits around a landing, from WAL: the server's log tells them neither at a position nor from rollbacks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.planning import PlannedRestore, wal_reader
from lifeboat.recovery.landing import Landing
from lifeboat.recovery.planning import WalPoint
from lifeboat.wal.names import parse_lsn

# Behind a mass change the last commit may lie very far back; nobody waits for a line of a report that long.
_NEAR_BYTES = 1 << 30


def with_commits(
    installation: Installation, planned: PlannedRestore, landing: Landing, position: str | None, folder: Path
) -> Landing:
    """A proven landing with the last commit replayed, and the next one where replay stopped before a rollback.

    `position` is how far the server has replayed; WAL is unpacked in `folder`. Where WAL cannot be read again, or has
    no commit within a gigabyte, the landing names no last commit.
    """
    plan = planned.plan
    if plan.last is not None and not plan.last.rolled_back:
        # It was proven to be the last record replayed.
        return replace(landing, last_commit_at=plan.last.at)
    if position is None or planned.material.archive is None:
        return replace(landing, unread=True)
    reader, lsn = wal_reader(installation, planned.material, folder), parse_lsn(position)
    last, is_read = _read(lambda: reader.replayed_commit(plan.span, lsn, _NEAR_BYTES))
    landing = replace(landing, last_commit_at=last.at if last is not None else None, unread=not is_read)
    if landing.rolled_back and landing.next_xid is not None:
        following, _ = _read(lambda: reader.first_commit(plan.span, lsn, rolled_back=False, within_bytes=_NEAR_BYTES))
        landing = replace(landing, next_commit_at=following.at if following is not None else None)
    return landing


def _read(ask: Callable[[], WalPoint | None]) -> tuple[WalPoint | None, bool]:
    """The answer, and whether there is one."""
    try:
        return ask(), True
    except (LifeboatError, OSError) as error:
        # What was restored is proven without it.
        LOG.warning("which commits are around the landing was not read from WAL: %s", error)
        return None, False
