"""The engine `pgbackrest`: production physical backups in a repository that pgBackRest owns.

`Engine.take` leaves the staged folder empty: the payload is in the repository, under the label that pgBackRest gives
it (`Taken.label`), and `Taken.details` says where. Our manifest lists no objects.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

import psycopg

from lifeboat.engines.backup_end import servers_clock
from lifeboat.engines.engine import EngineFailed, IncrementalImpossible, Parent, Progress, Taken, Watch
from lifeboat.engines.pgbackrest.commands import PgBackRest, find_program
from lifeboat.engines.pgbackrest.configuration import (
    Folders,
    ServerPlace,
    prepare_folders,
    prepare_repository,
    render_configuration,
    write_configuration,
)
from lifeboat.engines.pgbackrest.describing import ENGINE, ID_ANNOTATION, Whereabouts, describe_backup
from lifeboat.engines.pgbackrest.failures import LabelNotLater
from lifeboat.engines.pgbackrest.info import InfoType, StanzaInfo, read_info
from lifeboat.engines.pgbackrest.restoring import restore_backup, spool_folder
from lifeboat.engines.pgbackrest.stanza import (
    ClusterIdentity,
    create_stanza,
    needs_upgrade,
    refuse_other_cluster,
    upgrade_stanza,
)
from lifeboat.errors import LifeboatError, SettingsError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import (
    ConnectionInfo,
    connect,
    server_major,
    server_version,
    single_value,
    system_identifier,
)
from lifeboat.postgres.folders import make_private_dir
from lifeboat.settings.pgbackrest import PgBackRestSettings
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository

_PROGRESS = re.compile(r"\(\d[^,()]*, (\d+(?:\.\d+)?)%\)")
_BEGUN = "backup start archive = "
_LABEL = re.compile(r"new backup label = (\S+)")


@dataclass(frozen=True)
class PgBackRestEngine:
    """Takes full, differential and incremental backups of a server on this host.

    `copy` names a destination that has only a copy of the repository: it is restored from and never written to.
    """

    tools: PgTools
    connection: ConnectionInfo
    settings: PgBackRestSettings
    folders: Folders
    cluster: str
    timeout_seconds: float
    cluster_folder: Path | None = None
    copy: str | None = None

    @property
    def name(self) -> str:
        """`pgbackrest`."""
        return ENGINE

    @property
    def stanza(self) -> str:
        """The stanza's name."""
        return self.settings.stanza or self.cluster

    def types(self, server_major: int) -> frozenset[BackupType]:
        """All physical types, of every supported version."""
        del server_major
        return frozenset({BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL})

    @cached_property
    def where(self) -> Whereabouts:
        """What manifests say of the repository."""
        return Whereabouts(self.folders, self.stanza, self.settings.cipher_type, self.cluster_folder)

    def prepare(self) -> PgBackRest:
        """Folders, and the configuration with the server as it is now: for backups, checks and archive_command.

        Raises RepositoryMismatch for another cluster's repository, SettingsError for a copy of ours,
        FolderUnreachable, ToolMissing, EngineFailed, and what connections raise.
        """
        info = self._info_to_write()
        if info.exists:
            refuse_other_cluster(info, self.identity())
        return self._write()

    def open_stanza(self) -> StanzaInfo:
        """As `prepare`, where the stanza must be there: raises StanzaMissing, and writes nothing then."""
        info = self._info_to_write()
        refuse_other_cluster(info, self.identity())
        self._write()
        return info

    def configuration(self) -> str:
        """The text of pgbackrest.conf for the server as it is now; raises EngineFailed, and what connections raise."""
        return render_configuration(self.settings, self.folders, self.stanza, ServerPlace.ask(self.connection))

    def program(self) -> PgBackRest:
        """The program with the configuration that `prepare` writes; writes nothing itself. Raises ToolMissing."""
        return self._program(self.folders.config)

    def refuse_copy(self) -> None:
        """Raise SettingsError where there is only a copy of the repository."""
        if self.copy is not None:
            # The server archives to one repository: with another in its configuration WAL would go astray.
            raise SettingsError(
                f"pgBackRest has one repository, and it is not at destination {self.copy}",
                hint="Take its backups to `backup.destination`, or use another engine for that destination.",
            )

    def reader(self) -> PgBackRest:
        """The program with a configuration that needs no server: for restores, listings and recovery hosts."""
        prepare_folders(self.folders, self.tools.user)
        text = render_configuration(self.settings, self.folders, self.stanza)
        write_configuration(self.folders.reading_config, text, self.tools.user)
        return self._program(self.folders.reading_config)

    def ensure_stanza(self) -> StanzaInfo:
        """Prepare everything that archiving and backups need, and make the stanza where there is none.

        Whether one was there, and is only out of sight, is for the caller to know. Raises what `prepare` raises.
        """
        pgbackrest = self.prepare()
        prepare_repository(self.folders, self.tools.user)
        if (info := read_info(pgbackrest)).exists:
            return info
        create_stanza(pgbackrest)
        return self.open_stanza()

    def upgrade_stanza(self) -> bool:
        """Let the stanza go on with the server, an upgraded cluster; False where it did already.

        Raises StanzaMissing, RepositoryMismatch, and what `prepare` raises.
        """
        if not needs_upgrade(self._info_to_write(), self.identity()):
            return False
        upgrade_stanza(self._write())
        return True

    def identity(self) -> ClusterIdentity:
        """The source cluster's, asked from the server."""
        with closing(connect(self.connection, application_name="lifeboat pgbackrest", autocommit=True)) as session:
            return ClusterIdentity(system_identifier(session), server_major(session))

    def take(self, folder: Path, kind: BackupType, label: str, parent: Parent | None, watch: Watch) -> Taken:
        """Run `pgbackrest backup`; see Engine.take. `label` only names the session, `folder` stays empty.

        Raises RepositoryBusy, RepositoryMismatch, StanzaMissing, ArchivingNotSet, WalNotArchived and
        IncrementalImpossible as well.
        """
        del folder
        info = self.open_stanza()
        self._refuse_other_parent(info, kind, parent)
        with closing(connect(self.connection, application_name=f"lifeboat {label}", autocommit=True)) as session:
            version, superuser, total_bytes = server_version(session), _superuser(session), _size(session)
        words = [f"--type={InfoType.of(kind)}"]
        if watch.identifier is not None:
            words.append(f"--annotation={ID_ANNOTATION}={watch.identifier}")
        reading = _Reading(watch, total_bytes)
        pgbackrest = self.program()
        try:
            pgbackrest.run(
                "backup",
                *words,
                doing=f"pgbackrest backup of {self.connection.redacted()}",
                level="detail",
                on_line=reading.read,
                on_tick=watch.on_tick,
            )
        except LabelNotLater as error:
            # Until the next full one, where a newer full one was expired: that of a failed run.
            raise (error if kind is BackupType.FULL else IncrementalImpossible(error.message)) from error
        now = self._clock()
        if reading.label is None:
            raise EngineFailed("pgbackrest ended without naming the backup that it has taken")
        taken = self._describe(pgbackrest, reading.label, superuser, version)
        return replace(taken, stopped_at=min((each for each in (taken.stopped_at, now) if each), default=None))

    def restore_files(self, repository: BackupRepository, chain: list[Manifest], target: Path, watch: Watch) -> None:
        """Restore the last backup of `chain`, tablespaces to `<target>.tablespaces`; see Engine.restore_files.

        Raises RepositoryBusy and StanzaMissing as well. pgBackRest checks every file against its own manifest.
        """
        del repository
        last = chain[-1]
        reading = _Reading(watch, int(last.details.get("cluster_bytes") or 0) or None)
        restore_backup(self.reader(), last, target, on_line=reading.read, on_tick=watch.on_tick)

    def restore_over(
        self, manifest: Manifest, target: Path, watch: Watch, tablespaces: Mapping[str, Path] | None = None
    ) -> None:
        """Restore into a data directory that holds another state of the same cluster, copying only what differs.

        The server there must be stopped. `tablespaces` says where each goes, by OID (default: as `restore_files`);
        raises as `restore_files` does.
        """
        reading = _Reading(watch, int(manifest.details.get("cluster_bytes") or 0) or None)
        restore_backup(
            self.reader(),
            manifest,
            target,
            tablespaces=tablespaces,
            delta=True,
            on_line=reading.read,
            on_tick=watch.on_tick,
        )

    def restore_command(self, target: Path) -> str:
        """What gets archived WAL for the cluster that was restored to `target`; see PgBackRest.restore_command.

        Where archiving is asynchronous, so is this, through the folder `<target>.spool`: call `remove_spool` after
        recovery.
        """
        if not self.settings.archive_async:
            return self.reader().restore_command()
        ahead = spool_folder(target)
        return self.reader().restore_command(make_private_dir(ahead, self.tools.user))

    def remove_spool(self, target: Path) -> None:
        """After recovery: end what still gets WAL ahead for `target`, and remove its folder; nothing where none is."""
        ahead = spool_folder(target)
        if not ahead.exists():
            return
        # It ends the processes whose locks are there, and no others.
        self.reader().run("stop", "--force", f"--lock-path={ahead}", doing=f"ending the reading ahead to {ahead}")
        shutil.rmtree(ahead)

    def info(self) -> StanzaInfo:
        """What the repository has, asked without the server."""
        return read_info(self.reader())

    def _info_to_write(self) -> StanzaInfo:
        # Asked without the server's configuration: archive_command uses that one, and it is written only for a
        # server that the repository belongs to.
        self.refuse_copy()
        reader = self.reader()
        reader.version()
        return read_info(reader)

    def _write(self) -> PgBackRest:
        write_configuration(self.folders.config, self.configuration(), self.tools.user)
        return self.program()

    def _program(self, config: Path) -> PgBackRest:
        passphrase = self.settings.cipher_passphrase
        password = self.connection.parameters.get("password")
        variables = {key: value for key, value in self.connection.env().items() if key in {"PGPASSWORD", "PGPASSFILE"}}
        return PgBackRest(
            program=find_program(self.settings.program),
            stanza=self.stanza,
            config=config,
            user=self.tools.user,
            timeout_seconds=self.timeout_seconds,
            secrets=tuple(word for word in (passphrase.get_secret_value() if passphrase else None, password) if word),
            environment=variables,
        )

    def _refuse_other_parent(self, info: StanzaInfo, kind: BackupType, parent: Parent | None) -> None:
        if kind is BackupType.FULL:
            return
        # pgBackRest chooses what it builds on, and makes a full one without a word where there is nothing.
        prior = info.prior_for(kind)
        if prior is None:
            raise IncrementalImpossible(f"stanza {self.stanza} has nothing that a backup of type {kind} could build on")
        if parent is not None and parent.manifest.label != prior:
            raise IncrementalImpossible(
                f"pgBackRest would build on {prior}, and the newest sound backup is {parent.manifest.label}"
            )

    def _clock(self) -> datetime | None:
        with suppress(LifeboatError), closing(connect(self.connection, autocommit=True)) as session:
            return servers_clock(session)
        return None

    def _describe(self, pgbackrest: PgBackRest, label: str, superuser: str, version: str) -> Taken:
        backup = read_info(pgbackrest, label).find(label)
        if backup is None:
            raise EngineFailed(f"pgbackrest has taken {label}, but its info does not list it")
        return describe_backup(
            self.where,
            read_info(pgbackrest),
            backup,
            superuser=superuser,
            pg_version=version,
            compression=self.settings.compress_type,
            holds_wal=self.settings.archive_copy,
        )


class _Reading:
    """Picks the begin, the progress and the label out of what pgBackRest prints."""

    def __init__(self, watch: Watch, total_bytes: int | None) -> None:
        self._watch, self._total = watch, total_bytes
        self._on_line: Callable[[str], None] = watch.on_line
        self.label: str | None = None

    def read(self, line: str) -> None:
        """Take one line of its stderr."""
        self._on_line(line)
        if (done := _PROGRESS.search(line)) is not None:
            if self._total is not None:
                self._watch.on_progress(Progress(round(self._total * float(done[1]) / 100), self._total))
        elif _BEGUN in line:
            self._watch.on_begun()
        elif (found := _LABEL.search(line)) is not None:
            self.label = found[1]


def _superuser(session: psycopg.Connection) -> str:
    # Whoever restores needs a role to connect as: the one that initdb made, whatever it is called now (OID 10).
    return str(single_value(session, "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10"))


def _size(session: psycopg.Connection) -> int:
    query = "SELECT sum(pg_catalog.pg_database_size(oid))::bigint FROM pg_catalog.pg_database WHERE datallowconn"
    return int(single_value(session, query) or 0)
