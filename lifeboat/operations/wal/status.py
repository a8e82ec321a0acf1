"""What is known of the platform's WAL: the archive's listing, what the scrub found, how far the server is ahead."""

from contextlib import closing
from dataclasses import dataclass

import psycopg

from lifeboat.agent.heartbeat import heartbeat_age_seconds
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.operations.wal.received import with_received
from lifeboat.postgres.connections import connect
from lifeboat.recovery.continuity import switch_gaps
from lifeboat.recovery.timelines import path_to
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.coverage import SCRUB_NAME, ArchiveListing, SegmentRange
from lifeboat.wal.health import ArchiverState, ServerWal, Slot
from lifeboat.wal.names import InvalidWalName, Segment, parse_lsn
from lifeboat.wal.scrub_record import ScrubFinding, ScrubRecord, damaged_segments, load_record

PGBACKREST_SCRUB_NAME = "pgbackrest-scrub.json"
_SERVER = """
SELECT pg_catalog.clock_timestamp(), pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_is_in_recovery(), l.lsn::text,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_walfile_name(l.lsn) END,
       archived_count, last_archived_wal, last_archived_time, failed_count, last_failed_wal, last_failed_time
FROM pg_catalog.pg_stat_archiver, (SELECT CASE WHEN pg_catalog.pg_is_in_recovery()
     THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END) AS l (lsn)
"""
_SETTINGS = """
SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY
('{archive_mode, archive_command, archive_library, archive_timeout, checkpoint_timeout, max_slot_wal_keep_size,
   wal_segment_size}')
"""
_SLOTS = """
SELECT slot_name::text, slot_type, active, wal_status, safe_wal_size,
       pg_catalog.pg_wal_lsn_diff(%s::pg_lsn, restart_lsn)::bigint
FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY slot_name
"""
# `<24 digits>.ready`: history files and backup labels wait too, but they are not WAL.
_WAITING = """
SELECT count(*), min(modification) FROM pg_catalog.pg_ls_archive_statusdir() WHERE name ~ '^[0-9A-F]{24}[.]ready$'
"""
_MAY_LIST = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE')"


@dataclass(frozen=True)
class WalStatus:
    """The archive's listing, and the rest as far as it could be had; the errors say why it could not."""

    archive: str
    listing: ArchiveListing
    record: ScrubRecord | None
    record_error: str | None
    server: ServerWal | None
    server_error: str | None
    switch_gaps: tuple[SegmentRange, ...] = ()
    history_error: str | None = None

    @property
    def gaps(self) -> tuple[SegmentRange, ...]:
        """What is missing within timelines, and where the current one goes on from another."""
        return tuple(sorted((*self.listing.gaps, *self.switch_gaps), key=lambda item: item.first))

    @property
    def findings(self) -> tuple[ScrubFinding, ...]:
        """What the scrub found in files that are still there."""
        listed = {item.parsed.name for item in self.listing.files}
        return tuple(item for item in self.record.findings if item.name in listed) if self.record is not None else ()

    @property
    def damaged(self) -> frozenset[Segment]:
        """Every segment that a restore must not be led across."""
        return damaged_segments(self.listing, self.record)

    @property
    def intact(self) -> bool:
        """Whether nothing that is there is known to be damaged; which gaps matter tells operations.wal.health."""
        return not (self.listing.damaged or self.findings or self.history_error)


def read_wal_status(installation: Installation) -> WalStatus:
    """Look at server and archive; raises SettingsError where WAL is not archived, and ArchiveUnreadable."""
    archive = wal_archive(installation)
    # The server first: what it was told is archived must be in a listing that is taken afterwards.
    server, server_error = ask_server(installation)
    listing = archive.listing()
    if server is not None:
        server = with_received(installation, server, listing)
    record, record_error = None, None
    try:
        record = read_scrub_record(installation)
    except LifeboatError as error:
        record_error = error.message
    gaps, history_error = _over_switches(archive, listing, server)
    return WalStatus(archive.describe(), listing, record, record_error, server, server_error, gaps, history_error)


def _over_switches(
    archive: WalArchive, listing: ArchiveListing, server: ServerWal | None
) -> tuple[tuple[SegmentRange, ...], str | None]:
    """What is missing where the current timeline goes on from others, or why that cannot be told."""
    timelines = listing.timelines
    if not timelines:
        return (), None
    current = server.timeline if server is not None and server.timeline in timelines else timelines[-1]
    try:
        path = path_to(current, {current: archive.history(current)}, timelines)
    except (WalFileMissing, WalDamaged, InvalidWalName) as error:
        return (), error.message
    return tuple(switch_gaps(listing.ranges, path, listing.segment_size_bytes)), None


def damaged_wal(installation: Installation, listing: ArchiveListing) -> frozenset[Segment]:
    """What recovery.spans.ArchivedWal.of takes as `damaged`; raises ScrubRecordDamaged and the destination's errors."""
    return damaged_segments(listing, read_scrub_record(installation))


def scrub_place(installation: Installation) -> tuple[FilesystemDestination, str]:
    """Where the scrub's record lies: in our own archive, or beside pgBackRest's repository."""
    settings = installation.settings
    folder = settings.platform.cluster
    name = PGBACKREST_SCRUB_NAME if settings.pgbackrest_archives else f"wal/{SCRUB_NAME}"
    return installation.destination(settings.wal.destination), f"{folder}/{name}"


def read_scrub_record(installation: Installation) -> ScrubRecord | None:
    """The scrub's record, None before its first run; raises ScrubRecordDamaged and the destination's errors."""
    return load_record(*scrub_place(installation))


def ask_server(installation: Installation) -> tuple[ServerWal | None, str | None]:
    """What the server says of its WAL, or why it cannot be asked."""
    try:
        return read_server_wal(installation), None
    except LifeboatError as error:
        return None, error.message
    except psycopg.Error as error:
        return None, " ".join(str(error).split())


def read_server_wal(installation: Installation) -> ServerWal:
    """Ask the server; raises SourceUnavailable, AuthenticationFailed and psycopg.Error."""
    receiver = installation.settings.wal.receive_slot if installation.settings.wal.receive else None
    with closing(connect(installation.source, application_name="lifeboat wal status", autocommit=True)) as session:
        settings: dict[str, str] = dict(session.execute(_SETTINGS.encode()).fetchall())
        row = session.execute(_SERVER.encode()).fetchone()
        if row is None:
            raise psycopg.DataError("no row from pg_stat_archiver")
        now, started_at, in_recovery, lsn, segment, *archiver = row
        may_list = session.execute(_MAY_LIST).fetchone()
        counted = session.execute(_WAITING.encode()).fetchone() if may_list and may_list[0] else None
        waiting, oldest_waiting_at = counted if counted is not None else (None, None)
        slots = [Slot(*found) for found in session.execute(_SLOTS, [lsn])]
        heartbeat, heartbeat_error = _heartbeat(session)
    return ServerWal(
        now=now,
        in_recovery=in_recovery,
        archives=_archives(settings) or any(slot.name == receiver and slot.active for slot in slots),
        receives_only=receiver is not None and not _archives(settings),
        segment_size_bytes=int(settings["wal_segment_size"]),
        current_lsn=parse_lsn(lsn) if lsn is not None else None,
        timeline=int(segment[:8], 16) if segment is not None else None,
        archiver=ArchiverState(*archiver),
        waiting=waiting,
        oldest_waiting_at=oldest_waiting_at,
        slots=tuple(slots),
        slots_are_limited=settings.get("max_slot_wal_keep_size") != "-1",
        heartbeat_age_seconds=heartbeat,
        heartbeat_error=heartbeat_error,
        started_at=started_at,
        archive_timeout_seconds=int(settings["archive_timeout"]),
        checkpoint_timeout_seconds=int(settings["checkpoint_timeout"]),
    )


def _archives(settings: dict[str, str]) -> bool:
    if settings.get("archive_mode") not in {"on", "always"}:
        return False
    # A role without pg_read_all_settings may not see the library.
    return bool(settings.get("archive_library")) or settings.get("archive_command") not in {"", "(disabled)"}


def _heartbeat(session: psycopg.Connection[tuple[object, ...]]) -> tuple[float | None, str | None]:
    """Its age in seconds, or why it cannot be read: that is not the same as none."""
    try:
        return heartbeat_age_seconds(session), None
    except psycopg.Error as error:
        return None, " ".join(str(error).split())
