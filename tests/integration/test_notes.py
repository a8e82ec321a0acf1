"""Notes and named points in storage and catalog: storage decides, and what was changed there is not believed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.catalog.values import AnnotationKind
from lifeboat.errors import SettingsError
from lifeboat.operations.backup.marks import gather_marks
from lifeboat.operations.installation import Installation
from lifeboat.operations.points.notes import NoSuchNote, add_note, list_notes, remove_note
from lifeboat.operations.reconcile import reconcile
from lifeboat.postgres.connections import connect

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def noted(installation: Installation) -> list[str]:
    """The catalog's notes."""
    rows = installation.catalog.annotations.between("studio", [AnnotationKind.NOTE], None, None, limit=10)
    return [row.text for row in rows]


def files(installation: Installation) -> list[Path]:
    return sorted((installation.destination().path / "studio" / "notes").glob("*.json"))


def test_a_note_is_in_storage_and_catalog_until_it_is_taken_back(installation: Installation) -> None:
    later = add_note(installation, NOON + timedelta(hours=1), "  the import\n ended ")
    first = add_note(installation, NOON, "the import begins", actor="ada")
    assert [note.text for note in list_notes(installation)] == ["the import begins", "the import ended"]
    assert noted(installation) == ["the import begins", "the import ended"]
    assert first.actor == "ada"
    assert later.actor.startswith("lifeboat command of ")

    assert remove_note(installation, str(first.id)[:8]) == first
    assert [note.id for note in list_notes(installation)] == [later.id]
    assert noted(installation) == ["the import ended"]
    # Nothing that storage was told is forgotten there.
    assert len(files(installation)) == 3
    with pytest.raises(NoSuchNote, match="no note has an id that begins with"):
        remove_note(installation, str(first.id))
    with pytest.raises(NoSuchNote):
        remove_note(installation, str(later.id)[:3])


@pytest.mark.parametrize("text", ["", " \n", "x" * 2001])
def test_a_note_says_something_and_is_no_book(installation: Installation, text: str) -> None:
    with pytest.raises(SettingsError, match="a note has 1 to 2000 characters"):
        add_note(installation, NOON, text)


def test_the_catalog_gets_what_it_missed(installation: Installation) -> None:
    kept = add_note(installation, NOON, "kept")
    gone = add_note(installation, NOON, "gone")
    with connect(installation.source, autocommit=True) as session:
        session.execute("ALTER TABLE lifeboat.annotations RENAME TO away")
        add_note(installation, NOON, "told while the catalog was away")
        remove_note(installation, str(gone.id))
        session.execute("ALTER TABLE lifeboat.away RENAME TO annotations")
    assert sorted(noted(installation)) == ["gone", "kept"]
    told = reconcile(installation).annotations
    assert told == ["told while the catalog was away", f"{gone.id} taken back"]
    assert sorted(noted(installation)) == ["kept", "told while the catalog was away"]
    assert reconcile(installation).annotations == []
    with connect(installation.source, autocommit=True) as session:
        session.execute("TRUNCATE lifeboat.annotations")
    assert sorted(reconcile(installation).annotations) == ["kept", "told while the catalog was away"]
    rows = installation.catalog.annotations.between("studio", [AnnotationKind.NOTE], NOON, NOON, limit=10)
    assert kept.id in {row.id for row in rows}


def test_a_changed_note_is_told_and_not_believed(installation: Installation) -> None:
    add_note(installation, NOON, "believe me")
    add_note(installation, NOON + timedelta(minutes=1), "and me")
    first, _ = files(installation)
    first.write_text(first.read_text().replace("believe me", "believe us"))
    hour = timedelta(hours=1)
    marks, missing = gather_marks(installation, installation.repository(), NOON - hour, NOON + hour)
    assert [mark.text for mark in marks] == ["and me"]
    (told,) = missing
    assert "is not signed by a trusted key" in told
    # What cannot be read is no reason to take a row away.
    assert reconcile(installation).annotations == []
    assert noted(installation) == ["believe me", "and me"]
