"""Restores to a moment from a repository of pgBackRest, by the same operation."""

import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.in_place import InPlaceRefused, refuse_unknown_tail
from lifeboat.operations.restore.place import Place, PlaceTaken
from lifeboat.operations.restore.preparation import prepare_restore
from lifeboat.operations.restore.recovered_cluster import RecoveryFailed
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_tree_to
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from tests.support.pgbackrest import BackedUp, Pair


def installation_of(source: BackedUp, pair: Pair, **places: Path) -> Installation:
    """An installation that protects the server with pgBackRest; its catalog is not there. `places` are destinations."""
    places = {"primary": source.destination, **places}
    settings = Settings.model_validate(
        {
            "state_dir": source.root / "state",
            "platform": {"cluster": "studio", "dsn": source.server.dsn(), "bin_dir": pair.tools.bin_dir},
            "destinations": {name: {"path": path, "minimum_free_bytes": 0} for name, path in places.items()},
            "backup": {"engine": "pgbackrest"},
            "engines": {"pgbackrest": {"program": pair.program, "archive_timeout_seconds": 20}},
        }
    )
    return Installation(settings)


class Story:
    """Numbered commits in the source, and the moments between them."""

    def __init__(self, source: BackedUp) -> None:
        self.source = source
        self.at: dict[int, datetime] = {}
        self.number = 0
        with source.connect() as session:
            session.execute("CREATE TABLE public.beats (number int PRIMARY KEY)")

    def beat(self) -> None:
        """One commit, and a moment behind it."""
        self.number += 1
        with self.source.connect() as session:
            session.execute("INSERT INTO public.beats VALUES (%s)", (self.number,))
            time.sleep(0.05)
            row = session.execute("SELECT clock_timestamp()").fetchone()
            assert row is not None
            self.at[self.number] = row[0].astimezone(UTC)
            time.sleep(0.05)

    def archive(self) -> None:
        """Have all of it archived."""
        with self.source.connect() as session:
            row = session.execute("SELECT pg_walfile_name(pg_current_wal_lsn()), pg_switch_wal()").fetchone()
            assert row is not None
            for _ in range(600):
                done = session.execute("SELECT last_archived_wal >= %s FROM pg_stat_archiver", (row[0],)).fetchone()
                if done is not None and done[0]:
                    return
                time.sleep(0.1)
        raise AssertionError(f"{row[0]} was not archived")


def newest_in(data_dir: Path, pair: Pair, root: Path) -> int:
    cluster = Cluster(data_dir, pair.tools, root / "run-restored", 5441)
    cluster.start(timeout_seconds=120)
    try:
        with connect(cluster.dsn(), autocommit=True) as session:
            row = session.execute("SELECT max(number) FROM public.beats").fetchone()
            assert row is not None
            return int(row[0])
    finally:
        cluster.stop()


def test_a_restore_to_each_moment(source: BackedUp, pair: Pair) -> None:
    installation, story = installation_of(source, pair), Story(source)
    story.beat()
    take_backup(installation, BackupOrder(BackupType.FULL))
    story.beat()
    take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    story.beat()
    story.beat()
    story.archive()
    story.beat()
    story.archive()
    story.beat()
    story.archive()
    for number in (2, 3, 4):
        target = RecoveryTarget(TargetKind.TIME, at=story.at[number])
        order = RestoreOrder(target, RestoreTo.parse(f"new:{source.root / f'restored {number}'}"))
        report = run_restore(installation, order)
        assert report.last_commit_at is not None
        assert report.next_commit_at is not None
        assert report.last_commit_at <= story.at[number] < report.next_commit_at
        assert newest_in(Path(report.place), pair, source.root) == number
    latest = run_restore(installation, RestoreOrder(RecoveryTarget(), RestoreTo.parse(f"new:{source.root / 'latest'}")))
    assert newest_in(Path(latest.place), pair, source.root) == 6
    early = RecoveryTarget(TargetKind.TIME, at=story.at[1])
    with pytest.raises(TargetRefused):
        run_restore(installation, RestoreOrder(early, RestoreTo.parse(f"new:{source.root / 'refused'}")))
    refuses_a_gap(installation, source, story)
    in_place_over_the_old(installation, source, story)


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)
def test_a_copy_of_the_repository_is_enough_when_the_rest_is_lost(source: BackedUp, pair: Pair) -> None:
    installation, story = installation_of(source, pair, second=source.root / "second"), Story(source)
    story.beat()
    take_backup(installation, BackupOrder(BackupType.FULL))
    story.beat()
    story.beat()
    story.archive()
    second = installation.destination("second").path
    shutil.copytree(source.destination, second)
    give_tree_to(second, pair.tools.user)
    story.beat()
    story.archive()
    target = RecoveryTarget(TargetKind.TIME, at=story.at[2])
    source.server.stop()
    shutil.rmtree(source.destination)
    for kind in ("quick", "async"):
        values = installation.settings.model_dump()
        values["engines"]["pgbackrest"]["archive_async"] = kind == "async"
        chosen = Installation(Settings.model_validate(values))
        order = RestoreOrder(target, RestoreTo.parse(f"new:{source.root / kind}"), destination="second")
        report = run_restore(chosen, order)
        assert report.last_commit_at is not None
        assert report.next_commit_at is not None
        assert report.last_commit_at <= story.at[2] < report.next_commit_at
        assert newest_in(Path(report.place), pair, source.root) == 2
        assert any("the copy of pgBackRest's repository at second" in note for note in report.notes)
    # What was archived after it was copied is not in it.
    late = RecoveryTarget(TargetKind.TIME, at=story.at[4])
    with pytest.raises(TargetRefused):
        run_restore(chosen, RestoreOrder(late, RestoreTo.parse(f"new:{source.root / 'late'}"), destination="second"))


def refuses_a_gap(installation: Installation, source: BackedUp, story: Story) -> None:
    """A segment that goes after planning stops recovery."""
    order = RestoreOrder(RecoveryTarget(TargetKind.TIME, at=story.at[5]), RestoreTo.parse(f"new:{source.root / 'gap'}"))
    prepared = prepare_restore(installation, order)
    names = [
        segment.name
        for segment in prepared.planned.plan.span.segments(prepared.planned.material.wal.segment_size_bytes)
    ]
    assert len(names) > 1
    folder = source.engine.folders.repository / "archive"
    (stored,) = folder.rglob(f"{names[1]}-*")
    content = stored.read_bytes()

    def harm(phase: str) -> None:
        if phase == "restore files":
            stored.unlink()

    try:
        with pytest.raises(RecoveryFailed):
            run_restore(installation, order, harm)
        assert not (source.root / "gap").exists()
    finally:
        stored.write_bytes(content)


def in_place_over_the_old(installation: Installation, source: BackedUp, story: Story) -> None:
    """The server's own data directory, kept beside the restored one."""
    target = RecoveryTarget(TargetKind.TIME, at=story.at[3])
    order = RestoreOrder(target, RestoreTo.parse("in-place"), data_dir=source.server.data_dir, stop_server=True)
    report = run_restore(installation, order)
    assert report.kept is not None
    source.server.start()
    with source.connect() as session:
        assert session.execute("SELECT max(number) FROM public.beats").fetchall() == [(3,)]
        assert session.execute("SHOW archive_mode").fetchall() == [("on",)]
    over_the_old(installation, source, story)


class Died(BaseException):
    """Ends a restore in its midst."""


def over_the_old(installation: Installation, source: BackedUp, story: Story) -> None:
    """Only what differs is written, and an interrupted run is finished by the next."""
    folder = source.server.data_dir
    kept = sorted(folder.parent.glob(f"{folder.name}.before-restore-*"))
    target = RecoveryTarget(TargetKind.TIME, at=story.at[4], timeline=1)
    place = RestoreTo.parse("in-place")
    order = RestoreOrder(target, place, data_dir=folder, stop_server=True, discard_old=True)

    def die(phase: str) -> None:
        if phase == "prove landing":
            raise Died

    with pytest.raises(Died):
        run_restore(installation, order, die)
    for attempt in (prepare_restore, run_restore):
        with pytest.raises(PlaceTaken, match="nothing to be kept"):
            attempt(installation, RestoreOrder(target, place, data_dir=folder, stop_server=True))
    report = run_restore(installation, order)
    assert report.kept is None
    assert sorted(folder.parent.glob(f"{folder.name}.before-restore-*")) == kept
    assert not list(folder.parent.glob(f"{folder.name}.unfinished"))
    source.server.start()
    with source.connect() as session:
        assert session.execute("SELECT max(number) FROM public.beats").fetchall() == [(4,)]
    what_only_the_old_server_had(installation, source, story)
    what_was_not_written_over(installation, source)


def what_only_the_old_server_had(installation: Installation, source: BackedUp, story: Story) -> None:
    """Over the old data too nothing is lost, if the restore is killed when they are half written."""
    folder = source.server.data_dir
    with source.connect() as session:
        session.execute("INSERT INTO public.beats VALUES (100)")
    order = RestoreOrder(
        RecoveryTarget(), RestoreTo.parse("in-place"), data_dir=folder, stop_server=True, discard_old=True
    )
    archive = source.engine.folders.repository / "archive"
    archive.rename(archive.with_name("not mounted"))
    try:
        with pytest.raises(InPlaceRefused, match="--discard-old would lose it"):
            refuse_unknown_tail(installation, order)
    finally:
        archive.with_name("not mounted").rename(archive)

    def die(phase: str) -> None:
        if phase == "prove landing":
            raise Died

    with pytest.raises(Died):
        run_restore(installation, order, die)
    # As the command line does before it asks for a confirmation: the plan needs the saved tail.
    planned = prepare_restore(installation, order).planned.plan
    report = run_restore(installation, order)
    assert report.last_commit_at == planned.not_before
    tail = max(folder.parent.glob(f"{folder.name}.wal-before-restore-*"))
    assert any(str(tail) in note for note in report.notes)
    assert any("remove the last WAL" in step and str(tail) in step for step in report.next_steps)
    source.server.start()
    with source.connect() as session:
        assert session.execute("SELECT max(number) FROM public.beats").fetchall() == [(100,)]


def what_was_not_written_over(installation: Installation, source: BackedUp) -> None:
    """The old data are as they were where pgBackRest refuses: their server may run on, and loses nothing.

    Its pg_wal is on another volume, which the restored one's is not.
    """
    folder, wal = source.server.data_dir, source.root / "another volume"
    source.server.stop()
    (folder / "pg_wal").rename(wal)
    (folder / "pg_wal").symlink_to(wal)
    source.server.start()
    backups = source.engine.folders.repository / "backup"
    order = RestoreOrder(
        RecoveryTarget(), RestoreTo.parse("in-place"), data_dir=folder, stop_server=True, discard_old=True
    )

    def lose(phase: str) -> None:
        if phase == "restore files":
            backups.rename(backups.with_name("lost"))

    for number, is_killed in ((101, False), (102, True)):
        with pytest.MonkeyPatch.context() as patched:
            if is_killed:
                patched.setattr(Place, "clear", lambda _: None)
            with pytest.raises(LifeboatError) as failed:
                run_restore(installation, order, lose)
        backups.with_name("lost").rename(backups)
        assert "has changed nothing in its data" in str(failed.value.hint)
        assert (folder.with_name(f"{folder.name}.unfinished") / "restore.json").is_file() == is_killed
        source.server.start()
        with source.connect() as session:
            session.execute("SELECT pg_switch_wal()")
            session.execute("INSERT INTO public.beats VALUES (%s)", (number,))
        with pytest.raises(InPlaceRefused, match="runs"):
            run_restore(installation, replace(order, stop_server=False))
        assert source.server.is_running()
    report = run_restore(installation, order)
    assert any("is a link to" in note and "another volume" in note for note in report.notes)
    assert not (folder / "pg_wal").is_symlink()
    source.server.start()
    with source.connect() as session:
        assert session.execute("SELECT max(number) FROM public.beats").fetchall() == [(102,)]
    source.server.stop()
