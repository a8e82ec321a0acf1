"""All settings of one installation."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lifeboat.settings.agent import AgentSettings
from lifeboat.settings.assets import AssetSettings
from lifeboat.settings.backups import BackupSettings, EngineSettings
from lifeboat.settings.base import AbsolutePath, Name
from lifeboat.settings.catalog import CatalogSettings
from lifeboat.settings.configuration import ConfigurationSettings
from lifeboat.settings.destinations import DestinationSettings
from lifeboat.settings.drills import DrillSettings
from lifeboat.settings.platform import PlatformSettings
from lifeboat.settings.prefect import PrefectSettings
from lifeboat.settings.retention import RetentionSettings
from lifeboat.settings.signing import SigningSettings
from lifeboat.settings.wal import WalSettings


class Settings(BaseSettings):
    """lifeboat.toml and the environment (`LIFEBOAT_<SECTION>__<KEY>`), checked as a whole."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="LIFEBOAT_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
        hide_input_in_errors=True,
    )

    state_dir: AbsolutePath = Field(description="Lifeboat's own files: keys, scratch clusters, Prefect's home.")
    platform: PlatformSettings
    destinations: dict[Name, DestinationSettings] = Field(min_length=1)
    catalog: CatalogSettings = CatalogSettings()
    backup: BackupSettings = BackupSettings()
    engines: EngineSettings = EngineSettings()
    wal: WalSettings = WalSettings()
    agent: AgentSettings = AgentSettings()
    configuration: ConfigurationSettings = ConfigurationSettings()
    assets: AssetSettings = AssetSettings()
    drills: DrillSettings = DrillSettings()
    retention: RetentionSettings = RetentionSettings()
    prefect: PrefectSettings = PrefectSettings()
    signing: SigningSettings = SigningSettings()

    @model_validator(mode="after")
    def _destinations_exist(self) -> Self:
        for where, name in (("backup.destination", self.backup.destination), ("wal.destination", self.wal.destination)):
            if name not in self.destinations:
                raise ValueError(f"{where} names {name!r}, but there is only {', '.join(sorted(self.destinations))}")
        return self

    @model_validator(mode="after")
    def _pgbackrest_has_what_it_needs(self) -> Self:
        if self.backup.engine != "pgbackrest":
            return self
        if self.platform.embedded:
            raise ValueError(
                "backup.engine: pgBackRest backs up a server of your own (`platform.dsn`), no embedded one"
            )
        if not self.wal.archive:
            raise ValueError("wal.archive must be true: pgBackRest's backups need the WAL that it archives")
        if self.wal.receive:
            raise ValueError(
                "wal.receive must be false: pgBackRest's repository takes WAL from archive_command only, never from a "
                "receiver"
            )
        if self.wal.destination != self.backup.destination:
            raise ValueError(
                "wal.destination and backup.destination must be the same: pgBackRest keeps both in one repository"
            )
        return self

    @property
    def pgbackrest_archives(self) -> bool:
        """Whether the platform's WAL goes into pgBackRest's repository instead of Lifeboat's own archive."""
        return self.backup.engine == "pgbackrest"

    @property
    def signing_key_file(self) -> Path:
        """The private key that signs manifests."""
        return self.signing.key_file or self.state_dir / "keys" / "signing.pem"

    @property
    def scratch_dir(self) -> Path:
        """Where scratch clusters live."""
        return self.state_dir / "scratch"
