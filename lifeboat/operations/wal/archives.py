"""The WAL archive of an installation, whichever engine keeps it: Lifeboat's own, or pgBackRest's repository."""

import time
from pathlib import Path

from lifeboat.engines.pgbackrest.archive import PgBackRestArchive
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.errors import SettingsError
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect, single_value
from lifeboat.postgres.folders import give_to
from lifeboat.storage.manifest import Manifest
from lifeboat.wal.archive import FilesystemArchive, WalArchive
from lifeboat.wal.coverage import WalNotArchived
from lifeboat.wal.names import parse_lsn, segment_at, segment_before

_POLL_SECONDS = 0.5
_SEGMENT_SIZE = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'"


def wal_archive(installation: Installation, destination: str | None = None) -> WalArchive:
    """Where the platform's WAL is archived, to be read; raises SettingsError where it is not archived.

    `destination` is the one that is restored from: pgBackRest's WAL is read from the repository that is there.
    """
    wal = installation.settings.wal
    if not wal.archive:
        raise SettingsError(
            "`wal.archive` is false: there is no WAL archive", hint="Set it to true and run `lifeboat doctor`."
        )
    if installation.settings.pgbackrest_archives:
        engine = pgbackrest_with_wal(installation, destination)
        return PgBackRestArchive(engine.reader(), engine.folders.repository)
    return FilesystemArchive(installation.destination(wal.destination).path, installation.settings.platform.cluster)


def pgbackrest_with_wal(installation: Installation, destination: str | None) -> PgBackRestEngine:
    """The engine whose repository has the WAL for a restore from `destination`: the copy there, or the one there is.

    Other engines' backups may be at a destination that has no copy.
    """
    engine = installation.pgbackrest(destination)
    if engine.copy is not None and not engine.folders.repository.is_dir():
        return installation.pgbackrest()
    return engine


def about_copy(installation: Installation, destination: str | None) -> list[str]:
    """What to say where a restore from `destination` reads its WAL from a copy of pgBackRest's repository."""
    if not installation.settings.pgbackrest_archives:
        return []
    copy = pgbackrest_with_wal(installation, destination).copy
    return [f"WAL is read from the copy of pgBackRest's repository at {copy}, as new as that is"] if copy else []


def wait_in_pgbackrest(installation: Installation, *, timeline: int, lsn: str) -> None:
    """Wait until pgBackRest's repository has the last segment that a backup with this stop LSN needs.

    For backups that another engine takes while pgBackRest archives. Raises WalNotArchived, ArchiveUnreadable, and
    SourceUnavailable where the server is away.
    """
    engine, timeout_seconds = installation.pgbackrest(), installation.settings.wal.segment_timeout_seconds
    archive = PgBackRestArchive(engine.reader(), engine.folders.repository)
    # Not by the archive: that takes listing all of it, and one that is still empty would not know.
    with connect(installation.source, application_name="lifeboat", autocommit=True) as session:
        size_bytes = int(single_value(session, _SEGMENT_SIZE))
    segment = segment_before(parse_lsn(lsn), timeline, size_bytes)
    deadline = time.monotonic() + timeout_seconds
    while True:
        if archive.holds(segment):
            return
        if time.monotonic() > deadline:
            raise WalNotArchived(
                f"{segment.name} did not reach {archive.describe()} within {timeout_seconds:g} s",
                hint="The server's log has archive_command's error; `lifeboat doctor` checks the archiving.",
            )
        time.sleep(_POLL_SECONDS)


def fetch_wal_of(installation: Installation, manifest: Manifest, folder: Path, destination: str | None) -> None:
    """Bring the WAL from a backup's fingerprint to its end into `folder`, for the server's account to read.

    Raises WalFileMissing, WalDamaged, ArchiveUnreadable.
    """
    fingerprint = manifest.fingerprint
    if fingerprint is None or fingerprint.lsn is None or manifest.timeline is None or manifest.stop_lsn is None:
        return
    engine = installation.pgbackrest(destination)
    archive = PgBackRestArchive(engine.reader(), engine.folders.repository)
    size_bytes = archive.segment_size_bytes
    segment = segment_at(parse_lsn(fingerprint.lsn), manifest.timeline, size_bytes)
    last = segment_before(parse_lsn(manifest.stop_lsn), manifest.timeline, size_bytes)
    while segment <= last:
        archive.fetch(segment.name, folder / segment.name)
        give_to(folder / segment.name, installation.run_as)
        segment = segment.following()
