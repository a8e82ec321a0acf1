"""Restore points on real servers: windows from storage alone, named points, and what is said of damage."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.pages import DEFAULT_LIMIT
from lifeboat.catalog.values import AnnotationKind, RestoreStatus, RestoreTarget
from lifeboat.operations.points.happened import timelines_begun
from lifeboat.operations.points.named import RestorePointRefused, add_restore_point
from lifeboat.operations.points.notes import add_note
from lifeboat.operations.points.restore_points import PointsOrder, RestorePoints, list_restore_points
from lifeboat.operations.restore.planning import plan_for, read_material
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.index import index_wal
from lifeboat.operations.wal.verify import verify_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.planning import RestorePlan, TargetRefused
from lifeboat.recovery.restore_points import HoleReason
from lifeboat.recovery.spans import ArchivedWal
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, TargetUnreadable, time_text
from lifeboat.recovery.timelines import path_to
from lifeboat.recovery.wal_reader import ArchivedWalReader
from lifeboat.wal.coverage import WalNotArchived
from lifeboat.wal.names import parse_lsn
from tests.support.agent import soon
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source of each version, archiving, with a catalog."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        migrate(made.installation.catalog_connection)
        yield made
        made.cluster.stop(mode="immediate")


def points(lab: RecoveryLab, **order: object) -> RestorePoints:
    return list_restore_points(lab.installation, PointsOrder(**order))  # type: ignore[arg-type]


def commit_and_switch(lab: RecoveryLab, number: int) -> datetime:
    """A heartbeat that is archived; when it committed, at the latest."""
    lab.commit(number)
    at = lab.moment()
    lab.switch()
    return at


def flip_a_byte(stored: Path) -> None:
    """Of the plain text: a flip in what is stored may say the same zeros in other words."""
    plain = bytearray(gzip.decompress(stored.read_bytes()))
    plain[len(plain) // 2] ^= 0xFF
    stored.write_bytes(gzip.compress(plain))


def test_the_window_goes_from_the_backup_to_the_last_archived_commit(lab: RecoveryLab) -> None:
    nothing = points(lab)
    assert nothing.found_faults
    label = lab.back_up()
    commit_and_switch(lab, 1)
    last = commit_and_switch(lab, 2)
    lab.commit(3)
    found = points(lab)

    assert not found.found_faults
    (reach,) = found.timelines
    (window,) = reach.windows
    assert (reach.timeline, reach.current, reach.holes, window.backups) == (1, True, (), (label,))
    stored = lab.installation.repository().manifest(label)
    assert window.earliest == stored.stopped_at
    # The switch itself commits a message behind that moment; heartbeat 3 is in no archived segment.
    unarchived = lab.value("SELECT max(at) FROM public.heartbeats")
    assert last <= window.latest < unarchived
    assert found.missing == ()
    kinds = {mark.kind for mark in found.marks}
    assert kinds == {AnnotationKind.BACKUP}
    (mark,) = found.marks
    assert (mark.at, mark.until_at) == (stored.started_at, stored.completed_at)


def test_it_needs_neither_catalog_nor_platform(lab: RecoveryLab) -> None:
    lab.back_up()
    made = add_restore_point(lab.installation, "before the upgrade")
    add_note(lab.installation, made.record.at, "the upgrade begins")
    running = points(lab)
    lab.cluster.stop()
    stopped = points(lab)

    # The server archives its last segment when it stops: there may be more to be had, never less.
    (before,), (after,) = (reach.windows for found in (running, stopped) for reach in found.timelines)
    assert (before.earliest, before.backups) == (after.earliest, after.backups)
    assert before.latest <= after.latest
    assert stopped.named == running.named
    assert {mark.text for mark in stopped.marks} == {mark.text for mark in running.marks}
    assert running.missing == ()
    (missing,) = stopped.missing
    assert missing.startswith("notable WAL events: the catalog is away")


def test_a_named_point_is_archived_remembered_and_can_be_had(lab: RecoveryLab) -> None:
    lab.back_up()
    before = lab.moment()
    made = add_restore_point(lab.installation, "before the upgrade", actor="ada")
    after = lab.moment()

    assert before < made.record.at < after
    (named,) = points(lab).named
    assert (named.name, named.at, named.lsn, named.why_not) == (
        "before the upgrade",
        made.record.at,
        made.record.lsn,
        None,
    )
    listing = lab.archive.listing()
    wal = ArchivedWal.of(listing.ranges, (), {}, listing.segment_size_bytes)
    reader = ArchivedWalReader(lab.archive, wal, lab.cluster.tools, lab.installation.settings.scratch_dir)
    recorded = reader.find_name("before the upgrade", path_to(1, {}, {1}))
    assert recorded is not None
    assert recorded.lsn < parse_lsn(made.record.lsn) <= recorded.lsn + 200
    assert timedelta() <= made.record.at - recorded.at < timedelta(seconds=5)
    kinds = [AnnotationKind.RESTORE_POINT]
    (row,) = lab.installation.catalog.annotations.between("studio", kinds, None, None, limit=10)
    assert (row.id, row.at, row.actor) == (made.record.id, made.record.at, "ada")
    with pytest.raises(RestorePointRefused, match="there is a restore point 'before the upgrade' already"):
        add_restore_point(lab.installation, "before the upgrade")


def test_a_point_before_any_backup_says_why_it_cannot_be_had(lab: RecoveryLab) -> None:
    add_restore_point(lab.installation, "too early")
    lab.back_up()
    (named,) = points(lab).named
    assert named.why_not == "no usable backup ended before it"


def test_a_point_that_is_not_archived_in_time_is_remembered_and_not_called_good(each_pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        wal = {"minimum_free_bytes": 0, "archive_timeout_seconds": 0, "segment_timeout_seconds": 2, "fetch_retries": 0}
        lab = make_lab(each_pg_tools, root, wal=wal)
        lab.back_up()
        lab.run("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
        with pytest.raises(WalNotArchived) as late:
            add_restore_point(lab.installation, "late")
        assert late.value.hint
        (named,) = points(lab).named
        assert re.fullmatch(r"the WAL segment \w+ that holds it is not in the archive", named.why_not or "")
        lab.run("ALTER SYSTEM RESET archive_command", "SELECT pg_reload_conf()")
        lab.switch()
        (named,) = points(lab).named
        assert named.why_not is None
        lab.cluster.stop(mode="immediate")


def test_names_that_none_can_have_and_roles_without_the_right(lab: RecoveryLab) -> None:
    for name in ("", "x" * 64, "two\nlines"):
        with pytest.raises((TargetUnreadable, Exception), match="cannot be a restore point's name"):
            add_restore_point(lab.installation, name)
    lab.run("CREATE ROLE visitor LOGIN")
    settings = lab.installation.settings
    platform = {"cluster": "studio", "dsn": lab.cluster.dsn(user="visitor"), "bin_dir": settings.platform.bin_dir}
    visitor = type(lab.installation)(type(settings).model_validate({**settings.model_dump(), "platform": platform}))
    with pytest.raises(RestorePointRefused, match="may not make restore points") as refused:
        add_restore_point(visitor, "mine")
    assert refused.value.hint is not None
    lab.run(refused.value.hint.partition(": ")[2])
    assert add_restore_point(visitor, "mine").record.name == "mine"


def test_a_missing_segment_splits_the_window(lab: RecoveryLab) -> None:
    first = lab.back_up()
    commit_and_switch(lab, 1)
    before = lab.moment()
    lab.commit(2)
    lost = lab.switch()
    commit_and_switch(lab, 3)
    add_restore_point(lab.installation, "behind it")
    gone = lab.stored(lost)
    gone.unlink()
    found = points(lab)
    (reach,) = found.timelines
    assert found.found_faults
    (hole,) = reach.holes
    assert (hole.reason, hole.before, [segment.name for segment in hole.segments]) == (HoleReason.MISSING, None, [lost])
    assert reach.latest is not None
    assert reach.latest < before
    assert found.named[0].why_not == f"the WAL segment {lost}, on the way to it, is missing"
    index_wal(lab.installation)
    (unread,) = points(lab).unread
    # Nothing can be read on until then, whoever runs what is named.
    assert f"; {lost} is missing or damaged: " in str(unread)
    assert str(unread).endswith("reads on when it is there, or with the next full backup")

    second = lab.back_up()
    commit_and_switch(lab, 4)
    (reach,) = points(lab).timelines
    assert [window.backups for window in reach.windows] == [(first,), (second,)]
    (unread,) = points(lab).unread
    assert str(unread).endswith("; `lifeboat wal index` reads on")
    index_wal(lab.installation)
    assert points(lab).unread == ()
    (hole,) = reach.holes
    assert (hole.after, hole.before) == (reach.windows[0].latest, reach.windows[1].earliest)
    assert [each.windows for each in points(lab, start=hole.before).timelines] == [(reach.windows[1],)]
    assert [each.windows for each in points(lab, end=before).timelines] == [(reach.windows[0],)]


def test_a_segment_that_cannot_be_decoded_is_named_and_ends_the_window(lab: RecoveryLab) -> None:
    lab.back_up()
    commit_and_switch(lab, 1)
    before = lab.moment()
    lab.commit(2)
    last = lab.switch()
    flip_a_byte(lab.stored(last))
    found = points(lab)
    assert [segment.name for segment in found.damaged] == [last]
    (reach,) = found.timelines
    assert reach.latest is not None
    assert reach.latest < before
    assert reach.holes[-1].reason is HoleReason.DAMAGED
    assert found.found_faults


def test_what_the_scrub_has_found_ends_the_window_too(lab: RecoveryLab) -> None:
    """In the midst of the archive: what is read for the last commit does not come by."""
    lab.back_up()
    commit_and_switch(lab, 1)
    before = lab.moment()
    lab.commit(2)
    bad = lab.switch()
    for number in range(3, 7):
        commit_and_switch(lab, number)
    flip_a_byte(lab.stored(bad))
    assert not points(lab).found_faults

    assert not verify_wal(lab.installation).sound
    index_wal(lab.installation)
    found = points(lab)
    assert f"; {bad} is missing or damaged: " in str(found.unread[0])
    (segment,) = found.damaged
    assert segment.name == bad
    assert segment.reason
    (reach,) = found.timelines
    assert reach.latest is not None
    assert reach.latest < before
    (hole,) = reach.holes
    assert (hole.reason, hole.before, [each.name for each in hole.segments]) == (HoleReason.DAMAGED, None, [bad])


def test_an_archive_that_cannot_be_read_leaves_the_ends_of_backups(lab: RecoveryLab) -> None:
    label = lab.back_up()
    commit_and_switch(lab, 1)
    lab.wal_folder.rename(lab.root / "away")
    found = points(lab)
    assert found.found_faults
    assert not found.wal_was_read
    assert "cannot read the WAL archive" in found.missing[0]
    (window,) = found.timelines[0].windows
    assert window.earliest == window.latest == lab.installation.repository().manifest(label).stopped_at


def test_a_promotion_makes_a_timeline_with_moments_of_its_own(lab: RecoveryLab) -> None:
    label = lab.back_up()
    commit_and_switch(lab, 1)
    lab.cluster.stop()
    (lab.cluster.data_dir / "recovery.signal").touch()
    lab.start(restore_command="false")
    lab.run("CHECKPOINT")
    on_two = commit_and_switch(lab, 2)
    assert lab.value("SELECT pg_walfile_name(pg_current_wal_lsn())").startswith("00000002")
    first, second = points(lab).timelines
    assert (first.timeline, first.current, second.timeline, second.current) == (1, False, 2, True)
    assert second.parent == 1
    assert second.latest is not None
    assert first.latest is not None
    assert first.latest < on_two <= second.latest
    assert [window.backups for window in second.windows] == [(label,), (label,)]
    (hole,) = second.holes
    assert (hole.reason, hole.left, points(lab).found_faults) == (HoleReason.BRANCH, 1, False)
    # Where none of timeline 1 was given up, the gap is what the promotion took.
    (begun,) = [mark for mark in points(lab).marks if "began by" in mark.text]
    # Its history file does not tell a promotion from a restore to the latest moment.
    assert begun.text.startswith("timeline 2 began by a promotion, or a restore to the latest moment, at ")
    assert (begun.at, begun.timeline) == (hole.before, 2)
    material = read_material(lab.installation)
    (switch,) = material.wal.histories[2]
    # As a restore to a backup's end has it (test_restore_surroundings).
    wal = replace(material.wal, histories={2: (replace(switch, reason="reached consistency"),)})
    (begun,) = timelines_begun(lab.installation, replace(material, wal=wal), [first, second])
    assert begun.text.startswith("timeline 2 began by a restore to the end of a backup, at ")
    made = add_restore_point(lab.installation, "on two")
    assert made.target.timeline == 2
    assert [each.timeline for each in points(lab, timeline=2).timelines] == [2]
    assert points(lab, timeline=1).named == ()


def test_moments_that_the_current_timeline_never_lived_are_refused(lab: RecoveryLab) -> None:
    """An accident on timeline 1, lived with for a while, then undone in place: timeline 2 has none of that while."""
    lab.back_up()
    lab.commit(1)
    wanted = lab.moment()
    lab.commit(2)
    with connect(lab.cluster.dsn(), autocommit=True) as session:
        row = session.execute("INSERT INTO public.notes VALUES (1) RETURNING xmin::text::int").fetchone()
    assert row is not None
    never_lived = lab.moment()
    lab.run("DROP TABLE public.segments")
    commit_and_switch(lab, 3)
    asked = RecoveryTarget(TargetKind.TIME, at=wanted)
    in_place = RestoreTo.parse("in-place")
    run_restore(
        lab.installation, RestoreOrder(asked, in_place, data_dir=lab.cluster.data_dir, stop_server=True, actor="ada")
    )
    lab.cluster.start()
    lab.commit(20)
    soon(lambda: 2 in lab.archive.listing().history_timelines)
    commit_and_switch(lab, 21)

    def plan(target: RecoveryTarget) -> RestorePlan:
        return plan_for(lab.installation, read_material(lab.installation), target).plan

    second = points(lab).current
    assert second is not None
    (hole,) = second.holes
    assert (hole.reason, hole.left, len(second.windows)) == (HoleReason.BRANCH, 1, 2)
    assert hole.before is not None
    assert hole.after < wanted < never_lived < hole.before
    with pytest.raises(TargetRefused, match="lies in a change of timelines: timeline 2 goes on") as refused:
        plan(RecoveryTarget(TargetKind.TIME, at=never_lived))
    assert (refused.value.earlier, refused.value.later) == (hole.after, hole.before)
    assert str(refused.value.hint).endswith("Timeline 1 has it: `--timeline 1`.")
    assert plan(RecoveryTarget(TargetKind.TIME, at=never_lived, timeline=1)).timeline == 1
    for at in (hole.after, hole.before):
        assert plan(RecoveryTarget(TargetKind.TIME, at=at)).timeline == 2
    given_up = plan(RecoveryTarget(TargetKind.XID, xid=row[0], timeline=1))
    assert given_up.not_after is not None
    assert given_up.notes[-1].startswith(f"transaction {row[0]} committed at ")
    assert hole.after < given_up.not_after < never_lived

    # The catalog came back with the data: what it knew of the restore is gone, the history file is not.
    found = points(lab)
    (begun,) = [mark for mark in found.marks if mark.text.startswith("timeline 2 began by a restore that stopped ")]
    assert (begun.at, begun.timeline) == (hole.before, 2)
    assert [mark.timeline for mark in found.marks if mark.kind is AnnotationKind.BACKUP] == [1]
    # A catalog on another server still has it, and who asked for it; however much was looked at since.
    record = partial(
        lab.installation.catalog.restores.record,
        target=f"{asked} to {in_place}",
        status=RestoreStatus.COMPLETED,
        completed_at=lab.moment(),
        report={"new_timeline": 2},
    )
    later = never_lived + timedelta(seconds=1)
    record(uuid4(), cluster="studio", target_kind=RestoreTarget.IN_PLACE, actor="ada", started_at=never_lived)
    record(uuid4(), cluster="other", target_kind=RestoreTarget.IN_PLACE, actor="bob", started_at=later)
    for _ in range(DEFAULT_LIMIT):
        record(uuid4(), cluster="studio", target_kind=RestoreTarget.EXPLORE, actor="bob", started_at=later)
    (known,) = [mark for mark in points(lab).marks if "restored in place" in mark.text]
    assert known.text == f"restored in place to {asked}, which made timeline 2"
    assert (known.timeline, known.actor) == (2, "ada")


def test_what_the_index_has_not_read_and_what_is_not_archived_is_said(lab: RecoveryLab) -> None:
    lab.back_up()
    commit_and_switch(lab, 1)
    (unread,) = points(lab).unread
    assert (unread.timeline, unread.known_until) == (1, None)
    assert index_wal(lab.installation).timelines
    found = points(lab)
    assert found.unread == ()
    (reach,) = found.timelines
    assert reach.latest is not None
    assert (found.why_no_later or "").startswith(f"no commit after {time_text(reach.latest)} is archived yet")
    assert "archive_timeout" in (found.why_no_later or "")
    assert points(lab, end=reach.earliest).why_no_later is None
    last = lab.moment()
    lab.run("DROP TABLE public.notes")
    lab.switch()
    (unread,) = points(lab).unread
    assert unread.known_until is not None
    assert unread.known_until < last
    assert "`lifeboat wal index` reads on" in str(unread)
