"""Notes: what somebody knows about a moment, for whoever looks for one to restore to. Storage first, then catalog."""

from datetime import UTC, datetime
from uuid import uuid4

from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import Installation
from lifeboat.operations.journal import command_actor, note_annotation, read_only_journal, writable_journal
from lifeboat.operations.recording import best_effort
from lifeboat.storage.journal import NoteRecord, NoteRemoval

_LONGEST_TEXT = 2000
_SHORTEST_ID = 4


class NoSuchNote(PermanentError):
    """No note, or more than one, has an id that begins so."""


def add_note(installation: Installation, at: datetime, text: str, *, actor: str | None = None) -> NoteRecord:
    """Remember a note on a moment; raises SettingsError for a text that is none, ManifestError, the destination's."""
    words = " ".join(text.split())
    if not words or len(words) > _LONGEST_TEXT:
        raise SettingsError(f"a note has 1 to {_LONGEST_TEXT} characters, this one {len(words)}")
    journal = writable_journal(installation)
    record = NoteRecord(id=uuid4(), at=at, text=words, actor=command_actor(actor), recorded_at=datetime.now(UTC))
    journal.add_note(record)
    with best_effort("the note"):
        installation.catalog.annotations.record(note_annotation(journal.cluster, record))
        installation.catalog.audit.append(
            actor=record.actor, action="add note", object=f"note {record.id}", after={"at": str(at), "text": words}
        )
    return record


def list_notes(installation: Installation) -> list[NoteRecord]:
    """The notes that hold, from storage, oldest first; raises the destination's errors."""
    return read_only_journal(installation).notes(tell_fault)


def remove_note(installation: Installation, wanted: str, *, actor: str | None = None) -> NoteRecord:
    """Take a note back, by its id or the beginning of it; raises NoSuchNote, ManifestError, the destination's."""
    journal = writable_journal(installation)
    beginning = wanted.strip().lower()
    found = [record for record in journal.notes(tell_fault) if str(record.id).startswith(beginning)]
    if len(beginning) < _SHORTEST_ID or len(found) != 1:
        count = "no note has" if not found else f"{len(found)} notes have"
        raise NoSuchNote(
            f"{count} an id that begins with {wanted!r}",
            hint=f"`lifeboat note list` shows ids; give {_SHORTEST_ID} or more digits of one.",
        )
    (record,) = found
    who = command_actor(actor)
    journal.remove_note(record, NoteRemoval(id=record.id, actor=who, removed_at=datetime.now(UTC)))
    with best_effort("the end of the note"):
        installation.catalog.annotations.remove(journal.cluster, [record.id])
        installation.catalog.audit.append(
            actor=who, action="remove note", object=f"note {record.id}", before={"text": record.text}
        )
    return record
