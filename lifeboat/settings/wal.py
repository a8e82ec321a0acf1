"""Settings of WAL archiving (`[wal]` in lifeboat.toml)."""

from pydantic import Field

from lifeboat.settings.base import AbsolutePath, Name, Section


class WalSettings(Section):
    """How finished WAL segments reach the archive and how backups wait for them."""

    archive: bool = Field(True, description="Archive WAL: point-in-time recovery needs it.")
    destination: Name = Field("primary", description="The destination that holds the WAL archive.")
    compression_level: int = Field(
        1, ge=0, le=9, description="gzip level of archived segments; above 1 costs time and saves little."
    )
    archive_timeout_seconds: int = Field(
        30, ge=0, description="Longest time that a commit on a quiet server stays unarchived; 0 is no limit."
    )
    segment_timeout_seconds: float = Field(
        300.0, gt=0, description="Longest time that a backup waits for its last segment to be archived."
    )
    fetch_retries: int = Field(
        4, ge=0, le=10, description="How often a fetch tries again before it stops the server's recovery."
    )
    fetch_retry_delay_seconds: float = Field(
        0.5, ge=0, le=60, description="Pause before the first retry of a fetch; it doubles each time."
    )
    python: AbsolutePath | None = Field(
        None,
        description="Python >= 3.9 that the server's account can execute; nothing means one is looked for.",
    )
    minimum_free_bytes: int = Field(
        256 * 1024 * 1024,
        ge=0,
        description="Free bytes at the destination below which archiving fails loudly.",
    )
