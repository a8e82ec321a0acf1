"""Restores in place: the old data stay until the new ones are proven, whenever the restore is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from console.cli.main import main
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.in_place import InPlaceRefused
from lifeboat.operations.restore.place import PlaceTaken
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.operations.restore.room import NoRoomForRestore
from lifeboat.operations.restore.run import run_restore
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from tests.support.agent import soon
from tests.support.in_place import LATEST, kept, lab, order, settings_of
from tests.support.recovery import RecoveryLab

__all__ = ["lab"]
ROOT = Path(__file__).parents[2]
real_usage = shutil.disk_usage
# A restore in a process of its own that kills itself: when a phase begins, amidst its files, or between its renames.
CHILD = """
import os, signal, sys
from pathlib import Path
from lifeboat.operations.restore import place as restore_place
from lifeboat.operations.installation import Installation
from console.cli.main import main
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.recovery.targets import RecoveryTarget

settings, data_dir, fatal = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

if fatal == "between the renames":
    real = Path.rename
    def rename(self, target):
        if self.name == "data" and self.parent.name.endswith(".unfinished"):
            die()
        return real(self, target)
    Path.rename = rename
elif fatal == "after the renames":
    restore_place.Place.leave = lambda self: die()

def told(phase):
    if phase == fatal:
        die()

def amount(progress):
    if fatal == "amidst the files" and progress.done_bytes:
        die()

order = RestoreOrder(RecoveryTarget(), RestoreTo.parse("in-place"), data_dir=Path(data_dir))
run_restore(Installation.load(Path(settings)), order, told, amount)
"""


def restore_new(lab: RecoveryLab, target: RecoveryTarget, name: str) -> RestoreReport:
    return run_restore(lab.installation, RestoreOrder(target, RestoreTo.parse(f"new:{lab.root / name}")))


def test_over_timelines_to_each_of_them(lab: RecoveryLab) -> None:
    lab.commit(1)
    lab.switch()
    first = lab.moment()
    lab.commit(2)
    lab.run("DROP TABLE public.segments")
    on_first_timeline = lab.moment()
    lab.commit(3)
    lab.switch()
    with pytest.raises(InPlaceRefused, match="runs"):
        run_restore(lab.installation, order(lab, RecoveryTarget(TargetKind.TIME, at=first)))
    report = run_restore(lab.installation, order(lab, RecoveryTarget(TargetKind.TIME, at=first), stop=True))
    assert report.new_timeline == 2
    assert [str(path) for path in kept(lab)] == [report.kept]
    lab.cluster.start()
    assert lab.value("SELECT count(*) FROM public.segments") == 2000
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 1
    # It archives as before, on its own timeline, with that timeline's history.
    assert lab.value("SHOW archive_mode") == "on"
    soon(lambda: 2 in lab.archive.listing().history_timelines)
    at_once = restore_new(lab, LATEST, "at once")
    assert (at_once.timeline, at_once.new_timeline) == (2, 3)
    assert any("timeline 2 begins in, is not archived yet" in note for note in at_once.notes)
    with lab.opened(lab.root / "at once") as dsn:
        # Not what is archived of timeline 1 behind the switch.
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 1
        assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
    lab.commit(20)
    second = lab.moment()
    lab.commit(21)
    lab.switch()
    lab.back_up(BackupType.FULL)
    lab.commit(22)
    third = lab.moment()
    lab.commit(23)
    lab.switch()
    expected = {
        "second": (RecoveryTarget(TargetKind.TIME, at=second), 20, 2),
        "third": (RecoveryTarget(TargetKind.TIME, at=third), 22, 2),
        "old": (RecoveryTarget(TargetKind.TIME, at=on_first_timeline, timeline=1), 2, 1),
        "before the fork": (RecoveryTarget(TargetKind.TIME, at=first, timeline=1), 1, 1),
    }
    for name, (target, newest, timeline) in expected.items():
        report = restore_new(lab, target, name)
        assert report.timeline == timeline
        assert report.new_timeline == 3
        with lab.opened(lab.root / name) as dsn:
            assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == newest
            lost = lab.value("SELECT to_regclass('public.segments') IS NULL", dsn)
            assert lost == (name == "old")


@pytest.mark.parametrize("newest", [6, 5], ids=["the latest moment", "a moment"])
def test_what_is_not_archived_comes_from_the_servers_own_wal(lab: RecoveryLab, newest: int) -> None:
    at = stop_with_a_tail(lab)
    target = LATEST if newest == 6 else RecoveryTarget(TargetKind.TIME, at=at)
    report = run_restore(lab.installation, order(lab, target))
    lab.cluster.start()
    assert lab.value("SELECT max(number) FROM public.heartbeats") == newest
    assert report.kept is not None
    assert (Path(report.kept) / "PG_VERSION").is_file()


@pytest.mark.parametrize(
    "fatal", ["restore files", "amidst the files", "replay", "read all", "between the renames", "after the renames"]
)
def test_a_killed_restore_leaves_the_old_data_and_a_second_run_finishes(lab: RecoveryLab, fatal: str) -> None:
    lab.commit(1)
    lab.switch()
    lab.commit(2)
    lab.cluster.stop()
    before = sorted(str(path.relative_to(lab.cluster.data_dir)) for path in lab.cluster.data_dir.rglob("*"))
    settings = settings_of(lab)
    words = [sys.executable, "-c", CHILD, str(settings), str(lab.cluster.data_dir), fatal]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    renamed = fatal in {"between the renames", "after the renames"}
    (old,) = kept(lab) if renamed else [lab.cluster.data_dir]
    assert sorted(str(path.relative_to(old)) for path in old.rglob("*")) == before
    assert lab.cluster.data_dir.exists() == (fatal != "between the renames")

    report = run_restore(lab.installation, order(lab))

    assert report.kept is not None
    assert sorted(str(path.relative_to(report.kept)) for path in Path(report.kept).rglob("*")) == before
    assert len(kept(lab)) == 1
    assert not list(lab.cluster.data_dir.parent.glob("data.unfinished"))
    lab.cluster.start()
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 2


@pytest.mark.parametrize("runs_on", [True, False])
def test_a_server_that_was_started_meanwhile_is_not_replaced(lab: RecoveryLab, runs_on: bool) -> None:
    lab.commit(1)
    lab.switch()
    lab.cluster.stop()

    def supervise(phase: str) -> None:
        if phase == "replay":
            lab.cluster.start()
            lab.commit(2)
            if not runs_on:
                lab.cluster.stop()

    with pytest.raises(InPlaceRefused, match="was started again while the restore was made") as refused:
        run_restore(lab.installation, order(lab), supervise)
    assert ("runs, with its own data" in str(refused.value.hint)) == runs_on

    assert kept(lab) == []
    if not runs_on:
        lab.cluster.start()
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 2
    report = run_restore(lab.installation, order(lab, stop=True))
    assert report.kept is not None
    lab.cluster.start()
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 2


class Died(BaseException):
    """Ends a restore in its midst."""


def stop_with_a_tail(lab: RecoveryLab) -> datetime:
    """Five commits in segments that were not archived and a sixth in the last one; the moment before that."""
    lab.switch()
    lab.run("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    for number in range(1, 6):
        lab.commit(number)
        lab.run("SELECT pg_switch_wal()")
    at = lab.moment()
    lab.commit(6)
    lab.cluster.stop(mode="immediate")
    return at


def archive_on(lab: RecoveryLab, number: int) -> None:
    """Start the restored server, let it archive again, have one commit more in the archive."""
    (lab.cluster.data_dir / "postgresql.auto.conf").write_text("")
    lab.cluster.start()
    lab.commit(number)
    lab.switch()


def test_what_was_killed_between_the_renames_is_finished_whatever_came_meanwhile(
    lab: RecoveryLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The target lies in WAL that only the old server had, which no longer lies where it was."""
    at, folder = stop_with_a_tail(lab), lab.cluster.data_dir
    target, real = RecoveryTarget(TargetKind.TIME, at=at), Path.rename

    def rename(self: Path, to: Path) -> Path:
        if self.name == "data" and self.parent.name.endswith(".unfinished"):
            raise Died
        return real(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(Died):
            run_restore(lab.installation, order(lab, target))
    (old,) = kept(lab)
    folder.mkdir(mode=0o700)  # as a supervisor or a mount unit does
    with pytest.raises(PlaceTaken, match="has to be finished first"):
        run_restore(lab.installation, order(lab))
    (folder / "PG_VERSION").write_text("a new cluster\n")
    for again in (LATEST, target):
        with pytest.raises(PlaceTaken, match=f"moved the old data of {folder} to {old}"):
            run_restore(lab.installation, order(lab, again))
    (folder / "PG_VERSION").unlink()

    words = ["--config", str(settings_of(lab)), "restore", "run", "--at", at.isoformat(), "--to", "in-place"]
    assert main([*words, "--data-dir", str(folder), "--json"]) == 0
    assert "an earlier run had restored and proven it" in capsys.readouterr().out

    assert kept(lab) == [old]
    archive_on(lab, 20)
    assert lab.rows("SELECT number FROM public.heartbeats ORDER BY 1") == [(n,) for n in (1, 2, 3, 4, 5, 20)]
    # The archive leads over the switch: older backups reach the new timeline.
    assert lab.archive.listing().gaps == ()
    latest = restore_new(lab, LATEST, "beyond the switch")
    assert latest.timeline == 2
    with lab.opened(Path(latest.place)) as dsn:
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 20


def test_an_archive_that_takes_nothing_has_the_tail_from_the_restored_server(lab: RecoveryLab) -> None:
    """As above with a full archive; the old server's pg_wal is on another volume."""
    lab.cluster.stop()
    wal = lab.cluster.data_dir / "pg_wal"
    wal.rename(lab.root / "source" / "another volume")
    wal.symlink_to(lab.root / "source" / "another volume")
    lab.cluster.start()
    stop_with_a_tail(lab)
    given = lab.installation.settings.model_dump(exclude_unset=True)
    full = Installation(Settings.model_validate({**given, "wal": {**given["wal"], "minimum_free_bytes": 1 << 60}}))
    report = run_restore(full, order(lab))
    assert any("only the old server had are in pg_wal" in note for note in report.notes)
    assert any("is a link to" in note and "another volume" in note for note in report.notes)
    archive_on(lab, 20)
    until_archived = time.monotonic() + 120
    while list((lab.cluster.data_dir / "pg_wal" / "archive_status").glob("*.ready")):
        assert time.monotonic() < until_archived
        time.sleep(0.2)
    latest = restore_new(lab, LATEST, "beyond the switch")
    with lab.opened(Path(latest.place)) as dsn:
        assert lab.rows("SELECT number FROM public.heartbeats ORDER BY 1", dsn) == [(n,) for n in (*range(1, 7), 20)]


def start_as_told(lab: RecoveryLab, hint: str) -> None:
    """Run the command of a hint where only root may write beside the data, as in /var/lib/postgresql."""
    beside, user = lab.cluster.data_dir.parent, lab.cluster.tools.user
    owner = beside.stat()
    lab.cluster.log_path.unlink(missing_ok=True)
    if user is not None:
        os.chown(beside, 0, 0)
        beside.chmod(0o755)
    command = hint.rpartition("or with `")[2].partition("`")[0]
    subprocess.run(command, shell=True, check=True, timeout=120, stdout=subprocess.DEVNULL)  # noqa: S602 - as it is told
    os.chown(beside, owner.st_uid, owner.st_gid)


def test_whoever_cannot_restore_knows_the_state_of_the_old_server(
    lab: RecoveryLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pg_ctl alone has no options of ours.
    lab.run(
        f"ALTER SYSTEM SET unix_socket_directories = '{lab.cluster.socket_dir}'",
        f"ALTER SYSTEM SET port = {lab.cluster.port}",
    )
    lab.commit(1)
    stored = lab.stored(lab.switch())
    content = stored.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda folder: real_usage(folder)._replace(free=1))
        with pytest.raises(NoRoomForRestore):
            run_restore(lab.installation, order(lab, stop=True))
    assert lab.cluster.is_running()

    def lose(phase: str) -> None:
        if phase == "restore files":
            stored.unlink()

    with pytest.raises(LifeboatError) as refused:
        run_restore(lab.installation, order(lab, stop=True), lose)
    told = f"The old server is stopped, and the restore has changed nothing in its data, {lab.cluster.data_dir}"
    assert told in str(refused.value.hint)
    start_as_told(lab, str(refused.value.hint))
    assert lab.value("SELECT max(number) FROM public.heartbeats") == 1
    stored.write_bytes(content)
    # Without the archive nothing says what of its WAL is missing there.
    away = lab.wal_folder.with_name("wal is not mounted")
    lab.wal_folder.rename(away)
    report = run_restore(lab.installation, order(lab, RecoveryTarget(TargetKind.BACKUP, backup="latest"), stop=True))
    assert any("is in pg_wal of its kept data alone" in note for note in report.notes)
