"""What was happening around a moment: backups, drills, notes, notable WAL, the platform's own audit trail.

Each source is asked by itself, and one that does not answer hides no other.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from lifeboat.catalog.values import AnnotationKind
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.journal import read_only_journal, tell_untrusted
from lifeboat.recovery.audit_query import read_audit_trail
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.repository import BackupRepository, StoredBackup

MOST_MARKS = 1000


@dataclass(frozen=True)
class Mark:
    """Something that happened at `at`, or from then to `until_at`; on which timeline, where that is known.

    `xid` is the transaction that did it: `--xid` stops at it.
    """

    at: datetime
    until_at: datetime | None
    kind: AnnotationKind
    text: str
    actor: str | None = None
    timeline: int | None = None
    xid: int | None = None


def gather_marks(
    installation: Installation, repository: BackupRepository, start: datetime, end: datetime
) -> tuple[list[Mark], list[str]]:
    """All that touches `start` to `end`, oldest first, and what could not be asked."""
    missing: list[str] = []
    sources: dict[str, Callable[[], Iterable[Mark]]] = {
        "backups and drills": lambda: _of_backups(repository, missing),
        "notes": lambda: _of_notes(installation, missing),
        "notable WAL events": lambda: _of_wal(installation, start, end, missing),
        "the platform's audit trail": lambda: _of_audit(installation, start, end, missing),
    }
    marks: list[Mark] = []
    for what, ask in sources.items():
        try:
            marks += ask()
        except LifeboatError as error:
            missing.append(f"{what}: {error.message}")
    there = [mark for mark in marks if mark.at <= end and (mark.until_at or mark.at) >= start]
    return sorted(there, key=lambda mark: (mark.at, mark.text)), missing


def _of_backups(repository: BackupRepository, missing: list[str]) -> Iterator[Mark]:
    for stored in repository.sound_backups(lambda fault: missing.append(f"a backup: {fault.message}")):
        manifest = stored.manifest
        text = f"{manifest.type} backup {manifest.label} ({manifest.engine}){_proof(stored)}"
        yield Mark(manifest.started_at, manifest.completed_at, AnnotationKind.BACKUP, text, None, manifest.timeline)
        for event in repository.events(manifest.label):
            yield from _of_event(event)


def _proof(stored: StoredBackup) -> str:
    if stored.state.suspect:
        return ", suspect"
    return ", proven by a restore drill" if stored.state.verified else ""


def _of_event(event: Event) -> Iterator[Mark]:
    if event.kind is EventKind.VERIFIED:
        yield Mark(event.at, None, AnnotationKind.DRILL, f"restore drill of {event.label} passed")
    elif event.kind is EventKind.DRILL_FAILED:
        first = next(iter(event.detail.get("faults") or []), "it does not say why")
        yield Mark(event.at, None, AnnotationKind.DRILL, f"restore drill of {event.label} failed: {first}")
    elif event.kind is EventKind.NOTE:
        text, actor = event.detail.get("text"), event.detail.get("actor")
        yield Mark(event.at, None, AnnotationKind.NOTE, f"{event.label}: {text}", actor)


def _of_notes(installation: Installation, missing: list[str]) -> Iterator[Mark]:
    for record in read_only_journal(installation).notes(tell_untrusted(missing, "a note")):
        yield Mark(record.at, None, AnnotationKind.NOTE, record.text, record.actor)


def _of_wal(installation: Installation, start: datetime, end: datetime, missing: list[str]) -> Iterator[Mark]:
    cluster, kinds = installation.settings.platform.cluster, [AnnotationKind.WAL]
    rows = installation.catalog.annotations.between(cluster, kinds, start, end, limit=MOST_MARKS + 1)
    if len(rows) > MOST_MARKS:
        missing.append(f"notable WAL events: only the last {MOST_MARKS:,} are shown")
    for row in rows[-MOST_MARKS:]:
        detail = row.detail_json or {}
        timeline, xid = detail.get("timeline"), detail.get("xid")
        yield Mark(
            row.at,
            row.until_at,
            row.kind,
            row.text,
            row.actor,
            int(timeline) if timeline is not None else None,
            int(xid) if xid else None,
        )


def _of_audit(installation: Installation, start: datetime, end: datetime, missing: list[str]) -> Iterator[Mark]:
    platform = installation.settings.platform
    if platform.audit_query is None:
        return
    entries = read_audit_trail(
        installation.source,
        platform.audit_query,
        start,
        end,
        timeout_seconds=platform.audit_timeout_seconds,
        limit=MOST_MARKS + 1,
    )
    if len(entries) > MOST_MARKS:
        missing.append(f"the platform's audit trail: only the last {MOST_MARKS:,} entries are shown")
    for entry in entries[-MOST_MARKS:]:
        yield Mark(entry.at, None, AnnotationKind.AUDIT, entry.text, entry.actor)
