"""The cluster's journal at the default destination, and its index in the catalog's annotations."""

import getpass
from collections.abc import Callable

from lifeboat.catalog.values import AnnotationKind, AnnotationRow
from lifeboat.operations.installation import LOG, Installation
from lifeboat.storage.journal import ClusterJournal, Fault, NoteRecord, PointRecord
from lifeboat.storage.repository import BackupRepository


def read_only_journal(installation: Installation) -> ClusterJournal:
    """The journal, to be read; it needs no key of ours."""
    return _journal_of(installation.repository())


def writable_journal(installation: Installation) -> ClusterJournal:
    """The journal, to be written too; makes the signing key where there is none."""
    return _journal_of(installation.writable_repository())


def command_actor(given: str | None) -> str:
    """Who does something: as given, or whoever runs the command line."""
    return given or f"lifeboat command of {getpass.getuser()}"


def note_annotation(cluster: str, record: NoteRecord) -> AnnotationRow:
    """The catalog's row of a note."""
    return AnnotationRow(record.id, cluster, record.at, None, AnnotationKind.NOTE, record.text, record.actor)


def point_annotation(cluster: str, record: PointRecord) -> AnnotationRow:
    """The catalog's row of a named restore point."""
    detail = {"name": record.name, "timeline": record.timeline, "lsn": record.lsn}
    text = f"restore point {record.name}"
    kind = AnnotationKind.RESTORE_POINT
    return AnnotationRow(record.id, cluster, record.at, None, kind, text, record.actor, detail_json=detail)


def reconcile_journal(installation: Installation) -> list[str]:
    """Make the catalog's annotations those of the journal; returns the texts of those added, the ids of those removed.

    Raises CatalogError and the destination's errors.
    """
    journal, store = read_only_journal(installation), installation.catalog.annotations
    cluster, faults = journal.cluster, list[Fault]()
    notes = [note_annotation(cluster, record) for record in journal.notes(faults.append)]
    points = [point_annotation(cluster, record) for record in journal.points(faults.append)]
    for fault in faults:
        LOG.error("the journal of %s cannot be trusted as a whole: %s", cluster, fault.message)
    rows = {row.id: row for row in (*notes, *points)}
    known = store.ids(cluster, [AnnotationKind.NOTE, AnnotationKind.RESTORE_POINT])
    added = [row.text for identity, row in rows.items() if identity not in known and store.record(row)]
    # Only what storage says was taken back: another row may stand for something that cannot be read now.
    taken_back = journal.removed_notes(faults.append) & known
    if taken_back:
        store.remove(cluster, taken_back)
    return [*added, *(f"{identity} taken back" for identity in sorted(taken_back))]


def tell_untrusted(missing: list[str], what: str) -> Callable[[Fault], None]:
    """Takes what cannot be trusted into a list of what is missing."""
    return lambda fault: missing.append(f"{what}: {fault.message}")


def _journal_of(repository: BackupRepository) -> ClusterJournal:
    return ClusterJournal(repository.destination, repository.cluster, repository.signer, repository.trusted)
