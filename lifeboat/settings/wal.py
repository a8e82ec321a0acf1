"""Settings of WAL archiving (`[wal]` in lifeboat.toml)."""

from pydantic import Field

from lifeboat.settings.base import AbsolutePath, Name, Section


class WalHealthSettings(Section):
    """Section [wal.health]: from when on the `wal-health` flow finds something wrong; bytes and seconds."""

    max_lag_seconds: float = Field(
        120.0, gt=0, description="A finished segment that waits longer to be archived is an alert."
    )
    max_lag_segments: int = Field(
        16, ge=0, description="More finished segments that wait to be archived than this are a warning."
    )
    max_slot_retained_bytes: int = Field(
        4 * 1024**3, ge=0, description="A replication slot that keeps more WAL than this is an alert."
    )
    min_slot_safe_bytes: int = Field(
        32 * 1024**2,
        ge=0,
        description="A replication slot that is this close to losing WAL (max_slot_wal_keep_size) is an alert.",
    )


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
    verify_max_age_days: float = Field(
        30.0, gt=0, description="`wal verify` reads an archived segment again when it was read this long ago."
    )
    verify_max_seconds: float = Field(
        3600.0, gt=0, description="A scheduled `wal-verify` begins nothing new after this long; the next run goes on."
    )
    bulk_rows: int = Field(
        1000, ge=1, description="`wal index` notes a transaction that deletes or updates this many rows of one table."
    )
    receive: bool = Field(
        False, description="`lifeboat wal receive` streams WAL through a physical slot, beside or instead of archiving."
    )
    receive_slot: str = Field(
        "lifeboat_receive", pattern=r"^[a-z0-9_]{1,63}$", description="The physical replication slot of the receiver."
    )
    health: WalHealthSettings = WalHealthSettings()
