"""Manifests for backups that the repository has and Lifeboat did not take, or took and could not record any more."""

from dataclasses import dataclass
from importlib.metadata import version
from uuid import NAMESPACE_OID, UUID, uuid5

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.describing import BAD_PAGES, ENGINE, ID_ANNOTATION, Whereabouts, describe_backup
from lifeboat.engines.pgbackrest.discarding import failure_of
from lifeboat.engines.pgbackrest.info import BackupInfo, StanzaInfo, read_info
from lifeboat.storage.labels import is_label
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository


@dataclass(frozen=True)
class Adoption:
    """What was adopted, and what was left alone and why."""

    adopted: tuple[Manifest, ...]
    left: dict[str, str]


def adopted_id(system_identifier: str, label: str) -> UUID:
    """The id of a backup that is not ours: the same on every host and each time (RFC 9562, v5)."""
    return uuid5(uuid5(NAMESPACE_OID, system_identifier), label)


def adopt_backups(
    pgbackrest: PgBackRest,
    where: Whereabouts,
    repository: BackupRepository,
    *,
    superuser: str,
    database: str | None = None,
) -> Adoption:
    """Write a manifest for each backup of the stanza that has none, oldest first.

    Left alone are expired ones, backups that a former cluster of the stanza left, and those of failed runs with all
    that builds on them. `database` is the one that
    drills ask. An adopted backup has no fingerprint: only the checks that need none can prove it. Raises what
    `read_info` and the destination raise.
    """
    info = read_info(pgbackrest)
    done = {*repository.labels(), *repository.expired_labels()}
    adopted: list[Manifest] = []
    left: dict[str, str] = {}
    for item in info.backup:
        if item.label in done:
            continue
        why = _obstacle(info, item)
        if why is not None:
            left[item.label] = why
            continue
        # Asked for one by one: only so does info tell of tablespaces.
        backup = read_info(pgbackrest, item.label).find(item.label) or item
        manifest = adopted_manifest(info, backup, where, repository, superuser=superuser, database=database)
        try:
            staged = repository.begin_label(manifest.label, manifest.started_at)
        except FileExistsError:
            left[item.label] = "its folder is there already, unfinished: another run may be writing it"
            continue
        repository.publish(staged, manifest)
        adopted.append(manifest)
    return Adoption(tuple(adopted), left)


def adopted_manifest(  # noqa: PLR0913 - what pgBackRest says, and what only the server says
    info: StanzaInfo,
    backup: BackupInfo,
    where: Whereabouts,
    repository: BackupRepository,
    *,
    superuser: str,
    database: str | None = None,
) -> Manifest:
    """The manifest of a backup that was found; one with our annotation keeps the id that it was taken under."""
    identifier = info.system_identifier(backup)
    entry = next(item for item in info.db if item.id == backup.database.id)
    taken = describe_backup(
        where, info, backup, superuser=superuser, pg_version=entry.version, compression="as pgBackRest recorded it"
    )
    own = _annotated_id(backup) or adopted_id(identifier, backup.label)
    prior = info.find(backup.prior) if backup.prior else None
    return Manifest(
        id=own,
        label=backup.label,
        set_id=own,
        type=taken.type,
        engine=ENGINE,
        cluster=repository.cluster,
        parent_id=(_annotated_id(prior) or adopted_id(identifier, prior.label)) if prior else None,
        parent_label=backup.prior,
        reason="; ".join(["adopted from pgBackRest's repository", *([BAD_PAGES] if backup.error else [])]),
        started_at=backup.started_at,
        completed_at=backup.completed_at,
        pg_version=taken.pg_version,
        system_identifier=identifier,
        timeline=taken.timeline,
        start_lsn=taken.start_lsn,
        stop_lsn=taken.stop_lsn,
        database=database,
        objects=[],
        compression=taken.compression,
        restore=taken.restore,
        tools=dict(taken.tools),
        details={**taken.manifest_details, "adopted": True},
        lifeboat_version=version("lifeboat"),
        signed_by=repository.signer.key_id if repository.signer else "",
    )


def _annotated_id(backup: BackupInfo) -> UUID | None:
    try:
        return UUID((backup.annotation or {}).get(ID_ANNOTATION, ""))
    except ValueError:
        return None


def _obstacle(info: StanzaInfo, backup: BackupInfo) -> str | None:
    current = info.current
    if current is None or info.system_identifier(backup) != str(current.system_id):
        return "it is a backup of a cluster that the stanza belonged to before"
    if not is_label(backup.label):
        return "its label has another form"
    chain = info.chain(backup.label)
    if len(chain) == 1 and backup.prior:
        return f"what it builds on, {backup.prior}, is gone"
    for item in info.backup:
        if item.label in chain and (why := failure_of(item)) is not None:
            return f"the run that took {'it' if item is backup else item.label} has failed: {why}"
    return None
