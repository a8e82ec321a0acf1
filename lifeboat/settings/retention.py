"""Settings of retention: what is kept, beside what the guards keep in any case."""

from pydantic import Field

from lifeboat.settings.base import Section


class RetentionSettings(Section):
    """The rules; the guards of DESIGN principle 4 hold whatever is set here."""

    keep_last: int = Field(7, ge=1, description="How many of the newest backup chains of each engine are kept.")
    keep_days: int = Field(30, ge=0, description="Backups younger than this many days are kept.")
    unfinished_hours: float = Field(24, ge=0, description="Unfinished folders older than this are removed.")
