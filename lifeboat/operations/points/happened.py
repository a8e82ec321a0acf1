"""What storage and index say of what happened: where timelines began, and how far the index has read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from lifeboat.catalog.errors import CatalogError
from lifeboat.catalog.values import AnnotationKind, RestoreRow, RestoreStatus, RestoreTarget
from lifeboat.catalog.wal_values import IndexState
from lifeboat.operations.backup.marks import Mark
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.planning import RecoveryMaterial
from lifeboat.recovery.restore_points import HoleReason, TimelineReach
from lifeboat.recovery.spans import ArchivedWal
from lifeboat.recovery.targets import time_text
from lifeboat.recovery.timelines import TimelineUnknown, path_to
from lifeboat.wal.names import format_lsn, parse_lsn


@dataclass(frozen=True)
class UnreadWal:
    """Archived WAL of a timeline that the index has not read; `known_until` is the last moment that it knows of.

    It cannot go on without the segment `stopped_at`, unless a full backup begins behind that: one may come where the
    timeline is the current one.
    """

    timeline: int
    known_until: datetime | None
    stopped_at: str | None = None
    current: bool = True

    def __str__(self) -> str:
        who = f"transactions did on timeline {self.timeline}"
        if self.known_until is None:
            what, on = f"what {who} is not known: ", "reads it"
        else:
            what, on = f"what committed {who} is known up to {time_text(self.known_until)}; ", "reads on"
        if self.stopped_at is None:
            return f"{what}`lifeboat wal index` {on}"
        later = ", or with the next full backup" if self.current else ""
        return f"{what}{self.stopped_at} is missing or damaged: `lifeboat wal index` {on} when it is there{later}"


def unread_wal(
    installation: Installation, material: RecoveryMaterial, reaches: Iterable[TimelineReach]
) -> Iterator[UnreadWal]:
    """Where the archive goes on behind the index; nothing where the catalog is away, which the marks tell."""
    index, cluster = installation.catalog.wal_index, installation.settings.platform.cluster
    try:
        states = index.states(cluster)
        for reach in reaches:
            ends = [item.last.end_lsn for item in material.wal.ranges if item.timeline == reach.timeline]
            state = states.get(reach.timeline)
            if ends and state is None:
                yield UnreadWal(reach.timeline, None)
            elif ends and state is not None and _read_to(state) < max(ends):
                starts = [parse_lsn(each) for each in index.full_backup_starts(cluster, reach.timeline)]
                stopped_at = _stopped_at(reach.timeline, material.wal, state, starts)
                yield UnreadWal(reach.timeline, state.latest_at, stopped_at, reach.current)
    except CatalogError as error:
        LOG.info("how far the index has read is not known: %s", error.message)


def _read_to(state: IndexState) -> int:
    return state.read_to_lsn if state.read_to_lsn is not None else state.next_lsn


def _stopped_at(timeline: int, wal: ArchivedWal, state: IndexState, backup_starts: Iterable[int]) -> str | None:
    """The segment that the index cannot go on without (wal/activity/beginning.py); None where it can."""
    try:
        path = path_to(timeline, wal.histories, wal.timelines)
    except TimelineUnknown:
        return None  # why nothing can be had there is told already
    size_bytes, runs = wal.segment_size_bytes, wal.runs_on(path)
    number = state.next_lsn // size_bytes
    number = next((run.stop for run in runs if number in run), number)
    missing = path.segment(number, size_bytes)
    if missing.start_lsn > _read_to(state):
        return None
    behind = [lsn // size_bytes for lsn in backup_starts if lsn >= missing.start_lsn]
    return None if any(start in run for start in behind for run in runs) else missing.name


def timelines_begun(
    installation: Installation, material: RecoveryMaterial, reaches: Iterable[TimelineReach]
) -> Iterator[Mark]:
    """Where a restore or a promotion made a timeline.

    Its history file says at what recovery had stopped: told at the timeline's first commit. The catalog, where it still
    has the restore in place, says who asked for it and when it was done: such a restore may have taken the catalog back
    with it.
    """
    restores = _restores_in_place(installation)
    for reach in reaches:
        made = restores.get(reach.timeline)
        if made is not None and made.completed_at is not None:
            text = f"restored in place to {made.target.rpartition(' to ')[0]}, which made timeline {reach.timeline}"
            yield Mark(made.completed_at, None, AnnotationKind.WAL, text, made.actor, reach.timeline)
            continue
        begun = [each for each in reach.holes if each.reason is HoleReason.BRANCH and each.left == reach.parent]
        switches = material.wal.histories.get(reach.timeline)
        if begun and begun[-1].before is not None and switches:
            last = switches[-1]
            text = (
                f"timeline {reach.timeline} began by {_how_begun(last.reason)}, "
                f"at {format_lsn(last.switch_lsn)} of {last.timeline}"
            )
            yield Mark(begun[-1].before, None, AnnotationKind.WAL, text, None, reach.timeline)


def _how_begun(reason: str) -> str:
    """By what PostgreSQL writes into a history file (getRecoveryStopReason)."""
    if reason.startswith(("before ", "after ", "at ")):
        return f"a restore that stopped {reason}"
    if reason == "reached consistency":
        return "a restore to the end of a backup"
    return "a promotion, or a restore to the latest moment"


def _restores_in_place(installation: Installation) -> dict[int, RestoreRow]:
    """By the timeline that they made, as far as the catalog has them."""
    try:
        rows = installation.catalog.restores.list_restores(
            cluster=installation.settings.platform.cluster,
            kinds={RestoreTarget.IN_PLACE},
            status=RestoreStatus.COMPLETED,
        ).rows
    except CatalogError as error:
        LOG.info("the restores in place are not known: %s", error.message)
        return {}
    found = dict[int, RestoreRow]()
    for row in rows:
        made = row.report_json.get("new_timeline")
        if made is not None:
            found.setdefault(int(made), row)
    return found
