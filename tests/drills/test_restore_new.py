"""Restores to a moment, into new clusters: continuous load, accidents, chains, and everything that must be refused."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.place import PlaceTaken
from lifeboat.operations.restore.preparation import prepare_restore
from lifeboat.operations.restore.recovered_cluster import LandingRefuted, RecoveryFailed
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.verify import verify_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import TimelineUnknown
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.coverage import ArchiveUnreadable
from lifeboat.wal.names import parse_lsn
from tests.support.postgres import DEBIAN_15, reachable_dir, tools_for
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture(scope="module")
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """One source for each version, which has lived through the accidents of `History`."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        yield made
        made.cluster.stop(mode="immediate")


class History:
    """What happened: moments by name, and what held at each of them."""

    def __init__(self) -> None:
        self.at: dict[str, datetime] = {}
        self.beats: dict[str, int] = {}
        self.labels: list[str] = []
        self.lsn = self.xid = self.rolled_back = 0


@pytest.fixture(scope="module")
def history(lab: RecoveryLab) -> History:
    """Backups under load, and three accidents with a quiet moment before each."""
    made = History()
    incremental = lab.cluster.tools.major >= 17

    def remember(name: str) -> None:
        made.at[name] = lab.moment()
        lab.run("INSERT INTO public.notes VALUES ((SELECT count(*) FROM public.notes), 'after the moment')")

    with lab.load():
        made.at["before the first backup"] = lab.moment()
        made.labels.append(lab.back_up())
        remember("after the full backup")
        for number in range(3 if incremental else 0):
            made.labels.append(lab.back_up(BackupType.INCREMENTAL))
            remember(f"after incremental {number}")
        remember("before the mass delete")
        made.lsn = parse_lsn(lab.value("SELECT pg_current_wal_insert_lsn()::text"))
        delete = "WITH d AS (DELETE FROM public.segments WHERE id % 2 = 0 RETURNING 1)"
        made.xid = lab.value(f"{delete} SELECT pg_current_xact_id()::text::bigint FROM d LIMIT 1")
        remember("before the drop")
        lab.run("DROP TABLE public.segments")
        lab.run("CREATE TABLE public.tags AS SELECT i FROM generate_series(1, 100) i")
        lab.run("SELECT pg_create_restore_point('before the truncate')")
        remember("before the truncate")
        with connect(lab.cluster.dsn()) as session:
            session.execute("TRUNCATE public.tags")
            row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            made.rolled_back = row[0]
            session.rollback()
        lab.run("TRUNCATE public.tags")
        remember("at the end")
    for _ in range(3):
        lab.switch()
    made.beats = {name: lab.beats(at) for name, at in made.at.items()}
    return made


def at_time(at: datetime, timeline: int | None = None) -> RecoveryTarget:
    return RecoveryTarget(TargetKind.TIME, at=at, timeline=timeline)


def order(lab: RecoveryLab, target: RecoveryTarget, name: str) -> RestoreOrder:
    return RestoreOrder(target, RestoreTo.parse(f"new:{lab.root / name}"))


def restore(lab: RecoveryLab, target: RecoveryTarget, name: str) -> RestoreReport:
    return run_restore(lab.installation, order(lab, target, name))


SEGMENTS = {
    "after the full backup": 2000,
    "after incremental 0": 2000,
    "after incremental 1": 2000,
    "after incremental 2": 2000,
    "before the mass delete": 2000,
    "before the drop": 1000,
    "before the truncate": None,
    "at the end": None,
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_restore_lands_between_the_last_commit_before_and_the_first_after(
    lab: RecoveryLab, history: History, name: str
) -> None:
    if name not in history.at:
        pytest.skip("PostgreSQL 15 takes no incremental backups")
    listing = lab.archive.listing()
    folder = f"restored {name}"
    report = restore(lab, at_time(history.at[name]), folder)
    assert report.last_commit_at is not None
    assert report.next_commit_at is not None
    assert report.last_commit_at <= history.at[name] < report.next_commit_at
    assert {"plan", "space check", "restore files", "replay", "prove landing", "read all"} <= set(report.phases)
    with lab.opened(lab.root / folder) as dsn:
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == history.beats[name]
        assert lab.value("SHOW archive_mode", dsn) == "off"
        assert lab.value("SELECT pg_is_in_recovery()", dsn) is False
        there = lab.value("SELECT to_regclass('public.segments') IS NOT NULL", dsn)
        assert there == (SEGMENTS[name] is not None)
        if there:
            assert lab.value("SELECT count(*) FROM public.segments", dsn) == SEGMENTS[name]
        if name == "before the truncate":
            assert lab.value("SELECT count(*) FROM public.tags", dsn) == 100
        lab.rows("INSERT INTO public.heartbeats VALUES (-1, now()) RETURNING number", dsn)
    # Neither the restore nor the restored server has touched the archive of the original.
    assert lab.archive.listing().files == listing.files
    assert not (lab.root / f"{folder}.unfinished").exists()
    assert list(lab.installation.settings.scratch_dir.glob("scratch-*")) == []


def test_a_name_a_position_a_transaction_a_backup_and_the_latest_moment(lab: RecoveryLab, history: History) -> None:
    named = restore(lab, RecoveryTarget(TargetKind.NAME, name="before the truncate"), "by name")
    assert named.landing is not None
    assert named.landing.endswith("stopped at restore point before the truncate")
    with lab.opened(Path(named.place)) as dsn:
        assert lab.value("SELECT count(*) FROM public.tags", dsn) == 100
    backup = restore(lab, RecoveryTarget(TargetKind.BACKUP, backup=history.labels[-1]), "by backup")
    assert backup.label == history.labels[-1]
    with lab.opened(Path(backup.place)) as dsn:
        assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
    # As pg_current_xact_id() would tell it three epochs later: WAL has 32 bits of it.
    for inclusive, rows in ((True, 1000), (False, 2000)):
        target = RecoveryTarget(TargetKind.XID, xid=history.xid + (3 << 32), inclusive=inclusive)
        (note,) = prepare_restore(lab.installation, order(lab, target, "not made")).planned.plan.notes
        assert note.startswith(f"transaction {target.xid} committed at ")
        report = restore(lab, target, f"by transaction, {inclusive}")
        with lab.opened(Path(report.place)) as dsn:
            assert lab.value("SELECT count(*) FROM public.segments", dsn) == rows
    undone = RecoveryTarget(TargetKind.XID, xid=history.rolled_back)
    (note,) = prepare_restore(lab.installation, order(lab, undone, "not made")).planned.plan.notes
    assert "was rolled back" in note
    position = restore(lab, RecoveryTarget(TargetKind.LSN, lsn=history.lsn, inclusive=False), "by position")
    with lab.opened(Path(position.place)) as dsn:
        assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
    latest = restore(lab, RecoveryTarget(), "latest")
    with lab.opened(Path(latest.place)) as dsn:
        newest = lab.value("SELECT max(number) FROM public.heartbeats")
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == newest
        assert lab.value("SELECT count(*) FROM public.tags", dsn) == 0


def test_bad_targets_are_refused_before_anything_is_touched(lab: RecoveryLab, history: History) -> None:
    last = history.at["at the end"] + timedelta(days=1)
    cases: list[tuple[RecoveryTarget, type[LifeboatError]]] = [
        (at_time(history.at["before the first backup"]), TargetRefused),
        (at_time(last), TargetRefused),
        (RecoveryTarget(TargetKind.NAME, name="nobody made it"), TargetRefused),
        (RecoveryTarget(TargetKind.LSN, lsn=1 << 50), TargetRefused),
        (RecoveryTarget(TargetKind.LSN, lsn=1 << 20), TargetRefused),
        (RecoveryTarget(TargetKind.XID, xid=4_000_000_000), TargetRefused),
        (RecoveryTarget(timeline=7), TimelineUnknown),
    ]
    for target, expected in cases:
        with pytest.raises(expected) as refused:
            restore(lab, target, "refused")
        assert refused.value.hint
        assert not list(lab.root.glob("refused*"))
    with pytest.raises(TargetRefused) as early:
        prepare_restore(lab.installation, order(lab, at_time(history.at["before the first backup"]), "refused"))
    assert early.value.later is not None
    assert early.value.later > history.at["before the first backup"]
    with pytest.raises(TargetRefused) as late:
        prepare_restore(lab.installation, order(lab, at_time(last), "refused"))
    assert late.value.earlier is not None
    assert history.at["at the end"] <= late.value.earlier < last


def test_a_place_that_holds_something_is_refused(lab: RecoveryLab, history: History) -> None:
    folder = lab.root / "taken"
    folder.mkdir()
    (folder / "file").write_text("mine")
    with pytest.raises(PlaceTaken):
        restore(lab, at_time(history.at["before the drop"]), "taken")
    assert (folder / "file").read_text() == "mine"
    assert not list(lab.root.glob("taken.*"))


def test_a_segment_that_is_lost_after_planning_stops_recovery(lab: RecoveryLab, history: History) -> None:
    target = at_time(history.at["before the truncate"])
    prepared = prepare_restore(lab.installation, order(lab, target, "gap"))
    names = [
        segment.name
        for segment in prepared.planned.plan.span.segments(prepared.planned.material.wal.segment_size_bytes)
    ]
    stored = lab.stored(names[1])
    content = stored.read_bytes()
    for harm in (b"", content[:200] + bytes(100) + content[300:]):
        told: list[str] = []

        def harmed(phase: str, harm: bytes = harm, told: list[str] = told) -> None:
            told.append(phase)
            if phase == "restore files":
                if harm:
                    stored.write_bytes(harm)
                else:
                    stored.unlink()

        try:
            with pytest.raises(RecoveryFailed, match=names[1]):
                run_restore(lab.installation, order(lab, target, "gap"), harmed)
        finally:
            stored.write_bytes(content)
        assert "replay" in told
        assert not (lab.root / "gap").exists()
        assert (lab.root / "gap.unfinished" / "restore.json").is_file()
    # The next run clears what they left.
    assert restore(lab, target, "gap").last_commit_at is not None
    assert not (lab.root / "gap.unfinished").exists()


def test_replay_that_ends_before_the_latest_moment_is_no_restore(lab: RecoveryLab, history: History) -> None:
    """The last segment goes after planning: positively absent, it ends recovery without an error."""
    stored = lab.stored(lab.switch())
    plan = prepare_restore(lab.installation, order(lab, RecoveryTarget(), "too short")).planned.plan
    content = stored.read_bytes()

    def shorten(phase: str) -> None:
        if phase == "restore files":
            stored.unlink()

    try:
        with pytest.raises(LandingRefuted, match="replay ended before") as refuted:
            run_restore(lab.installation, order(lab, RecoveryTarget(), "too short"), shorten)
    finally:
        stored.write_bytes(content)
    assert refuted.value.landing.last_ended_at is not None
    assert refuted.value.landing.last_ended_at < plan.not_before
    assert not (lab.root / "too short").exists()
    assert not Cluster(lab.root / "too short.unfinished" / "data", lab.cluster.tools, lab.root / "run").is_running()


def test_a_gap_in_the_archive_is_refused_with_the_nearest_moments(lab: RecoveryLab, history: History) -> None:
    target = at_time(history.at["before the truncate"])
    prepared = prepare_restore(lab.installation, order(lab, target, "in the gap"))
    names = [
        segment.name
        for segment in prepared.planned.plan.span.segments(prepared.planned.material.wal.segment_size_bytes)
    ]
    stored = lab.stored(names[1])
    content = stored.read_bytes()
    stored.unlink()
    try:
        with pytest.raises(TargetRefused, match=f"{names[1]} is missing") as refused:
            restore(lab, target, "in the gap")
        assert refused.value.earlier is not None
        assert refused.value.earlier < history.at["before the truncate"]
        # Damaged in its midst it looks whole to a listing, until the scrub has read it.
        stored.write_bytes(content[:300] + bytes(200) + content[500:])
        assert verify_wal(lab.installation, everything=True).new_findings
        with pytest.raises(TargetRefused, match=f"{names[1]} is damaged"):
            restore(lab, target, "in the gap")
        assert not list(lab.root.glob("in the gap*"))
    finally:
        stored.write_bytes(content)
        verify_wal(lab.installation, everything=True)
    prepare_restore(lab.installation, order(lab, target, "in the gap"))


def test_the_very_last_commit_and_the_last_one_before_a_gap(lab: RecoveryLab, history: History) -> None:
    """The moments that refusals offer; nothing behind them is replayed, nor asked of the archive."""
    number = lab.value("SELECT max(number) FROM public.heartbeats")
    names = []
    for _ in range(4):
        number += 1
        lab.commit(number)
        names.append(lab.switch())
    for gap in (None, names[1]):
        stored = lab.stored(gap) if gap is not None else None
        content = stored.read_bytes() if stored is not None else b""
        if stored is not None:
            stored.unlink()
        try:
            end = prepare_restore(lab.installation, order(lab, RecoveryTarget(), "end")).planned.plan.not_before
            with pytest.raises(TargetRefused) as refused:
                prepare_restore(lab.installation, order(lab, at_time(end + timedelta(microseconds=1)), "end"))
            assert refused.value.earlier == end
            kept = restore(lab, at_time(end), f"the last commit, {gap}")
            before = restore(lab, replace(at_time(end), inclusive=False), f"before the last commit, {gap}")
            latest = restore(lab, RecoveryTarget(), f"the latest, {gap}")
        finally:
            if stored is not None:
                stored.write_bytes(content)
        assert kept.last_commit_at == latest.last_commit_at == before.next_commit_at == end
        newest = number - 3 if gap is not None else number
        if gap is None:
            with explored(lab.installation, at_time(end)) as there:
                assert lab.value("SELECT max(number) FROM public.heartbeats", there.found.connection.dsn) == newest
        for report in (kept, latest):
            with lab.opened(Path(report.place)) as dsn:
                assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == newest
            assert any(str(gap) in note for note in report.notes) == (gap is not None and report is latest)


def test_a_backup_that_holds_its_wal_needs_no_archive(lab: RecoveryLab, history: History) -> None:
    away = lab.wal_folder.with_name("wal is not mounted")
    lab.wal_folder.rename(away)
    try:
        report = restore(lab, RecoveryTarget(TargetKind.BACKUP, backup="latest"), "no archive")
        with pytest.raises(ArchiveUnreadable):
            restore(lab, at_time(history.at["before the drop"]), "refused")
    finally:
        away.rename(lab.wal_folder)
    assert report.label == history.labels[-1]
    assert report.target == f"the end of backup {report.label}"
    assert any("cannot read the WAL archive" in note for note in report.notes)


def test_programs_of_another_version_are_refused(
    lab: RecoveryLab, history: History, pg_tools: PgTools, runtime_dir: Path
) -> None:
    other = DEBIAN_15 if lab.cluster.tools.major != 15 else pg_tools.bin_dir
    if not (other / "postgres").exists():
        pytest.skip("only one version of PostgreSQL is here")
    given = lab.installation.settings.model_dump(exclude_unset=True)
    given["platform"]["bin_dir"] = tools_for(other, runtime_dir).bin_dir
    installation = Installation(Settings.model_validate(given))
    with pytest.raises(TargetRefused) as refused:
        run_restore(installation, order(lab, at_time(history.at["before the drop"]), "refused"))
    assert "the programs here are of version" in str(refused.value.hint)


def test_storage_alone_is_enough(lab: RecoveryLab, history: History) -> None:
    """The platform's server, and the catalog in it, are down."""
    lab.cluster.stop()
    try:
        report = restore(lab, at_time(history.at["before the drop"]), "alone")
    finally:
        lab.cluster.start()
    assert any("the catalog does not know of this restore" in note for note in report.notes)
    assert datetime.now(UTC) - report.completed_at < timedelta(minutes=10)
