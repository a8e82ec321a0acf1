"""The snapshot of a physical backup's fingerprint, and what may have been written around it."""

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from lifeboat.errors import PermanentError

# Only these modes let a transaction change a table's rows; each is listed on its own even where a stronger one is held.
# ShareUpdateExclusive (vacuum, analyze) and Share (index builds) leave the rows as they are.
_WRITING_MODES = ("RowExclusiveLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")

# Prepared transactions are there too, without a pid.
_BUSY_TABLES = """
SELECT DISTINCT n.nspname || '.' || c.relname
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_class r ON r.oid = l.relation
JOIN pg_catalog.pg_class c ON c.oid = r.oid OR c.reltoastrelid = r.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.granted AND l.mode = ANY (%s)
  AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
ORDER BY 1
"""


@dataclass(frozen=True)
class GuardedSnapshot:
    """Where WAL has to be read from, and the tables ("schema.table") that were being written."""

    lsn: str
    busy_tables: tuple[str, ...]


def snapshot_guard(connection: psycopg.Connection[Any]) -> GuardedSnapshot:
    """Begin a REPEATABLE READ, READ ONLY transaction and say what its snapshot may have missed.

    The order is: the insert position `lsn`, then the tables locked for writing by others, then the snapshot. A
    table that is neither among these nor has a WAL record in [`lsn`, the recovery's stop] has exactly the rows of
    the snapshot when it is restored. For what the snapshot does not see was written by a transaction that was in
    progress at the snapshot or began later. One that began later writes after `lsn`. One in progress wrote the
    table either after `lsn`, or before it; in that case it had locked the table before `lsn`, keeps the lock until
    after it stops being in progress, and so held it when the locks were read. (A savepoint rolled back lets go of
    its locks, but its rows never count.)

    Catalog tables are the exception, since DDL unlocks them early: `touched_relations` finds such DDL by its
    commit record. Not seen is DDL whose commit record is older than `lsn` and which was still waiting for a disk
    or a standby at the snapshot, nor lo_unlink() before `lsn` by a transaction still open: what they changed is
    reported as different.

    The connection must be outside a transaction. The transaction stays open. Raises PermanentError on a standby.
    """
    if not _is_idle(connection):
        raise PermanentError(
            "the snapshot of a physical backup must be taken outside a transaction",
            hint="This is a fault in Lifeboat: report it with the log of this run.",
        )
    lsn = _insert_position(connection)
    with connection.cursor(row_factory=tuple_row) as cursor:
        busy = tuple(str(row[0]) for row in cursor.execute(_BUSY_TABLES, [list(_WRITING_MODES)]))
    if not _is_idle(connection):
        connection.rollback()
    if connection.autocommit:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    else:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    connection.execute("SELECT pg_catalog.pg_current_snapshot()")
    return GuardedSnapshot(lsn, busy)


def _is_idle(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.transaction_status == TransactionStatus.IDLE


def _insert_position(connection: psycopg.Connection[Any]) -> str:
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute(
            "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn()::text END"
        )
        row = cursor.fetchone()
    if row is None or row[0] is None:
        raise PermanentError(
            "a fingerprint for a physical backup cannot be taken on a standby: it does not know who writes",
            hint="Point Lifeboat at the primary server.",
        )
    return str(row[0])
