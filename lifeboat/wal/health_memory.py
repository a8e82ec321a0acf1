"""What looks at the archive remember from one to the next: the losses told of, and the wish for a full backup.

It lies at the destination beside the archive: whoever takes the next backup, on whatever machine, finds the wish.
"""

from collections.abc import Collection
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

from lifeboat.storage.destination import Destination, ObjectMissing

FORMAT_VERSION = 1
HEALTH_NAME = "wal-health.json"


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FullWanted(_Stored):
    """The next differential or incremental backup should be a full one, unless one began after `since`."""

    reason: str
    since: AwareDatetime


class HealthMemory(_Stored):
    """`known` has the keys of holes (health.Hole.key) that were told of, with the time when they were seen first.

    `heartbeat_absent_since` is when an agent was expected first that has never shown itself.
    """

    format_version: int = FORMAT_VERSION
    known: dict[str, AwareDatetime] = {}
    full_wanted: FullWanted | None = None
    heartbeat_absent_since: AwareDatetime | None = None

    def wishing(self, full_wanted: str | None, now: datetime) -> "HealthMemory":
        """The same with another wish. One that goes on keeps its time; a full backup for another reason is another."""
        if self.full_wanted is not None and self.full_wanted.reason == full_wanted:
            return self
        wish = FullWanted(reason=full_wanted, since=now) if full_wanted is not None else None
        return self.model_copy(update={"full_wanted": wish})

    def told(self, holes: Collection[str], now: datetime, *, heartbeat_absent: bool = False) -> "HealthMemory":
        """What to remember once somebody was told of these holes."""
        absent_since = (self.heartbeat_absent_since or now) if heartbeat_absent else None
        known = {key: self.known.get(key, now) for key in sorted(holes)}
        return self.model_copy(update={"known": known, "heartbeat_absent_since": absent_since})


def load_memory(destination: Destination, cluster: str) -> HealthMemory:
    """What is remembered; raises the destination's errors.

    A file that cannot be understood is one that says nothing: all that is wrong is told of again.
    """
    try:
        return HealthMemory.model_validate_json(destination.read(f"{cluster}/{HEALTH_NAME}"))
    except (ObjectMissing, ValueError):
        return HealthMemory()


def store_memory(destination: Destination, cluster: str, memory: HealthMemory) -> None:
    """Replace what is remembered, durably; raises the destination's errors."""
    destination.put(f"{cluster}/{HEALTH_NAME}", memory.model_dump_json(indent=1).encode() + b"\n")
