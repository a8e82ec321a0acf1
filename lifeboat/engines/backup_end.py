"""When a physical backup ended, by the clock that commits are stamped with: the earliest moment it can be restored to.

The moment S has to be such that every commit up to the backup's stop position bears a time at or before S. Recovery
to a T >= S then passes the stop position before it meets a commit after T; to an earlier T it might have to stop
before the data are consistent. A backend takes a commit's time before it inserts the record (RecordTransactionCommit,
xact.c), and the stop position is determined after that record was inserted: whatever the same clock says after the
stop is an S. Not S are the clock of our own host, and a second that was cut off.

A clock that was set back meanwhile makes S too early. That is loud, not wrong: recovery compares every commit with T,
those before the stop position too, and ends with "requested recovery stop point is before consistent recovery point".
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from lifeboat.wal.names import DEFAULT_SEGMENT_SIZE_BYTES, Segment, parse_lsn

# The history file names the whole second by time(), whose clock may be some milliseconds behind that of commits.
_CUT_OFF = timedelta(seconds=1.1)
# Commits that a standby has replayed, or a server before its promotion, were stamped by another server's clock.
_CLOCK = "SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_last_xact_replay_timestamp()"
_SEGMENT_SIZE = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'"
# In local time of log_timezone; of an hour that comes twice PostgreSQL takes the later one, which is an S as well.
_STOP_TIME = r"""
SELECT pg_catalog.substring(pg_catalog.pg_read_file(%s, 0, 4096, true), 'STOP TIME: (\S+ \S+)')::timestamp
    AT TIME ZONE pg_catalog.current_setting('log_timezone')
"""


def moment_of_stop(session: psycopg.Connection[Any], timeline: int, start_lsn: str) -> datetime | None:
    """When the backup that has just ended can be said to have ended, by the server's clock; None without a session.

    It is the server's clock now, or the earlier moment in the backup's history file, where the role may read that.
    """
    with suppress(psycopg.Error):
        row = session.execute(_CLOCK).fetchone()
        if row is None:
            return None
        now, replayed_at = row
        stop_time = _stop_time(session, timeline, start_lsn)
        moments = [now] if stop_time is None else [min(now, stop_time + _CUT_OFF)]
        stopped_at: datetime = max([*moments, *([replayed_at] if replayed_at is not None else [])])
        return stopped_at.astimezone(UTC)
    return None


def servers_clock(session: psycopg.Connection[Any]) -> datetime | None:
    """The server's clock, None without a session: after a backup it is a moment S too."""
    with suppress(psycopg.Error):
        row = session.execute(_CLOCK).fetchone()
        if row is not None:
            moments: list[datetime] = [moment for moment in row if moment is not None]
            return max(moments).astimezone(UTC)
    return None


def stop_of_second(second: datetime) -> datetime:
    """The moment S of a stop that is known to the whole second, cut off, by the server's clock."""
    return second.astimezone(UTC) + timedelta(seconds=1)


def _stop_time(session: psycopg.Connection[Any], timeline: int, start_lsn: str) -> datetime | None:
    with suppress(psycopg.Error):
        size = session.execute(_SEGMENT_SIZE).fetchone()
        size_bytes = int(size[0]) if size is not None else DEFAULT_SEGMENT_SIZE_BYTES
        position = parse_lsn(start_lsn)
        segment = Segment(timeline, position // size_bytes, size_bytes).name
        name = f"pg_wal/{segment}.{position % size_bytes:08X}.backup"
        row = session.execute(_STOP_TIME, (name,)).fetchone()
        return row[0] if row is not None else None
    return None
