"""The platform to protect: its PostgreSQL cluster and how its programs are found and run."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from lifeboat.settings.base import Section


class PlatformSettings(Section):
    """Section [platform]."""

    cluster: str = Field(
        default="main",
        pattern=r"^[a-z0-9_-]+$",
        max_length=63,
        description="Name of the cluster: the folder of its backups in every destination",
    )
    dsn: SecretStr | None = Field(
        default=None,
        description="libpq connection string or URL of the source, not through a connection pooler",
    )
    embedded: bool = Field(default=False, description="Run our own PostgreSQL 18 and protect that; excludes `dsn`")
    embedded_port: int | None = Field(
        default=None,
        ge=1024,
        le=65535,
        description="Port on 127.0.0.1 for the embedded server, beside its unix socket; none by default",
    )
    database: str = Field(
        default="postgres",
        min_length=1,
        description="The platform's database in the embedded server; `dsn` names its own",
    )
    bin_dir: Path | None = Field(
        default=None, description="Folder of pg_dump, pg_ctl and the rest; found by itself when not set"
    )
    run_as: str | None = Field(
        default=None,
        description="Account for PostgreSQL's programs when Lifeboat runs as root; postgres by default",
    )

    audit_query: str | None = Field(
        default=None,
        min_length=1,
        description="What people did on the platform, for restore points: rows of at, text and, if you like, actor; "
        "`:from` and `:to` are the bounds that are asked for",
    )
    audit_timeout_seconds: float = Field(default=5.0, gt=0, le=300, description="How long the audit query may take")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.embedded and self.dsn is not None:
            raise ValueError("`embedded` and `dsn` exclude each other: remove one of them")
        if self.embedded_port is not None and not self.embedded:
            raise ValueError("`embedded_port` needs `embedded = true`")
        return self
