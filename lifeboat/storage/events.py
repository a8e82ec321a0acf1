"""What becomes true of a backup after it was made, as signed append-only objects under `<label>/events/`."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime

from lifeboat.storage.manifest import ManifestError, StrictModel


class EventKind(StrEnum):
    """The facts that storage remembers of a backup."""

    VERIFIED = "verified"
    DRILL_FAILED = "drill-failed"
    PINNED = "pinned"
    UNPINNED = "unpinned"
    SUSPECT = "suspect"
    CLEARED = "cleared"
    EXPIRED = "expired"
    NOTE = "note"


class Event(StrictModel):
    """One fact about one backup."""

    format_version: int = 1
    kind: EventKind
    at: AwareDatetime
    backup_id: UUID
    label: str
    detail: dict[str, Any] = {}

    def object_name(self) -> str:
        """A name that sorts by time and is never used twice."""
        stamp = self.at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{stamp}-{self.kind}-{secrets.token_hex(4)}.json"


def encode_event(event: Event) -> bytes:
    """The bytes that are signed and stored."""
    return event.model_dump_json(indent=2).encode() + b"\n"


def decode_event(data: bytes, *, where: str) -> Event:
    """Parse a stored event; raises ManifestError that names `where`."""
    try:
        return Event.model_validate_json(data)
    except ValueError as error:
        raise ManifestError(f"cannot read the event {where}: {str(error).splitlines()[0]}") from error


@dataclass(frozen=True)
class BackupState:
    """What a backup's events add up to."""

    verified_at: datetime | None = None
    failed_drill_at: datetime | None = None
    pinned: bool = False
    suspect: bool = False
    expired_at: datetime | None = None

    @property
    def verified(self) -> bool:
        """Whether the last word on it is a passed restore drill (DESIGN principle 2)."""
        if self.verified_at is None:
            return False
        return self.failed_drill_at is None or self.failed_drill_at < self.verified_at

    @classmethod
    def of(cls, events: Iterable[Event]) -> "BackupState":
        """Fold events in the order of their time."""
        at: dict[EventKind, datetime] = {}
        for event in sorted(events, key=lambda item: item.at):
            at[event.kind] = event.at

        def holds(on: EventKind, off: EventKind) -> bool:
            return on in at and (off not in at or at[on] > at[off])

        return cls(
            verified_at=at.get(EventKind.VERIFIED),
            failed_drill_at=at.get(EventKind.DRILL_FAILED),
            pinned=holds(EventKind.PINNED, EventKind.UNPINNED),
            suspect=holds(EventKind.SUSPECT, EventKind.CLEARED),
            expired_at=at.get(EventKind.EXPIRED),
        )
