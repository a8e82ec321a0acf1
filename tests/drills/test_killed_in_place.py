"""`kill -9` amidst a restore in place from a repository of pgBackRest: nothing is lost, and a second run finishes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.recovery.targets import RecoveryTarget
from tests.drills.test_restore_in_place import CHILD, ROOT
from tests.support.agent import soon
from tests.support.protected import PGBACKREST, protected, write_settings_of
from tests.support.recovery import RecoveryLab

# The engine matters while it works; what follows is the same for each, and test_restore_in_place has it.
FATAL = ("restore files", "amidst the files", "replay", "between the renames")


def kill_in(lab: RecoveryLab, settings: Path, fatal: str) -> None:
    """Begin a restore to the latest moment in a process that kills itself."""
    words = [sys.executable, "-c", CHILD, str(settings), str(lab.cluster.data_dir), fatal]
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def programs_in(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, but for ours."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and int(entry.name) != os.getpid():
            found.append(words)
    return found


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("engine", PGBACKREST)
def test_the_old_data_are_there_and_a_second_run_finishes(engine: str, runtime_dir: Path) -> None:
    with protected(engine, runtime_dir) as lab:
        lab.back_up()
        data_dir = lab.cluster.data_dir
        order = RestoreOrder(RecoveryTarget(), RestoreTo.parse("in-place"), data_dir=data_dir)
        for number, fatal in enumerate(FATAL):
            lab.commit(2 * number)
            lab.switch()
            lab.commit(2 * number + 1)
            settings = write_settings_of(lab)
            lab.cluster.stop()
            before, kept = files_in(data_dir), set(data_dir.parent.glob("data.before-restore-*"))
            kill_in(lab, settings, fatal)
            # A pgBackRest that outlived it would write into what the next run makes.
            soon(lambda: not [each for each in programs_in(lab.root) if "pgbackrest" in each and " restore" in each])
            moved = set(data_dir.parent.glob("data.before-restore-*")) - kept
            assert len(moved) == (fatal == "between the renames")
            assert files_in(moved.pop() if moved else data_dir) == before

            report = run_restore(lab.installation, order)

            assert report.kept is not None
            assert files_in(Path(report.kept)) == before
            assert not list(data_dir.parent.glob("data.unfinished"))
            lab.cluster.start()
            assert lab.value("SELECT array_agg(number ORDER BY number) FROM public.heartbeats") == list(
                range(2 * number + 2)
            )
