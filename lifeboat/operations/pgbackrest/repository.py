"""What operations do in pgBackRest's own repository, beside the manifests at the destination."""

import hashlib
from collections.abc import Sequence

from lifeboat.engines.pgbackrest.adoption import Adoption, adopt_backups
from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.describing import BAD_PAGES, ENGINE
from lifeboat.engines.pgbackrest.discarding import discard_backup, discard_marked
from lifeboat.engines.pgbackrest.expiry import RepositoryExpiry, expire_from_repository, refuse_expiry
from lifeboat.engines.pgbackrest.info import StanzaInfo
from lifeboat.engines.pgbackrest.restoring import check_stored
from lifeboat.engines.pgbackrest.stanza import refuse_other_cluster
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.pgbackrest.stanza import refuse_lost_repository
from lifeboat.operations.recording import best_effort
from lifeboat.postgres.connections import connect, single_value
from lifeboat.postgres.lock import cluster_lock
from lifeboat.storage.manifest import BackupType, Manifest, encode_manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.wal.names import parse_lsn


def expire_in_repository(installation: Installation, repository: BackupRepository) -> RepositoryExpiry | None:
    """Remove from pgBackRest's repository what has expired at the destination; None where it has nothing of ours.

    Storage says what is expired, so a repeated call finishes the work of an interrupted one. Raises RepositoryBusy
    while a backup runs, ExpiryRefused, StanzaMissing.
    """
    expired = [item.manifest.label for item in repository.expired() if item.manifest.engine == ENGINE]
    if not expired:
        return None
    kept = [item.manifest for item in repository.backups() if item.manifest.engine == ENGINE]
    reader = installation.pgbackrest(repository.destination.name).reader()
    labels = [manifest.label for manifest in kept]
    done = expire_from_repository(reader, expired, labels, wal_held_by=_wal_held_by(installation, kept))
    if done.why_wal_stays is not None:
        LOG.warning("WAL of expired backups stays in pgBackRest's repository: %s", done.why_wal_stays)
    return done


def _wal_held_by(installation: Installation, kept: Sequence[Manifest]) -> str | None:
    """Why WAL from before the oldest kept full backup by pgBackRest is needed: another engine's backup begins there.

    pgBackRest knows its own backups only. What cannot be read may need it too.
    """
    fulls = [manifest for manifest in kept if manifest.type is BackupType.FULL]
    starts = [start for start in map(_start, fulls) if start is not None]
    if not starts:
        return None
    for name in installation.settings.destinations:
        try:
            stored = installation.repository(name).backups()
        except LifeboatError as error:
            return f"{name} cannot be read, which may have backups that need it: {error.message}"
        for manifest in (item.manifest for item in stored if item.manifest.engine != ENGINE):
            start = _start(manifest)
            if start is not None and start < min(starts):
                return f"{manifest.label} by {manifest.engine} is kept, and is replayed from {manifest.start_lsn} on"
    return None


def _start(manifest: Manifest) -> tuple[int, int] | None:
    if manifest.timeline is None or manifest.start_lsn is None:
        return None
    return manifest.timeline, parse_lsn(manifest.start_lsn)


def check_in_repository(
    installation: Installation, repository: BackupRepository, manifests: Sequence[Manifest]
) -> list[str]:
    """What pgBackRest finds wrong with these of its backups; it reads the whole repository."""
    return check_stored(installation.pgbackrest(repository.destination.name).reader(), manifests)


def refuse_expiry_in_repository(
    installation: Installation, repository: BackupRepository, going: Sequence[Manifest]
) -> None:
    """Raise what pgBackRest's repository has against a plan before anything expires.

    That is ExpiryRefused, RepositoryBusy, or StanzaMissing where the repository is gone.
    """
    labels = [manifest.label for manifest in going if manifest.engine == ENGINE]
    earlier = [item.manifest.label for item in repository.expired() if item.manifest.engine == ENGINE]
    if labels or earlier:
        refuse_expiry(installation.pgbackrest(repository.destination.name).info(), labels, held=earlier)


def discard_in_repository(installation: Installation, repository: BackupRepository, label: str, why: str) -> None:
    """Take away what pgBackRest has just taken, for a backup that failed afterwards; logs where it cannot."""
    try:
        kept = discard_backup(installation.pgbackrest(repository.destination.name).reader(), label, why)
    except LifeboatError as error:
        LOG.error("the failed backup %s stays, and the next one by pgBackRest adopts it: %s", label, error.message)
        return
    if kept is not None:
        LOG.warning(
            "the failed backup %s stays, marked as failed, until a later run removes it: %s", label, kept.message
        )


def adopt_repository(installation: Installation) -> Adoption:
    """Write manifests for what pgBackRest's repository has and storage does not, and tell the catalog.

    Raises ClusterBusy while a backup runs: it would be adopted half recorded.
    """
    repository = installation.writable_repository()
    with cluster_lock(installation.source, cluster=repository.cluster, wait_seconds=0, purpose="adoption"):
        for label in repository.unfinished_labels():
            repository.remove_unfinished(label)
        return adopt_under_lock(installation, repository)


def adopt_under_lock(installation: Installation, repository: BackupRepository) -> Adoption:
    """As `adopt_repository`, for who holds the cluster's lock and has removed what is unfinished.

    Raises RepositoryMismatch for the repository of another cluster, StanzaMissing where it is gone, SettingsError for
    a copy of ours.
    """
    engine = installation.pgbackrest(repository.destination.name)
    engine.refuse_copy()
    info = engine.info()
    cluster = engine.identity()
    if not info.exists:
        refuse_lost_repository(engine, repository, cluster)
        return Adoption((), {})
    refuse_other_cluster(info, cluster)
    _discard_marked(engine.reader(), info)
    with connect(installation.source, application_name="lifeboat adoption", autocommit=True) as session:
        superuser = single_value(session, "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10")
        database = session.info.dbname
    found = adopt_backups(engine.reader(), engine.where, repository, superuser=str(superuser), database=database)
    for manifest in found.adopted:
        LOG.info("adopted %s, which pgBackRest's repository has and storage had not", manifest.label)
        if manifest.details.get("page_checksum_errors"):
            LOG.error("%s: %s; look at the server's disks, and run pg_amcheck there", manifest.label, BAD_PAGES)
        with best_effort(f"the adopted backup {manifest.label}"):
            installation.catalog.backups.record_completed(
                manifest,
                destination=repository.destination.name,
                manifest_sha256=hashlib.sha256(encode_manifest(manifest)).hexdigest(),
            )
    return found


def _discard_marked(reader: PgBackRest, info: StanzaInfo) -> None:
    try:
        for label in discard_marked(reader, info):
            LOG.info("removed %s from pgBackRest's repository: the run that took it had failed", label)
    except LifeboatError as error:
        LOG.warning("a backup of a failed run stays in pgBackRest's repository: %s", error.message)
