"""A restore drill in a temporary database that is killed in its midst: its database goes, and nobody else's does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomlkit

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.operations.reconcile import reconcile
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import BackupType

ROOT = Path(__file__).parents[2]
SLEEPS_WHEN_VALIDATED = {
    "drills": {"validation": [{"name": "slow", "sql": "SELECT pg_sleep(120) IS NULL", "expect": "nonempty"}]}
}
# Empty while it is backed up in no time; refreshed from the knob when the dump is loaded.
SLEEPS_WHEN_LOADED = """
CREATE TABLE public.knob (seconds int);
CREATE MATERIALIZED VIEW public.slow AS SELECT pg_catalog.pg_sleep(seconds) IS NULL AS slept FROM public.knob;
INSERT INTO public.knob VALUES (120);
"""


def drill_databases(installation: Installation) -> list[str]:
    """The temporary databases on the source's server."""
    with connect(installation.source, autocommit=True) as session:
        found = session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'lifeboat_drill_%'").fetchall()
    return [row[0] for row in found]


def sleeping_in(installation: Installation) -> list[str]:
    """The drill databases in which a query sleeps."""
    with connect(installation.source, autocommit=True) as session:
        found = session.execute(
            "SELECT datname FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname LIKE 'lifeboat_drill_%'"
        ).fetchall()
    return [row[0] for row in found]


@contextmanager
def drill_process(installation: Installation, folder: Path, **sections: object) -> Iterator["subprocess.Popen[bytes]"]:
    """`lifeboat backup verify` with a temporary database, as another process of the same installation."""
    settings = installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    file = folder / "lifeboat.toml"
    file.write_text(tomlkit.dumps({**settings, **sections}))
    words = ["--config", str(file), "backup", "verify", "latest", "--target", "database"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "drill.log").open("wb") as log:
        argv = [sys.executable, "-m", "console.cli.main", *words]
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until something holds while a process lives."""
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at
        assert process is None or process.poll() is None
        time.sleep(0.05)


@pytest.mark.parametrize("killed_in", ["load", "validate"])
def test_reconciling_drops_the_database_of_a_killed_drill(
    installation: Installation, reachable_tmp: Path, killed_in: str
) -> None:
    if killed_in == "load":
        with connect(installation.source, autocommit=True) as session:
            session.execute(SLEEPS_WHEN_LOADED)
    take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    sections = SLEEPS_WHEN_VALIDATED if killed_in == "validate" else {}
    with drill_process(installation, reachable_tmp, **sections) as process:
        until(lambda: sleeping_in(installation) != [], process)
        (name,) = drill_databases(installation)
        assert reconcile(installation).removed_databases == []
        assert sleeping_in(installation) == [name]
        assert len(list(installation.settings.scratch_dir.glob("scratch-*.owner"))) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The server has yet to see that the owner's session is gone; the query in the database sleeps on.
    until(lambda: reconcile(installation).removed_databases == [name])
    assert drill_databases(installation) == []
    assert sleeping_in(installation) == []
    assert list(installation.settings.scratch_dir.glob("scratch-*")) == []


def test_the_next_drill_drops_what_a_killed_one_left_and_passes(
    installation: Installation, reachable_tmp: Path
) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    with drill_process(installation, reachable_tmp, **SLEEPS_WHEN_VALIDATED) as process:
        until(lambda: sleeping_in(installation) != [], process)
        (living,) = drill_databases(installation)
        # A drill beside it leaves it alone.
        assert run_drill(installation, DrillOrder(target="database")).passed
        assert drill_databases(installation) == [living]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def dropped() -> bool:
        assert run_drill(installation, DrillOrder(target="database")).passed
        return drill_databases(installation) == []

    until(dropped)
    assert sleeping_in(installation) == []
    row = installation.catalog.backups.get(backup.id)
    assert row is not None
    assert row.verified
    assert len(reconcile(installation).removed_scratch) == 1
