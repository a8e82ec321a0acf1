"""What an administrator does with pgBackRest's stanza: look at its configuration, make it, check it, upgrade it."""

from dataclasses import dataclass
from pathlib import Path

from lifeboat.engines.pgbackrest.configuration import ServerPlace, read_configuration
from lifeboat.engines.pgbackrest.describing import ENGINE
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.engines.pgbackrest.failures import StanzaMissing
from lifeboat.engines.pgbackrest.stanza import ClusterIdentity, check_stanza, needs_upgrade, refuse_other_cluster
from lifeboat.errors import PermanentError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import Installation
from lifeboat.postgres.conf import quote_setting
from lifeboat.storage.repository import BackupRepository


class UpgradeOutdated(PermanentError):
    """The server or the stanza is not what was shown any more."""


@dataclass(frozen=True)
class ShownConfiguration:
    """The configuration as it would be written now, without the passphrase; `is_written` says whether it has been."""

    path: Path
    text: str
    is_written: bool
    archive_command: str


@dataclass(frozen=True)
class StanzaUpgrade:
    """Whom the stanza belongs to now, and whom it would go on with."""

    stanza: str
    repository: Path
    old: ClusterIdentity
    new: ClusterIdentity
    data_dir: Path


def show_configuration(installation: Installation) -> ShownConfiguration:
    """Render pgbackrest.conf for review; writes nothing.

    Raises EngineFailed, FolderUnreachable for an account that may not read it, and what connections raise.
    """
    engine = installation.pgbackrest()
    program, text = engine.program(), engine.configuration()
    is_written = read_configuration(program.config) == text
    for secret in program.secrets:
        text = text.replace(f"-pass={secret}\n", "-pass=***\n")
    command = f"archive_command = {quote_setting(program.archive_command)}"
    return ShownConfiguration(program.config, text, is_written, command)


def lost_backups(engine: PgBackRestEngine, repository: BackupRepository, cluster: ClusterIdentity) -> list[str]:
    """Labels of this cluster's backups by pgBackRest in storage, where its repository has no stanza at all."""
    if engine.info().exists:
        return []
    return [
        item.manifest.label
        for item in repository.sound_backups(tell_fault)
        if item.manifest.engine == ENGINE and item.manifest.system_identifier == cluster.system_identifier
    ]


def refuse_lost_repository(engine: PgBackRestEngine, repository: BackupRepository, cluster: ClusterIdentity) -> None:
    """Raise StanzaMissing where the repository is gone that this cluster's backups in storage are in.

    A new one in its place would hide that, and archiving and expiry would go on in the wrong one.
    """
    lost = lost_backups(engine, repository, cluster)
    if lost:
        raise StanzaMissing(
            f"there is no stanza {engine.stanza} in {engine.folders.repository}, which has had backups of this cluster:"
            f" {len(lost)} by their manifests, the last one {lost[-1]}",
            hint="Mount the repository, or name the right one in [engines.pgbackrest]. If it is lost for good,"
            " `lifeboat pgbackrest create` begins a new one.",
        )


def ensure_stanza(installation: Installation, repository: BackupRepository | None = None) -> PgBackRestEngine:
    """Write the configuration, and make the stanza of a new repository; raises StanzaMissing where one is lost.

    Raises what `PgBackRestEngine.ensure_stanza` raises, too.
    """
    repository = repository or installation.repository()
    engine = installation.pgbackrest(repository.destination.name)
    engine.refuse_copy()
    refuse_lost_repository(engine, repository, engine.identity())
    engine.ensure_stanza()
    return engine


def plan_creation(installation: Installation) -> list[str] | None:
    """The backups that a new repository leaves behind; None where the stanza is there, and is this cluster's."""
    engine = installation.pgbackrest()
    info, cluster = engine.info(), engine.identity()
    if info.exists:
        refuse_other_cluster(info, cluster)
        return None
    return lost_backups(engine, installation.repository(), cluster)


def create(installation: Installation) -> None:
    """Make the stanza, whatever storage says was there; raises what `PgBackRestEngine.ensure_stanza` raises."""
    installation.pgbackrest().ensure_stanza()


def check_archiving(installation: Installation) -> str:
    """Have pgBackRest switch WAL and wait for the segment; returns the stanza. Raises what `check_stanza` raises."""
    engine = installation.pgbackrest()
    engine.open_stanza()
    check_stanza(engine.program())
    return engine.stanza


def plan_upgrade(installation: Installation) -> StanzaUpgrade | None:
    """What `upgrade` would do after pg_upgrade; None where the stanza is this cluster's already.

    Raises StanzaMissing, and RepositoryMismatch for a cluster that is no newer than the stanza's.
    """
    engine = installation.pgbackrest()
    info, new = engine.info(), engine.identity()
    if not needs_upgrade(info, new) or info.current is None:
        return None
    old = ClusterIdentity(str(info.current.system_id), int(info.current.version.partition(".")[0]))
    return StanzaUpgrade(
        engine.stanza, engine.folders.repository, old, new, ServerPlace.ask(installation.source).data_dir
    )


def upgrade(installation: Installation, approved: StanzaUpgrade) -> None:
    """Let the stanza go on with the upgraded cluster that was shown; raises UpgradeOutdated where it is another."""
    if plan_upgrade(installation) != approved:
        raise UpgradeOutdated("the stanza or the server has changed meanwhile", hint="Look again, then confirm it.")
    installation.pgbackrest().upgrade_stanza()
