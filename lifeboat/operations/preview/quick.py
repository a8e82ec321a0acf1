"""The quick preview: what a restore would undo, what it needs and how long it takes, from plan and index.

Nothing is restored and nothing is changed but the index, which is brought up to date first.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lifeboat.catalog.errors import CatalogError
from lifeboat.catalog.wal_index import IndexMoved
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.installation import Installation
from lifeboat.operations.preview.doubts import other_timeline, unread_wal
from lifeboat.operations.preview.needs import (
    PredictedTime,
    RestoreNeeds,
    RestoreSize,
    predict_time,
    restore_needs,
    restore_size,
)
from lifeboat.operations.restore.planning import PlannedRestore, plan_for, read_material
from lifeboat.operations.wal.index import IndexRunning, index_wal
from lifeboat.recovery.planning import RestorePlan
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.recovery.undoing import (
    Knowledge,
    LastCounts,
    ObjectUndone,
    TableUndone,
    objects_undone,
    tables_undone,
)
from lifeboat.storage.manifest import Manifest, TableKind
from lifeboat.wal.activity.decoding import Source, WrongDecoder
from lifeboat.wal.activity.notable import EventKind
from lifeboat.wal.activity.path_events import events_along
from lifeboat.wal.activity.preview import LostTransactions, Undone, counts_since, undone_by_restore
from lifeboat.wal.activity.relation_names import RelationNames
from lifeboat.wal.names import format_lsn

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_DEFINING = frozenset({EventKind.DROP, EventKind.CREATE, EventKind.DDL})


class PreviewWithoutTime(PermanentError):
    """The target is no moment, so the index cannot say what lies behind it."""


@dataclass(frozen=True)
class PreviewOrder:
    """What to preview. Without `update_index` it answers at once, from what the index knows already."""

    target: RecoveryTarget
    destination: str | None = None
    update_index: bool = True


@dataclass(frozen=True)
class NotableEvent:
    """Something that happened to whole tables or databases since the target."""

    at: datetime
    text: str
    detail: dict[str, Any]


@dataclass(frozen=True)
class RestorePreview:
    """What a restore to `target` undoes, as far as WAL was indexed: up to `indexed_until`.

    Counts of rows are exact for committed INSERT, UPDATE and DELETE unless there are `doubts`; `tables` mark what is
    estimated. `label` is the backup that replay begins with, `chain` all that it needs, the full one first.
    """

    target: str
    at: datetime
    made_at: datetime
    timeline: int
    label: str
    chain: tuple[str, ...]
    landing_lsn: str | None
    tables: tuple[TableUndone, ...]
    transactions: LostTransactions | None
    objects: tuple[ObjectUndone, ...]
    events: tuple[NotableEvent, ...]
    indexed_until: datetime | None
    size: RestoreSize
    time: PredictedTime
    needs: RestoreNeeds
    doubts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether all counts of rows changed by INSERT, UPDATE and DELETE are exact."""
        return not self.doubts


@dataclass(frozen=True)
class PreviewBasis:
    """The preview and the plan it is of: what a deep preview restores."""

    preview: RestorePreview
    planned: PlannedRestore


def preview_restore(installation: Installation, order: PreviewOrder) -> RestorePreview:
    """Say what a restore would do; raises as `preview_with_plan`."""
    return preview_with_plan(installation, order).preview


def preview_with_plan(installation: Installation, order: PreviewOrder) -> PreviewBasis:
    """Plan the restore and say what it undoes.

    A catalog that is down hides only what the index knows: that is told as a doubt. Raises TargetRefused with the
    nearest moments that can be had, TimelineUnknown, PreviewWithoutTime, ManifestError, ArchiveUnreadable.
    """
    # Some twenty questions to the catalog: a connection for each would take longer than the answers.
    with installation.catalog.one_connection():
        return _preview(installation, order)


def _preview(installation: Installation, order: PreviewOrder) -> PreviewBasis:
    planned = plan_for(installation, read_material(installation, order.destination), order.target)
    at = _moment(planned.plan)
    notes, why_old = list(planned.plan.notes), list[str]()
    if order.update_index:
        observed, why_old = _bring_up_to_date(installation, planned)
        notes += observed
    found, doubts = _ask_index(installation, planned, at)
    doubts += why_old
    landing_lsn = found.undone.landing_lsn if found else None
    size = restore_size(planned, landing_lsn)
    try:
        time = predict_time(installation, planned, size)
    except CatalogError as error:
        time = PredictedTime(None, {}, f"what was measured cannot be asked for: {error.message}")
    undone = found.undone if found else None
    preview = RestorePreview(
        target=str(order.target),
        at=at,
        made_at=datetime.now(UTC),
        timeline=planned.plan.timeline,
        label=planned.plan.backup.label,
        chain=tuple(manifest.label for manifest in planned.chain),
        landing_lsn=format_lsn(undone.landing_lsn) if undone and undone.landing_lsn is not None else None,
        tables=found.tables if found else (),
        transactions=undone.transactions if undone else None,
        objects=found.objects if found else (),
        events=tuple(NotableEvent(each.at, each.text, each.detail_json) for each in undone.events) if undone else (),
        indexed_until=undone.indexed_until if undone else None,
        size=size,
        time=time,
        needs=restore_needs(installation, planned, landing_lsn),
        doubts=tuple(doubts),
        notes=(*notes, *_of_unlogged(planned.manifest), *_of_unseen(undone)),
    )
    return PreviewBasis(preview, planned)


def _moment(plan: RestorePlan) -> datetime:
    """The time up to which commits are replayed; where a position or name is the target, that of its record."""
    at = plan.target.at or (plan.not_after if plan.not_after is not None else plan.not_before)
    if plan.target.lsn is not None and plan.target.at is None:
        raise PreviewWithoutTime(
            f"{plan.target} is a position, and the index knows times",
            hint="Give the moment with `--at`; `lifeboat restore points` lists them.",
        )
    return at


def _bring_up_to_date(installation: Installation, planned: PlannedRestore) -> tuple[list[str], list[str]]:
    """What was noticed of names, and why the index may lack what the archive has."""
    try:
        report = index_wal(installation)
    except (IndexRunning, IndexMoved) as error:
        return [], [f"the index is being brought up to date by another run: {error.message}"]
    except LifeboatError as error:
        return [], [f"the index could not be brought up to date: {error.message}"]
    on_path = {stretch.timeline for stretch in planned.plan.span.path.stretches}
    stopped = [each.stopped for each in report.timelines if each.timeline in on_path and each.stopped is not None]
    return list(report.notes), stopped


@dataclass(frozen=True)
class _Found:
    undone: Undone
    tables: tuple[TableUndone, ...]
    objects: tuple[ObjectUndone, ...]


def _ask_index(installation: Installation, planned: PlannedRestore, at: datetime) -> tuple[_Found | None, list[str]]:
    archive, settings = planned.material.archive, installation.settings
    if archive is None:
        return None, ["no WAL is archived, so nothing is known of what was committed since"]
    source = Source(archive, installation.tools, settings.scratch_dir)
    catalog, cluster, timeline = installation.catalog, settings.platform.cluster, planned.plan.timeline
    try:
        # Read first: what another run adds meanwhile is then a doubt too many, not one too few.
        states = catalog.wal_index.states(cluster)
        names = RelationNames(catalog.relations.names(cluster))
        undone = undone_by_restore(source, catalog, cluster, timeline, at)
        knowledge = _knowledge(installation, source, planned, names, undone)
    except (CatalogError, WrongDecoder) as error:
        return None, [f"what was committed since is not known: {error.message}"]
    doubts = [*other_timeline(timeline, planned.material), *undone.doubts]
    if planned.material.listing is not None:
        doubts += unread_wal(planned.plan.span, planned.material.listing, states)
    if planned.plan.target.kind is TargetKind.BACKUP:
        doubts.append(f"of {planned.plan.backup.label} replay may stop a little before the moment that is known")
    if undone.indexed_until is not None and undone.indexed_until < at:
        doubts.append(f"the index ends at {time_text(undone.indexed_until)}, before the target")
    return _Found(undone, tables_undone(undone, knowledge), objects_undone(undone, names)), doubts


def _knowledge(
    installation: Installation, source: Source, planned: PlannedRestore, names: RelationNames, undone: Undone
) -> Knowledge:
    catalog, cluster, timeline = installation.catalog, installation.settings.platform.cluster, planned.plan.timeline
    at = _moment(planned.plan)
    counted = _last_counts(planned.manifest)
    if not undone.events:
        return Knowledge(names, at, counted, {}, ())
    if counted is not None:
        since = counts_since(source, catalog, cluster, timeline, counted.taken_at, names)
        counted = replace(counted, since=since)
    # What came before the oldest count tells nothing: a table that was made then has rows that are counted no more.
    kept_from = catalog.activity.kept_from(cluster) or at
    events = events_along(source, catalog, cluster, timeline, kept_from)
    return Knowledge(names, at, counted, counts_since(source, catalog, cluster, timeline, _LONG_AGO), events)


def _last_counts(manifest: Manifest) -> LastCounts | None:
    fingerprint = manifest.fingerprint
    if fingerprint is None:
        return None
    rows = {table.qualified_name: table.row_count for table in fingerprint.tables if table.row_count is not None}
    return LastCounts(fingerprint.database, fingerprint.taken_at, rows)


def _of_unseen(undone: Undone | None) -> list[str]:
    """A commit that drops, makes or defines anything may do so with what WAL does not name."""
    if undone is None or not any(event.detail_json["event"] in _DEFINING for event in undone.events):
        return []
    return [
        "views, functions, types, sequences and partitioned tables that were dropped, made or changed since are not "
        "all listed: WAL does not name them; `--deep` compares them"
    ]


def _of_unlogged(manifest: Manifest) -> list[str]:
    tables = manifest.fingerprint.tables if manifest.fingerprint else []
    unlogged = [table.qualified_name for table in tables if table.kind is TableKind.UNLOGGED]
    return [f"unlogged tables come back empty: {', '.join(unlogged[:10])}"] if unlogged else []
