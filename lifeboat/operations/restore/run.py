"""Restore to a point in time: plan, bring the files back, replay, prove where it landed, put it in its place.

Storage alone decides: neither Prefect nor the catalog nor the platform's database has to be there.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lifeboat.agent.heartbeat import newest_heartbeat
from lifeboat.catalog.values import RestoreTarget
from lifeboat.engines.engine import Progress
from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.operations.drill.restore_drill import Phases
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.leases import lease
from lifeboat.operations.restore.advice import report_of
from lifeboat.operations.restore.in_place import (
    OldCluster,
    end_interrupted_server,
    find_old_cluster,
    refuse_running,
    refuse_unknown_tail,
    refuse_used,
    remember_place,
    save_old_tail,
    stop_old_cluster,
    telling_of_old_server,
)
from lifeboat.operations.restore.place import (
    Journal,
    Place,
    Step,
    control_of,
    hold_place,
    interrupted_over,
    interrupted_place,
    refuse_interrupted,
)
from lifeboat.operations.restore.preparation import PreparedRestore, prepare_restore
from lifeboat.operations.restore.recording import recorded
from lifeboat.operations.restore.recovered_cluster import (
    Recovered,
    Site,
    end_reading_ahead,
    replay,
    require_room,
    restore_chain,
)
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport
from lifeboat.operations.restore.room import NoRoomForRestore
from lifeboat.operations.restore.server_settings import give_settings_back, offer_history
from lifeboat.operations.restore.to_database import restore_to_database
from lifeboat.operations.wal.handed_over import hand_over, keep_tail
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.scratch import remove_abandoned, scratch_cluster
from lifeboat.verification.reading import read_tables

_DATABASES = "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
_REPORT = TypeAdapter(RestoreReport)


class RestoredDataUnreadable(PermanentError):
    """A restored table cannot be read to its end."""


def run_restore(
    installation: Installation,
    order: RestoreOrder,
    on_progress: Callable[[str], None] | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> RestoreReport:
    """Restore and prove it; whatever ends elsewhere than at the target raises, and is never put in its place.

    `on_progress` is told each phase when it begins, `on_amount` how many bytes of files are back. Raises
    TargetRefused, PlaceTaken, NoRoomForRestore, RecoveryFailed, LandingRefuted, RestoredDataUnreadable, and what
    engines and archives raise.
    """
    phases = Phases(on_progress, on_amount, doing="restore")
    with recorded(installation, order, phases.seconds) as record:
        if order.to.kind is RestoreTarget.DATABASE:
            report = restore_to_database(installation, order, phases)
        else:
            report = _restore_cluster(installation, order, phases)
        return record(report)


def has_only_to_finish(installation: Installation, order: RestoreOrder) -> bool:
    """Whether a killed run of the same restore in place had proven its data: they only have to be put in their place.

    Raises as find_old_cluster.
    """
    if order.to.kind is not RestoreTarget.IN_PLACE:
        return False
    place = interrupted_place(find_old_cluster(installation, order).data_dir)
    return place is not None and place.only_has_to_finish(order.key)


def _restore_cluster(installation: Installation, order: RestoreOrder, phases: Phases) -> RestoreReport:
    if order.to.kind is RestoreTarget.IN_PLACE:
        # The server that says where its data are is about to be stopped.
        order = replace(order, data_dir=find_old_cluster(installation, order).data_dir)
    unfinished = _finish_interrupted(installation, order)
    if unfinished is not None:
        return unfinished
    if order.to.kind is RestoreTarget.IN_PLACE:
        return _restore_in_place(installation, order, phases)
    with phases("plan"):
        prepared = prepare_restore(installation, order, on_amount=phases.amount)
    with hold_place(prepared.target, installation.run_as) as place, _telling_what_is_left(place):
        return _build(installation, order, prepared, place, phases)


@contextmanager
def _telling_what_is_left(place: Place) -> Iterator[None]:
    """Add to whatever goes wrong where it leaves what it had made."""
    try:
        yield
    except LifeboatError as error:
        error.hint = " ".join(filter(None, (error.hint, _left(place)))) or None
        raise
    except BaseException:
        if left := _left(place):
            LOG.error("%s", left)
        raise


def _left(place: Place) -> str:
    if place.journal is None or not place.folder.is_dir():
        return ""
    made = [folder for folder in place.journal.made if Path(folder).is_dir()]
    return (
        f"What was made so far is left in {', '.join([str(place.folder), *made])}: the next restore to {place.target} "
        "removes it, or you do."
    )


def _restore_in_place(installation: Installation, order: RestoreOrder, phases: Phases) -> RestoreReport:
    old = find_old_cluster(installation, order)
    # A killed restore over the old data has left neither them nor their WAL as they were: the saved tail has that.
    tail = interrupted_over(old.data_dir)
    with phases("plan"):
        if tail is not None:
            end_interrupted_server(old)
        saved = tail if tail is not None and tail.is_dir() else None
        prepared = prepare_restore(installation, order, tail=saved, on_amount=phases.amount)
        refuse_running(old, order)
        refuse_unknown_tail(installation, order)
        if not order.discard_old:
            require_room(prepared.planned, old.data_dir.parent)
    # Held before it is stopped: whoever starts it by itself asks for that (postgres/restoring.py).
    with (
        hold_place(old.data_dir, installation.run_as) as place,
        telling_of_old_server(installation, old, place),
    ):
        remember_place(installation, old)
        stop_old_cluster(installation, old, order)
        prepared = _prepare_stopped(installation, order, old, place, phases)
        return _build(installation, order, prepared, place, phases)


def _prepare_stopped(
    installation: Installation, order: RestoreOrder, old: OldCluster, place: Place, phases: Phases
) -> PreparedRestore:
    """Save what only the stopped server has, and plan with it."""
    control, notes = control_of(old.data_dir), tuple[str, ...]()
    # A killed restore over the old data has saved it.
    begins = interrupted_over(old.data_dir) is None
    try:
        if begins:
            with phases("save WAL"):
                place.write(Journal(order.key))
                notes = save_old_tail(installation, old, order, place.tail_dir)
        with phases("plan"):
            prepared = prepare_restore(installation, order, tail=place.saved_tail, on_amount=phases.amount)
    except BaseException:
        if begins:
            place.clear()
        raise
    if prepared.old is None:
        return prepared
    return replace(prepared, old=replace(prepared.old, control=control), notes=(*prepared.notes, *notes))


def _build(
    installation: Installation, order: RestoreOrder, prepared: PreparedRestore, place: Place, phases: Phases
) -> RestoreReport:
    started_at = datetime.now(UTC)
    planned, old, user = prepared.planned, prepared.old, installation.run_as
    if not order.discard_old:
        _begin_beside(order, prepared, place, phases)
    data_dir = prepared.target if order.discard_old else place.data_dir
    remove_abandoned(installation.settings.scratch_dir)
    chain = [manifest.label for manifest in planned.chain]
    with (
        lease(installation, planned.material.repository, chain),
        scratch_cluster(installation.tools, installation.settings.scratch_dir, purpose="restore") as scratch,
    ):
        site = Site(
            data_dir,
            scratch.directory,
            scratch.socket_dir,
            tablespaces=prepared.tablespaces,
            tail=place.saved_tail,
        )
        if order.discard_old:
            _restore_over(installation, order, prepared, place, replace(site, over=True), phases)
        else:
            restore_chain(installation, planned, site, phases)
        found = replay(installation, planned, site, phases)
        heartbeat_at = _read_restored(found, order, phases)
        handed_over = _hand_over(installation, order, prepared, place, found)
        dropped = found.dropped_libraries if old is None else ()
        own = give_settings_back(data_dir, user, beside=old is None, final_dir=prepared.target, dropped=dropped)
        offer_history(data_dir, found.landing.new_timeline, user)
    journal = place.journal or Journal(order.key)
    report = report_of(installation, order, prepared, found, own, started_at)
    notes = [*report.notes, *handed_over]
    report = replace(report, heartbeat_at=heartbeat_at, kept=journal.kept, phases=phases.seconds, notes=notes)
    if old is not None and not order.discard_old:
        refuse_used(old)
    place.write(_ready(journal, report, control_of(data_dir)))
    with phases("put in place"):
        place.put_in_place(Path(journal.kept) if journal.kept else None)
        place.leave()
    return replace(report, completed_at=datetime.now(UTC))


def _begin_beside(order: RestoreOrder, prepared: PreparedRestore, place: Place, phases: Phases) -> None:
    old = prepared.old
    with phases("space check"):
        try:
            require_room(prepared.planned, place.folder)
        except NoRoomForRestore:
            place.clear()
            raise
    made = tuple(str(folder) for folder in prepared.tablespaces.folders.values())
    place.write(Journal(order.key, made=made, kept=str(old.kept_as) if old is not None and old.has_data else None))


def _restore_over(  # noqa: PLR0913 - what restore_chain takes, and what is noted of it
    installation: Installation,
    order: RestoreOrder,
    prepared: PreparedRestore,
    place: Place,
    site: Site,
    phases: Phases,
) -> None:
    """Write over the old data; what fails before it has changed any of them leaves no trace."""
    if prepared.old is not None:
        refuse_used(prepared.old)
    # What a killed restore has written over already stays so.
    journal = Journal(order.key, Step.OVER, control=None if place.is_written_over else control_of(site.data_dir))
    place.write(journal)
    try:
        restore_chain(installation, prepared.planned, site, phases)
    except BaseException:
        if not place.is_written_over:
            place.clear()
        raise
    place.write(replace(journal, control=None, sockets=str(site.socket_dir)))


def _hand_over(
    installation: Installation, order: RestoreOrder, prepared: PreparedRestore, place: Place, found: Recovered
) -> tuple[str, ...]:
    tail, listing, timeline = place.saved_tail, prepared.planned.material.listing, found.landing.new_timeline
    if tail is None or prepared.old is None:
        return ()
    notes: tuple[str, ...] = ()
    if listing is not None and timeline is not None:
        notes = hand_over(installation, listing, tail, found.cluster.data_dir, timeline)
    if order.discard_old:
        folder = prepared.target.with_name(f"{prepared.target.name}.wal-before-restore-{prepared.old.stamp}")
        notes = (*notes, keep_tail(tail, folder, installation.run_as))
    return notes


def _ready(journal: Journal, report: RestoreReport, control: str | None) -> Journal:
    values: dict[str, Any] = _REPORT.dump_python(report, mode="json")
    return Journal(journal.order, Step.READY, journal.made, journal.kept, control, report=values)


def _finish_interrupted(installation: Installation, order: RestoreOrder) -> RestoreReport | None:
    """Put in place what a killed run had proven already; None where there is nothing of the kind."""
    old = find_old_cluster(installation, order) if order.to.kind is RestoreTarget.IN_PLACE else None
    target = old.data_dir if old is not None else order.to.directory
    folder = target.with_name(f"{target.name}.unfinished") if target is not None else None
    if target is None or folder is None or not (folder / "restore.json").is_file():
        return None
    with hold_place(target, installation.run_as) as place:
        end_reading_ahead(installation, place.data_dir)
        refuse_interrupted(place, order.key, discards=order.discard_old, in_place=old is not None)
        journal = place.journal
        if place.is_written_over:
            return None
        if journal is None or not place.is_proven:
            place.clear()
            return None
        if not place.is_between_renames and not (place.is_in_place and journal.order == order.key):
            # Proven, but the old data may have gone on since; or in its place, and used since.
            place.clear() if place.data_dir.exists() else place.leave()
            return None
        place.put_in_place(Path(journal.kept) if journal.kept else None)
        place.leave()
        report = _REPORT.validate_python(journal.report)
        note = "an earlier run had restored and proven it; this one has put it in its place"
        return replace(report, id=order.id, notes=[*report.notes, note])


def _read_restored(found: Recovered, order: RestoreOrder, phases: Phases) -> datetime | None:
    """Read every table of every database; the newest heartbeat, where there is one. The server is stopped then."""
    try:
        faults: list[str] = []
        with closing(connect(found.connection, application_name="lifeboat restore", autocommit=True)) as session:
            heartbeat_at = newest_heartbeat(session)
            names = [str(row[0]) for row in session.execute(_DATABASES).fetchall()]
        with phases("read all") if order.full_read else nullcontext():
            for name in names if order.full_read else []:
                faults += _read_database(found.connection.with_database(name), name)
    finally:
        found.cluster.stop()
    if faults:
        raise RestoredDataUnreadable(
            f"{len(faults)} restored tables cannot be read: {'; '.join(faults[:5])}",
            hint="Restore from an older backup, and hold a drill of this one.",
        )
    return heartbeat_at


def _read_database(connection: ConnectionInfo, name: str) -> list[str]:
    with closing(connect(connection, application_name="lifeboat restore", autocommit=True)) as session:
        return [f"{name}: {problem.table}: {problem.error}" for problem in read_tables(session).problems]
