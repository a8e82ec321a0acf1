"""Settings of the catalog's database."""

from pydantic import Field, SecretStr

from lifeboat.settings.base import Section


class CatalogSettings(Section):
    """Section [catalog]."""

    dsn: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="libpq connection string or URL of the catalog's database; the platform's when not set",
    )
    connect_timeout_seconds: int = Field(
        default=5,
        ge=2,
        le=300,
        description="How long a connection to the catalog may take before the work goes on without it",
    )
