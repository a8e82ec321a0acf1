"""What is remembered of a cluster beside its backups: named restore points, and people's notes on moments.

Signed append-only objects at `<cluster>/points/` and `<cluster>/notes/`; a note that was taken back has a second object
that says so. Storage is the truth, the catalog's annotations are an index of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from lifeboat.storage.destination import Destination, ObjectMissing
from lifeboat.storage.manifest import ManifestError, StrictModel
from lifeboat.storage.signed_objects import put_signed, read_signed
from lifeboat.storage.signing import Signer, TrustedKeys

_REMOVED = "-removed.json"


class PointRecord(StrictModel):
    """A named restore point: recovery can stop at the record in WAL that ends at `lsn`."""

    format_version: int = 1
    id: UUID
    name: str
    at: AwareDatetime
    timeline: int = Field(ge=1)
    lsn: str
    system_identifier: str
    actor: str


class NoteRecord(StrictModel):
    """What somebody says about a moment; `recorded_at` is when it was said."""

    format_version: int = 1
    id: UUID
    at: AwareDatetime
    text: str
    actor: str
    recorded_at: AwareDatetime


class NoteRemoval(StrictModel):
    """Says that a note no longer holds."""

    format_version: int = 1
    id: UUID
    actor: str
    removed_at: AwareDatetime


Fault = ManifestError | ObjectMissing
_Record = TypeVar("_Record", PointRecord, NoteRecord, NoteRemoval)


@dataclass(frozen=True)
class ClusterJournal:
    """Reads and writes the journal of `cluster`; every object is signed and checked.

    What cannot be trusted is told to `on_fault` and hides nothing else. Methods raise the destination's errors.
    """

    destination: Destination
    cluster: str
    signer: Signer | None
    trusted: TrustedKeys

    def add_point(self, record: PointRecord) -> None:
        """Remember a restore point, durably."""
        self._put(f"points/{_name(record.at, record.id)}.json", record)

    def points(self, on_fault: Callable[[Fault], None]) -> list[PointRecord]:
        """All restore points, oldest first."""
        return sorted(self._read_all("points", PointRecord, on_fault), key=lambda each: each.at)

    def add_note(self, record: NoteRecord) -> None:
        """Remember a note, durably."""
        self._put(f"notes/{_name(record.at, record.id)}.json", record)

    def remove_note(self, record: NoteRecord, removal: NoteRemoval) -> None:
        """Remember that a note no longer holds, durably."""
        self._put(f"notes/{_name(record.at, record.id)}{_REMOVED}", removal)

    def notes(self, on_fault: Callable[[Fault], None]) -> list[NoteRecord]:
        """The notes that hold, by the moments that they are about, oldest first."""
        removed = self.removed_notes(on_fault)
        found = [item for item in self._read_all("notes", NoteRecord, on_fault) if item.id not in removed]
        return sorted(found, key=lambda each: (each.at, each.recorded_at))

    def removed_notes(self, on_fault: Callable[[Fault], None]) -> set[UUID]:
        """The ids of notes that were taken back."""
        return {item.id for item in self._read_all("notes", NoteRemoval, on_fault)}

    def _put(self, name: str, record: StrictModel) -> None:
        data = record.model_dump_json(indent=2).encode() + b"\n"
        put_signed(self.destination, self.signer, f"{self.cluster}/{name}", data, exclusive=True)

    def _read_all(self, folder: str, kind: type[_Record], on_fault: Callable[[Fault], None]) -> Iterator[_Record]:
        prefix = f"{self.cluster}/{folder}"
        for name in self.destination.names(prefix):
            if not name.endswith(".json") or name.endswith(_REMOVED) is not (kind is NoteRemoval):
                continue
            try:
                yield self._read(f"{prefix}/{name}", kind)
            except (ManifestError, ObjectMissing) as error:
                on_fault(error)

    def _read(self, key: str, kind: type[_Record]) -> _Record:
        data = read_signed(self.destination, self.trusted, key)
        try:
            return kind.model_validate_json(data)
        except ValueError as error:
            raise ManifestError(
                f"cannot read {key}: {str(error).splitlines()[0]}",
                hint="It is damaged or was written by a newer Lifeboat.",
            ) from error


def _name(at: datetime, identity: UUID) -> str:
    """Sorts by time and is never used twice."""
    return f"{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}-{identity.hex}"
