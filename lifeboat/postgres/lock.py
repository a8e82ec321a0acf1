"""One backup of a cluster at a time: a session advisory lock in the source cluster, over a direct connection.

Advisory locks belong to a database, so everybody takes this one in LOCK_DATABASE. The key is the same however
the cluster is called in settings: two installations with two names for one cluster exclude each other too.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from lifeboat.errors import PermanentError, TransientError
from lifeboat.postgres.connections import ConnectionInfo, connect

LOCK_DATABASE = "postgres"
# Any two fixed numbers do; these spell "LFBT" and "bkup", so that pg_locks shows them recognisably.
_BACKUPS = (0x4C464254, 0x626B7570)
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class LockHolder:
    """The session that holds the lock; `since` is when it connected, None without the right to see it."""

    pid: int
    application_name: str
    since: datetime | None

    def __str__(self) -> str:
        when = f" since {self.since:%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"{self.application_name or 'an unnamed session'} (pid {self.pid}){when}"


class ClusterBusy(PermanentError):
    """Another backup of the cluster runs, and we were told not to wait (any longer)."""

    def __init__(self, cluster: str, holder: LockHolder | None, waited_seconds: float) -> None:
        waited = f" after waiting {waited_seconds:.0f} s" if waited_seconds else ""
        super().__init__(
            f"another backup of cluster {cluster} is running{waited}: {holder or 'its session just ended'}",
            hint="Let it finish, cancel it, or have backups wait longer with `lock_wait_seconds`.",
        )
        self.cluster, self.holder, self.waited_seconds = cluster, holder, waited_seconds


class LockLost(TransientError):
    """The lock is no longer held: another backup may have started, so what was taken does not count."""


class PooledConnection(PermanentError):
    """The connection goes through a connection pooler, where a session lock proves nothing."""


class ClusterLock:
    """A held lock."""

    def __init__(self, connection: psycopg.Connection[Any], cluster: str, waited_seconds: float) -> None:
        self._connection = connection
        self._pid = connection.info.backend_pid
        self.cluster = cluster
        self.waited_seconds = waited_seconds

    def ensure_held(self) -> None:
        """Raise LockLost unless the very session that took the lock still has it."""
        try:
            holder = session_lock_holder(self._connection, _BACKUPS)
        except psycopg.Error as error:
            raise self._lost(f"its session ended: {error}") from error
        if holder is None or holder.pid != self._pid:
            raise self._lost(f"it is held by {holder}" if holder else "nobody holds it")

    def _lost(self, why: str) -> LockLost:
        return LockLost(
            f"the lock on cluster {self.cluster} was lost: {why.strip()}",
            hint="Look in the server's log for a restart or a terminated session, then run the backup again.",
        )


@contextmanager
def cluster_lock(
    dsn: str | ConnectionInfo,
    *,
    cluster: str,
    wait_seconds: float | None,
    purpose: str,
    on_wait: Callable[[LockHolder], None] | None = None,
) -> Iterator[ClusterLock]:
    """Hold the one lock for backups of a cluster.

    `wait_seconds` 0 refuses at once, None waits for ever; `purpose` shows in pg_stat_activity; `on_wait` is
    called once, with the holder, before waiting. Raises ClusterBusy, PooledConnection, SourceUnavailable,
    AuthenticationFailed.
    """
    connection = connect(
        ConnectionInfo.parse(dsn).with_database(LOCK_DATABASE),
        application_name=f"lifeboat {purpose}",
        autocommit=True,
    )
    try:
        refuse_pooler(connection)
        waited = _acquire(connection, cluster, wait_seconds, on_wait)
        yield ClusterLock(connection, cluster, waited)
    finally:
        # Closing the session is what releases the lock; a broken connection has released it already.
        with suppress(psycopg.Error):
            connection.close()


def is_locked(dsn: str | ConnectionInfo, cluster: str) -> LockHolder | None:
    """Who holds the lock of the cluster now, None when nobody does. Raises as `cluster_lock`."""
    info = ConnectionInfo.parse(dsn).with_database(LOCK_DATABASE)
    with connect(info, application_name=f"lifeboat lock of {cluster}", autocommit=True) as connection:
        return session_lock_holder(connection, _BACKUPS)


def _acquire(
    connection: psycopg.Connection[Any],
    cluster: str,
    wait_seconds: float | None,
    on_wait: Callable[[LockHolder], None] | None,
) -> float:
    began = time.monotonic()
    while True:
        # Polling instead of a blocking call: a waiting statement would hold back vacuum in the whole cluster.
        got = try_session_lock(connection, _BACKUPS)
        waited = time.monotonic() - began
        if got:
            return waited
        holder = session_lock_holder(connection, _BACKUPS)
        if wait_seconds is not None and waited >= wait_seconds:
            raise ClusterBusy(cluster, holder, waited if wait_seconds else 0)
        if on_wait is not None and holder is not None:
            on_wait(holder)
            on_wait = None
        pause = _POLL_SECONDS * random.uniform(0.5, 1.5)  # noqa: S311 - spreads pollers, guards nothing
        time.sleep(pause if wait_seconds is None else min(pause, max(0.01, wait_seconds - waited)))


def refuse_pooler(connection: psycopg.Connection[Any]) -> None:
    """Raise PooledConnection unless the connection is a server session of its own."""
    # A pooler invents the process id of the start-up handshake; a server names the process that answers.
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    if row is None or row[0] != connection.info.backend_pid:
        raise PooledConnection(
            "the connection to the source goes through a connection pooler such as PgBouncer",
            hint="Give Lifeboat a DSN that reaches PostgreSQL itself: its lock lives in a server session.",
        )


def try_session_lock(connection: psycopg.Connection[Any], key: tuple[int, int]) -> bool:
    """Take the advisory lock `key` of the connected database until the session ends; False when another has it."""
    row = connection.execute("SELECT pg_catalog.pg_try_advisory_lock(%s, %s)", key).fetchone()
    return row is not None and bool(row[0])


def session_lock_holder(connection: psycopg.Connection[Any], key: tuple[int, int]) -> LockHolder | None:
    """The session that holds the advisory lock `key` of the connected database, None when nobody does."""
    row = connection.execute(
        "SELECT l.pid, coalesce(a.application_name, ''), a.backend_start"
        " FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2"
        " AND l.classid = %s::bigint::oid AND l.objid = %s::bigint::oid"
        " AND l.database ="
        " (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        key,
    ).fetchone()
    if row is None:
        return None
    since = row[2].astimezone(UTC) if row[2] is not None else None
    return LockHolder(int(row[0]), str(row[1]), since)
