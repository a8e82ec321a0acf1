"""What waits to be archived where a receiver is the only way: pg_stat_archiver tells nothing of it."""

import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.wal.archive_program.layout import MARKER_NAME
from lifeboat.wal.coverage import ArchiveListing
from lifeboat.wal.health import ServerWal
from lifeboat.wal.names import Segment
from lifeboat.wal.receiving import finished_files

_FINISHED_SECONDS_AGO = """
SELECT extract(epoch FROM pg_catalog.clock_timestamp() - modification) FROM pg_catalog.pg_ls_waldir()
WHERE name ~ '^[0-9A-F]{24}$' AND name COLLATE "C" >= %s AND name COLLATE "C" < %s
"""


def spool_folder(installation: Installation, system_identifier: str) -> Path:
    """Where the receiver of this installation keeps what is not archived yet; another server's WAL never lies there."""
    settings = installation.settings
    return settings.state_dir / f"receive-{settings.platform.cluster}-{system_identifier}"


def with_received(installation: Installation, server: ServerWal, listing: ArchiveListing) -> ServerWal:
    """`server` with the finished segments that are not in a listing taken afterwards, and since when they wait.

    They lie in the receiver's spool, or on the server where the receiver has not got them. What was archived last is
    the newest segment of the listing. Unchanged where archive_command archives.
    """
    if not server.receives_only or server.current_lsn is None or server.timeline is None:
        return server
    now = Segment(server.timeline, server.current_lsn // listing.segment_size_bytes, listing.segment_size_bytes)
    last = max((item.last for item in listing.ranges if item.timeline == server.timeline), default=None)
    ages_seconds = _spooled(spool_folder(installation, listing.system_identifier))
    if last is None:
        # Nothing of this timeline was archived yet: what was finished before there was an archive need not be. The
        # server tells whole seconds.
        since_seconds = max(_seconds_ago(listing.archive / MARKER_NAME), default=0.0) + 1.0
        unseen_seconds = [age for age in _on_server(installation, replace(now, number=0), now) if age < since_seconds]
        behind = len(unseen_seconds)
    else:
        behind = now.number - last.number - 1
        unseen_seconds = _on_server(installation, last.following(), last.following(2)) if behind > 0 else []
        server = _archived_last(server, last, _stored_seconds_ago(listing, last))
    waiting = max(behind, len(ages_seconds), 0)
    ages_seconds += unseen_seconds
    if waiting and not ages_seconds and last is not None:
        # Neither is to be seen: they cannot have waited longer than since the last one was archived.
        ages_seconds += _stored_seconds_ago(listing, last)
    oldest_at = server.now - timedelta(seconds=max(ages_seconds)) if ages_seconds else None
    return replace(server, waiting=waiting, oldest_waiting_at=oldest_at)


def _archived_last(server: ServerWal, last: Segment, stored_seconds_ago: list[float]) -> ServerWal:
    at = server.now - timedelta(seconds=max(stored_seconds_ago)) if stored_seconds_ago else None
    return replace(server, archiver=replace(server.archiver, last_archived_wal=last.name, last_archived_at=at))


def _spooled(folder: Path) -> list[float]:
    """How many seconds ago each file in the spool was finished; none where there is no such folder on this host."""
    with suppress(OSError):
        return [age for path in finished_files(folder) for age in _seconds_ago(path)]
    return []


def _on_server(installation: Installation, first: Segment, end: Segment) -> list[float]:
    """How many seconds ago the server finished those from `first` on before `end`, as far as they are to be seen."""
    with (
        suppress(LifeboatError, psycopg.Error),
        closing(connect(installation.source, application_name="lifeboat wal status", autocommit=True)) as session,
    ):
        found = session.execute(_FINISHED_SECONDS_AGO.encode(), [first.name, end.name])
        return [max(0.0, float(row[0])) for row in found]
    return []


def _stored_seconds_ago(listing: ArchiveListing, segment: Segment) -> list[float]:
    return [age for item in listing.files if item.parsed.name == segment.name for age in _seconds_ago(item.path)]


def _seconds_ago(path: Path) -> list[float]:
    """How many seconds ago a file was written; none where it is gone, such as archived this moment."""
    with suppress(OSError):
        return [max(0.0, time.time() - path.stat().st_mtime)]
    return []
