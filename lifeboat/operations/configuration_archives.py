"""Configuration archives after they were written: read one back, compare two, apply one."""

import getpass
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

from lifeboat.configuration.apply import Applied, apply
from lifeboat.configuration.content import Archive
from lifeboat.configuration.index import ARCHIVE_NAME, ConfigurationError
from lifeboat.configuration.plan import ApplyPlan
from lifeboat.configuration.planning import plan_apply
from lifeboat.configuration.reading import decode_archive, read_archive
from lifeboat.errors import PermanentError
from lifeboat.operations.backup.selection import NoSuchBackup, find_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.recording import best_effort
from lifeboat.postgres.connections import connect
from lifeboat.storage.checked import CheckedReader
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository

LATEST = "latest"


class NoConfigurationArchive(PermanentError):
    """A backup is not a configuration archive."""


@dataclass(frozen=True)
class LoadedArchive:
    """A configuration archive and what it is called."""

    name: str
    archive: Archive


def list_archives(installation: Installation, destination: str | None = None) -> list[Manifest]:
    """The manifests of all configuration archives at a destination, oldest first; raises ManifestError."""
    stored = installation.repository(destination).backups()
    return [item.manifest for item in stored if item.manifest.type is BackupType.CONFIG]


def load_archive(installation: Installation, wanted: str, destination: str | None = None) -> LoadedArchive:
    """An archive by label or id, `latest`, or the path of a configuration.tar.gz of any installation.

    Raises NoSuchBackup, NoConfigurationArchive, BackupDamaged, ArchiveInvalid, ManifestError.
    """
    limit = installation.settings.configuration.max_total_bytes
    path = Path(wanted)
    if path.is_file():
        try:
            return LoadedArchive(str(path), read_archive(path, max_total_bytes=limit))
        except OSError as error:
            raise ConfigurationError(
                f"cannot read {path}: {error.strerror}", hint="Check its owner and its mode."
            ) from error
    repository = installation.repository(destination)
    manifest = _find(installation, repository, wanted, destination)
    item = next((item for item in manifest.objects if item.name == ARCHIVE_NAME), None)
    if item is None:
        raise NoConfigurationArchive(
            f"{manifest.label} is a {manifest.type} backup, not a configuration archive",
            hint="`lifeboat config list` shows the archives.",
        )
    with repository.open_object(manifest.label, item.name) as stream:
        reader = CheckedReader(stream, item, f"{manifest.label}/{item.name}")
        # Checked whole before a byte of it is interpreted.
        data = reader.read()
        reader.finish()
    return LoadedArchive(manifest.label, decode_archive(BytesIO(data), max_total_bytes=limit))


def plan_configuration(
    installation: Installation, archive: Archive, *, prune: bool = False, only: Collection[str] | None = None
) -> ApplyPlan:
    """What applying an archive to the platform would change now; changes nothing. Raises ConfigurationError."""
    with connect(installation.source, application_name="lifeboat config plan", autocommit=True) as session:
        return plan_apply(archive, session, installation.settings.configuration, prune=prune, only=only)


def apply_configuration(installation: Installation, name: str, plan: ApplyPlan, *, undo: str | None) -> Applied:
    """Do what the plan says, or nothing. Replaced files are kept below the state folder.

    `undo` is the label of the archive of the time before, None where nobody wants one; the audit log names it.
    Raises LiveChanged, ApplyFailed, TablesBusy, ConfigurationError.
    """
    kept = installation.settings.state_dir / "replaced" / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with connect(installation.source, application_name="lifeboat config apply", autocommit=True) as session:
        applied = apply(plan, session, keep_in=kept)
    with best_effort(f"the applied configuration {name}"):
        installation.catalog.audit.append(
            actor=f"lifeboat {version('lifeboat')} command of {getpass.getuser()}",
            action="apply-configuration",
            object=f"configuration {name}",
            before=None,
            after={**vars(applied), "plan": plan.sha256, "pruned": plan.prune, "undo": undo},
        )
    return applied


def _find(installation: Installation, repository: BackupRepository, wanted: str, destination: str | None) -> Manifest:
    if wanted != LATEST:
        return find_backup(repository, wanted).manifest
    archives = list_archives(installation, destination)
    if not archives:
        raise NoSuchBackup(
            f"there is no configuration archive at {repository.destination.describe()}",
            hint="Take one: `lifeboat config export`.",
        )
    return max(archives, key=lambda manifest: manifest.started_at)
