"""Archiving through pgBackRest as a whole: what breaks is told within one look, and a gap asks for a full backup."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.health import WalHealthReport, check_wal_health, remember_told
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.health import Severity
from tests.support.agent import soon
from tests.support.pgbackrest import pair_of
from tests.support.protected import PgBackRestLab, protected
from tests.support.recovery import RecoveryLab


@pytest.fixture
def lab(runtime_dir: Path) -> Iterator[RecoveryLab]:
    """A source that archives asynchronously: several segments at once, behind archive_command's back."""
    program = pair_of("debian 13", runtime_dir).program
    engine = {"program": program, "archive_async": True, "archive_timeout_seconds": 60}
    with protected("debian 13", runtime_dir, engines={"pgbackrest": engine}, agent={"enabled": False}) as made:
        made.back_up()
        yield made


def look(lab: RecoveryLab, **limits: float) -> WalHealthReport:
    """One look, with limits of [wal.health]."""
    values: dict[str, Any] = lab.installation.settings.model_dump()
    values["wal"]["health"] = limits
    return check_wal_health(Installation(Settings.model_validate(values)))


def codes(report: WalHealthReport, severity: Severity = Severity.ALERT) -> list[str]:
    return [item.code for item in report.verdict.findings if item.severity is severity]


def waiting(lab: RecoveryLab) -> int:
    """How many finished segments wait."""
    return int(lab.value("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'"))


def finish(lab: RecoveryLab, count: int = 1) -> None:
    """Finish segments, and wait for nothing."""
    for _ in range(count):
        lab.run("SELECT pg_logical_emit_message(true, 'lab', 'finish')")
        lab.run("SELECT pg_switch_wal()")


@contextmanager
def another_pushes(lab: RecoveryLab) -> Iterator[None]:
    """Hold the lock of archiving, as a process that hangs does: archive_command waits for it."""
    engine = lab.installation.pgbackrest()
    with ExitStack() as held:
        # The second name is that of pgBackRest 2.55.
        for name in (f"{engine.stanza}-archive.lock", f"{engine.stanza}-archive-1.lock"):
            path = engine.folders.locks / name
            soon(lambda path=path: locked(path, engine.tools.user, held))  # type: ignore[misc]
        yield


def locked(path: Path, user: str | None, held: ExitStack) -> bool:
    """Lock a file, or a new one where its owner has just removed it; says whether that was done."""
    file = held.enter_context(path.open("a"))
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        give_to(path, user)
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    return False


def test_an_asynchronous_archiver_that_stalls_is_told_and_recovers(lab: RecoveryLab) -> None:
    lab.switch()
    sound = look(lab)
    assert (sound.healthy, sound.verdict.findings, sound.verdict.full_wanted) == (True, (), None)
    with another_pushes(lab):
        finish(lab, 3)
        soon(lambda: waiting(lab) == 3)
        behind = look(lab, max_lag_segments=2, max_lag_seconds=3600)
        stalled = look(lab, max_lag_seconds=0.001)
    assert (behind.healthy, codes(behind, Severity.WARNING)) == (True, ["archiver-behind"])
    assert codes(stalled) == ["archiver-stalled"]
    assert stalled.verdict.full_wanted is None
    lab.switch()
    soon(lambda: waiting(lab) == 0, timeout_seconds=120)
    # Several were pushed at once: none of them was missing meanwhile.
    assert look(lab).verdict.findings == ()


def test_an_asynchronous_archiver_that_fails_is_told(lab: RecoveryLab) -> None:
    lab.switch()
    closed = list((lab.installation.pgbackrest().folders.repository / "archive" / "studio").glob("archive.info*"))
    assert len(closed) == 2
    for path in closed:
        path.chmod(0)
    finish(lab)
    soon(lambda: lab.value("SELECT failed_count FROM pg_stat_archiver") > 0, timeout_seconds=120)
    gone = look(lab)
    assert sorted(codes(gone)) == ["archive-unreadable", "archiver-fails"]
    for path in closed:
        path.chmod(0o640)
    soon(lambda: lab.value("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver"), timeout_seconds=120)
    assert look(lab).verdict.findings == ()


def test_a_gap_turns_the_next_incremental_backup_into_a_full_one(lab: RecoveryLab) -> None:
    assert isinstance(lab, PgBackRestLab)
    _, gone, _ = (lab.switch() for _ in range(3))
    lab.stored(gone).unlink()
    told = check_wal_health(lab.installation)
    assert codes(told) == ["gap"]
    assert gone in str(told.verdict.full_wanted)
    label = lab.back_up(BackupType.INCREMENTAL)
    manifest = lab.installation.repository().manifest(label)
    assert manifest.type is BackupType.FULL
    remember_told(lab.installation, told)
    after = check_wal_health(lab.installation)
    assert (after.healthy, codes(after, Severity.WARNING), after.verdict.full_wanted) == (True, ["gap"], None)


def test_a_segment_that_was_cut_short_is_told(lab: RecoveryLab) -> None:
    _, cut, _ = (lab.switch() for _ in range(3))
    stored = lab.stored(cut)
    stored.write_bytes(stored.read_bytes()[:-100])
    told = check_wal_health(lab.installation)
    assert codes(told) == ["damaged"]
    assert cut in told.verdict.findings[0].what
