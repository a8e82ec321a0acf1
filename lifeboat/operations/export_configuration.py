"""The configuration archive as a backup of its own: label, manifest, catalog row."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import UUID, uuid4

import psycopg

from lifeboat.catalog.errors import CatalogError
from lifeboat.configuration.archive import WrittenArchive, write_archive
from lifeboat.configuration.content import Archive
from lifeboat.configuration.export import export_configuration as collect_configuration
from lifeboat.configuration.restore_steps import restore_steps
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.recording import best_effort
from lifeboat.operations.results import BackupTaken
from lifeboat.postgres.connections import connect, server_version, single_value, system_identifier
from lifeboat.storage.labels import backup_id
from lifeboat.storage.manifest import BackupObject, BackupType, Manifest
from lifeboat.storage.unfinished import UnfinishedBackup

ENGINE = "configuration"


def export_configuration(
    installation: Installation,
    *,
    set_id: UUID | None = None,
    flow_run_id: UUID | None = None,
    destination: str | None = None,
) -> BackupTaken:
    """Export the platform's configuration, durably; `set_id` ties it to a database backup of the same run.

    Raises ConfigurationError, SourceUnavailable, AuthenticationFailed and the destination's errors.
    """
    set_id = set_id or uuid4()
    identifier = backup_id(set_id, ENGINE, BackupType.CONFIG)
    repository = installation.writable_repository(destination)
    started_at = datetime.now(UTC)
    with best_effort(f"the start of configuration archive {identifier}"):
        installation.catalog.backups.record_started(
            identifier,
            set_id=set_id,
            type=BackupType.CONFIG,
            engine=ENGINE,
            cluster=repository.cluster,
            destination=repository.destination.name,
            started_at=started_at,
            flow_run_id=flow_run_id,
        )
    try:
        repository.destination.check()
        backup = repository.begin(BackupType.CONFIG, started_at)
        try:
            manifest = _export(installation, backup, identifier, set_id, flow_run_id)
            sha256 = repository.publish(backup, manifest)
        except BaseException:
            backup.abandon()
            raise
    except BaseException as error:
        with best_effort(f"the failure of configuration archive {identifier}"):
            status = "failed" if isinstance(error, Exception) else "cancelled"
            installation.catalog.backups.record_ended(identifier, status=status, error=str(error))
        raise
    with best_effort(f"configuration archive {manifest.label}"):
        installation.catalog.backups.record_completed(
            manifest, destination=repository.destination.name, manifest_sha256=sha256
        )
    return BackupTaken.of(manifest, repository, sha256)


def collect_archive(installation: Installation, session: psycopg.Connection[Any]) -> Archive:
    """The platform's configuration as it is now, by the settings; raises ConfigurationError."""
    return collect_configuration(
        session,
        installation.settings.configuration,
        lifeboat_version=version("lifeboat"),
        lifeboat_toml=installation.settings_file,
        extra=_own_sections(installation),
    )


def _export(
    installation: Installation, backup: UnfinishedBackup, identifier: UUID, set_id: UUID, flow_run_id: UUID | None
) -> Manifest:
    with connect(installation.source, application_name=f"lifeboat {backup.label}", autocommit=True) as session:
        archive = collect_archive(installation, session)
        pg_version, system = server_version(session), system_identifier(session)
        database = str(single_value(session, "SELECT current_database()"))
    for finding in archive.index.findings:
        LOG.warning("configuration: %s %s: %s", finding.section, finding.item, finding.problem)
    written = write_archive(archive, backup.directory)
    return Manifest(
        id=identifier,
        label=backup.label,
        set_id=set_id,
        type=BackupType.CONFIG,
        engine=ENGINE,
        cluster=installation.settings.platform.cluster,
        started_at=backup.started_at,
        completed_at=datetime.now(UTC),
        pg_version=pg_version,
        system_identifier=system,
        database=database,
        flow_run_id=flow_run_id,
        objects=_objects(backup, written),
        compression="gzip",
        restore=restore_steps(backup.label, archive.index),
        tools={"tar": "any", "gzip": "any", "psql": pg_version.partition(".")[0]},
        details={"items": archive.index.counts_by_kind(), "findings": len(archive.index.findings)},
        lifeboat_version=version("lifeboat"),
        signed_by=installation.signer.key_id,
    )


def _objects(backup: UnfinishedBackup, written: WrittenArchive) -> list[BackupObject]:
    objects = backup.seal()
    (found,) = [item for item in objects if item.name == written.path.name]
    if found.sha256 != written.sha256:
        raise RuntimeError(f"{written.path} changed after it was written")
    return objects


def _own_sections(installation: Installation) -> Mapping[str, Sequence[Mapping[str, object]]]:
    # Without a catalog there are no schedules of our own to keep, and the platform's configuration still counts.
    try:
        schedules = installation.catalog.schedules.list_schedules()
    except CatalogError as error:
        LOG.warning("the configuration archive has no backup schedules: %s", error)
        return {}
    return {"backup_schedules": [asdict(row) for row in schedules]}
