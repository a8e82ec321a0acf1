"""The parts of one installation, built from its settings: what every operation starts from."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lifeboat import commands
from lifeboat.catalog.store import Catalog
from lifeboat.engines.basebackup import BaseBackupEngine
from lifeboat.engines.engine import Engine
from lifeboat.engines.pg_dump import PgDumpEngine
from lifeboat.engines.pgbackrest.configuration import Folders
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.errors import SettingsError
from lifeboat.postgres.binaries import PgTools, discover_bin_dir, reachable_bin_dir
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.postgres.embedded import EmbeddedServer
from lifeboat.settings.loading import find_settings_file, load_settings
from lifeboat.settings.root import Settings
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.storage.repository import BackupRepository
from lifeboat.storage.signing import Signer, TrustedKeys

LOG = logging.getLogger("lifeboat")


@dataclass(frozen=True)
class Installation:
    """Settings and the objects that follow from them; nothing connects or writes before it is used."""

    settings: Settings
    settings_file: Path | None = None

    @classmethod
    def load(cls, path: Path | None = None) -> "Installation":
        """Read the settings; raises SettingsError."""
        found = find_settings_file(path)
        return cls(load_settings(found), found)

    @cached_property
    def run_as(self) -> str | None:
        """The account of PostgreSQL's programs where we are root."""
        return commands.effective_user(self.settings.platform.run_as)

    @cached_property
    def embedded(self) -> EmbeddedServer:
        """The embedded server; raises SettingsError when settings name another source."""
        if not self.settings.platform.embedded:
            raise SettingsError("the platform is not the embedded PostgreSQL", hint="Set `platform.embedded = true`.")
        platform = self.settings.platform
        return EmbeddedServer(
            self.settings.state_dir / "postgresql",
            tcp_port=platform.embedded_port,
            bin_dir=platform.bin_dir,
            run_as=platform.run_as,
        )

    @cached_property
    def tools(self) -> PgTools:
        """PostgreSQL's programs, run by an account that may run them."""
        if self.settings.platform.embedded:
            return self.embedded.tools
        found = discover_bin_dir(self.settings.platform.bin_dir)
        return PgTools(reachable_bin_dir(found, self.run_as, self.settings.state_dir / "programs"), self.run_as)

    @cached_property
    def source(self) -> ConnectionInfo:
        """The connection to the platform's database."""
        platform = self.settings.platform
        if platform.embedded:
            return ConnectionInfo.parse(self.embedded.dsn(platform.database))
        if platform.dsn is None:
            raise SettingsError("`platform.dsn` is not set", hint="Set it, or `platform.embedded = true`.")
        return ConnectionInfo.parse(platform.dsn.get_secret_value())

    @property
    def catalog_connection(self) -> ConnectionInfo:
        """Where the catalog is: in its own database, or in the platform's."""
        own = self.settings.catalog.dsn
        return ConnectionInfo.parse(own.get_secret_value()) if own else self.source

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog."""
        return Catalog(
            self.catalog_connection,
            connect_timeout_seconds=self.settings.catalog.connect_timeout_seconds,
        )

    @cached_property
    def signer(self) -> Signer:
        """The key that signs what we write; made when something is written first."""
        return Signer.load_or_create(self.settings.signing_key_file)

    def destination(self, name: str | None = None) -> FilesystemDestination:
        """A destination by name, the default one without; raises SettingsError for an unknown name."""
        wanted = name or self.settings.backup.destination
        found = self.settings.destinations.get(wanted)
        if found is None:
            known = ", ".join(sorted(self.settings.destinations))
            raise SettingsError(f"there is no destination {wanted!r}", hint=f"lifeboat.toml has: {known}.")
        return FilesystemDestination(
            wanted, found.path, minimum_free_bytes=found.minimum_free_bytes, owner=self.run_as, mount=found.mount
        )

    def repository(self, destination: str | None = None) -> BackupRepository:
        """The cluster's backups at a destination, to be read; `writable_repository` can sign what it writes."""
        key_file = self.settings.signing_key_file
        # Who only reads, perhaps on a recovery host, needs no key of its own and must not get one.
        return self._repository(destination, Signer.load(key_file) if key_file.exists() else None)

    def writable_repository(self, destination: str | None = None) -> BackupRepository:
        """The cluster's backups at a destination, to be written too; makes the signing key where there is none."""
        return self._repository(destination, self.signer)

    def _repository(self, destination: str | None, signer: Signer | None) -> BackupRepository:
        trusted = TrustedKeys.of(signer, self.settings.signing.trusted_keys)
        return BackupRepository(self.destination(destination), self.settings.platform.cluster, signer, trusted)

    def engine(self, name: str | None = None, destination: str | None = None) -> Engine:
        """An engine by name, the default one without; raises SettingsError for an unknown name.

        `destination` is where an engine with a repository of its own has that.
        """
        wanted = name or self.settings.backup.engine
        if wanted == "basebackup":
            return self.basebackup
        if wanted == "pg_dump":
            return self.pg_dump
        if wanted == "pgbackrest":
            return self.pgbackrest(destination)
        hint = "The engines are basebackup, pgbackrest and pg_dump."
        raise SettingsError(f"there is no engine {wanted!r}", hint=hint)

    def pgbackrest(self, destination: str | None = None) -> PgBackRestEngine:
        """The engine `pgbackrest`: its repository is at the default destination, others may have a copy of it."""
        settings, cluster = self.settings.engines.pgbackrest, self.settings.platform.cluster
        path = self.destination(destination).path
        copy = destination if destination not in {None, self.settings.backup.destination} else None
        return PgBackRestEngine(
            tools=self.tools,
            connection=self.source,
            settings=settings,
            folders=Folders.of(
                settings, cluster=cluster, destination=path, state_dir=self.settings.state_dir, copy=copy
            ),
            cluster=cluster,
            timeout_seconds=self.settings.backup.timeout_seconds,
            cluster_folder=path / cluster,
            copy=copy,
        )

    @cached_property
    def basebackup(self) -> BaseBackupEngine:
        """The engine `basebackup`."""
        settings = self.settings
        return BaseBackupEngine(self.tools, self.source, settings.engines.basebackup, settings.backup.timeout_seconds)

    @cached_property
    def pg_dump(self) -> PgDumpEngine:
        """The engine `pg_dump`."""
        settings = self.settings
        return PgDumpEngine(self.tools, self.source, settings.engines.pg_dump, settings.backup.timeout_seconds)
