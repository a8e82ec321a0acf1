"""One agent of a cluster at a time: a session advisory lock in the source; who comes second waits for its turn."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from lifeboat.errors import TransientError
from lifeboat.postgres.connections import single_value
from lifeboat.postgres.lock import LockHolder, refuse_pooler, session_lock_holder, try_session_lock

# "LFBT" and "agnt", so that pg_locks shows them recognisably; in LOCK_DATABASE, as the lock of backups.
_AGENTS = (0x4C464254, 0x61676E74)
_POLL_SECONDS = 1.0


class SourceInRecovery(TransientError):
    """The source is a standby, or has not recovered yet: no heartbeat can be written there."""


def wait_for_turn(
    connection: psycopg.Connection[Any],
    stopping: threading.Event,
    on_wait: Callable[[LockHolder], None],
    on_poll: Callable[[], None],
) -> bool:
    """Hold the agents' lock with this session; False when `stopping` was set before it was free.

    `on_wait` is told once who has it, `on_poll` is called about once a second. Raises SourceInRecovery,
    PooledConnection and psycopg.Error.
    """
    refuse_pooler(connection)
    if single_value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        raise SourceInRecovery(
            "the source is in recovery, and takes no heartbeat",
            hint="Give the primary's address in `platform.dsn`, or wait for the promotion.",
        )
    told = False
    while not try_session_lock(connection, _AGENTS):
        on_poll()
        holder = running_agent(connection)
        if holder is not None and not told:
            on_wait(holder)
            told = True
        if stopping.wait(_POLL_SECONDS):
            return False
    return True


def running_agent(connection: psycopg.Connection[Any]) -> LockHolder | None:
    """The session of the agent that works now, None when none does; asked in LOCK_DATABASE."""
    return session_lock_holder(connection, _AGENTS)
