"""Sessions on a restored server: by a role and in a database that are there, whatever was renamed or dropped."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import AuthenticationFailed, ConnectionInfo, connect

# Those that a cluster begins with; what the backup was taken through may be gone at the target.
_DATABASES = ("postgres", "template1")
_STATE = (
    "SELECT r, CASE WHEN r THEN pg_catalog.pg_get_wal_replay_pause_state() END,"
    " pg_catalog.pg_last_xact_replay_timestamp(), pg_catalog.pg_last_wal_replay_lsn()::text"
    " FROM pg_catalog.pg_is_in_recovery() r"
)
_LOCKS = """
SELECT pg_catalog.pg_is_in_recovery() AND EXISTS (
    SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a USING (pid)
     WHERE a.backend_type = 'startup' AND l.mode = 'AccessExclusiveLock')
"""
_WHO_AND_WHERE = """
SELECT (SELECT rolname FROM pg_catalog.pg_roles WHERE rolsuper AND rolcanlogin ORDER BY rolname <> %s, oid LIMIT 1),
       (SELECT datname FROM pg_catalog.pg_database WHERE datname = %s AND datallowconn)
"""


@dataclass(frozen=True)
class Reached:
    """How far replay is; `replayed_at` is the moment of the last transaction replayed."""

    is_done: bool
    replayed_at: datetime | None
    position: str | None


@dataclass(frozen=True)
class RestoredServer:
    """A restored server, and the roles that it may know: the first one that it does is taken.

    `database` is the one that was backed up. Methods raise SourceUnavailable, AuthenticationFailed where it knows none
    of the roles, and psycopg.Error.
    """

    cluster: Cluster
    roles: Sequence[str]
    database: str

    def reached(self) -> Reached:
        """Ask whether replay is done: ended, or paused at its target."""
        with closing(self._session()) as session:
            row = session.execute(_STATE).fetchone()
        if row is None:
            return Reached(False, None, None)
        in_recovery, pause, replayed_at, position = row
        at = replayed_at.astimezone(UTC) if replayed_at is not None else None
        return Reached(not in_recovery or pause == "paused", at, position)

    def connection(self) -> ConnectionInfo:
        """How to connect as a superuser, to the database that was backed up where it is there."""
        with closing(self._session()) as session:
            found = ConnectionInfo.parse(session.info.dsn)
            row = session.execute(_WHO_AND_WHERE, (self.roles[0], self.database)).fetchone()
        role, database = row if row is not None else (None, None)
        return ConnectionInfo.parse(
            self.cluster.dsn(database or str(found.database), role or str(found.user)),
        )

    def end_locks(self) -> bool:
        """End recovery where it holds locks; says whether it did.

        A DROP that had begun at the target has its lock in WAL before its commit. A paused server would hold it for
        ever, and whoever reads that table would wait. Sessions are read-only by a setting then.
        """
        with closing(connect(self.connection(), application_name="lifeboat restore", autocommit=True)) as session:
            row = session.execute(_LOCKS).fetchone()
            if row is None or not row[0]:
                return False
            session.execute("SELECT pg_catalog.pg_wal_replay_resume()")
        return True

    def _session(self) -> psycopg.Connection[Any]:
        refused: AuthenticationFailed | None = None
        for role in dict.fromkeys(self.roles):
            for database in dict.fromkeys((*_DATABASES, self.database)):
                try:
                    return connect(
                        self.cluster.dsn(database, role), application_name="lifeboat restore", autocommit=True
                    )
                except AuthenticationFailed as error:
                    refused = refused or error
        raise refused or ValueError("a restored server with no role to connect as")
