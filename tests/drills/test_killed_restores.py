"""Restores that are killed in their midst: the catalog does not call them running for ever."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import tomlkit

from console.cli.main import main
from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.values import RestoreRow, RestoreStatus, RestoreTarget
from lifeboat.operations.reconcile import reconcile, running_flow_runs
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.postgres.owners import owner_record
from lifeboat.recovery.targets import RecoveryTarget
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab

ROOT = Path(__file__).parents[2]
LATEST = RecoveryTarget()
CHILD = """
import os, signal, sys
from pathlib import Path
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.recovery.targets import RecoveryTarget

def told(phase):
    if phase == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

order = RestoreOrder(RecoveryTarget(), RestoreTo.parse(sys.argv[2]))
run_restore(Installation.load(Path(sys.argv[1])), order, told)
"""


@pytest.fixture(scope="module")
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source with a catalog and a full backup."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        migrate(made.installation.source)
        made.back_up()
        made.commit(1)
        made.switch()
        yield made
        made.cluster.stop(mode="immediate")


def kill_a_restore(lab: RecoveryLab, name: str) -> UUID:
    """A restore that is killed before its landing is proven; the id of its row."""
    return kill_in(lab, "prove landing", f"new:{lab.root / name}")


def kill_in(lab: RecoveryLab, phase: str, place: str) -> UUID:
    """A restore in a process of its own that is killed in a phase; the id of its row."""
    path = lab.root / "lifeboat.toml"
    given = lab.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    path.write_text(tomlkit.dumps({**given, "platform": {**given["platform"], "dsn": lab.cluster.dsn()}}))
    words = [sys.executable, "-c", CHILD, str(path), place, phase]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    newest = rows(lab)[0]
    assert newest.status is RestoreStatus.RUNNING
    return newest.id


def rows(lab: RecoveryLab) -> list[RestoreRow]:
    return lab.installation.catalog.restores.list_restores().rows


def row_of(lab: RecoveryLab, identity: UUID) -> RestoreRow:
    return next(row for row in rows(lab) if row.id == identity)


def test_reconciling_ends_a_killed_restore(lab: RecoveryLab) -> None:
    killed = kill_a_restore(lab, "reconciled")
    assert (killed, "crashed") in reconcile(lab.installation).repaired
    row = row_of(lab, killed)
    assert row.status is RestoreStatus.CRASHED
    assert row.error is not None
    assert "process is gone" in row.error
    assert row.completed_at is not None
    assert row.completed_at >= row.started_at
    assert reconcile(lab.installation).repaired == []


def test_the_next_restore_ends_the_killed_one_and_finds_its_place(lab: RecoveryLab) -> None:
    killed = kill_a_restore(lab, "twice")
    assert (lab.root / "twice.unfinished").is_dir()
    order = RestoreOrder(RecoveryTarget(), RestoreTo.parse(f"new:{lab.root / 'twice'}"))
    report = run_restore(lab.installation, order)
    assert row_of(lab, killed).status is RestoreStatus.CRASHED
    assert row_of(lab, report.id).status is RestoreStatus.COMPLETED
    assert row_of(lab, report.id).report_json["label"] == report.label
    assert not (lab.root / "twice.unfinished").exists()


def test_who_interrupts_a_restore_is_told_what_is_left(lab: RecoveryLab, caplog: pytest.LogCaptureFixture) -> None:
    def press(phase: str) -> None:
        if phase == "prove landing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_restore(lab.installation, RestoreOrder(LATEST, RestoreTo.parse(f"new:{lab.root / 'pressed'}")), press)
    left = lab.root / "pressed.unfinished"
    assert f"is left in {left}: " in caplog.text
    assert left.is_dir()


def test_a_killed_restore_to_a_database_leaves_none_for_ever(
    lab: RecoveryLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.back_up(BackupType.LOGICAL, "pg_dump")
    query = "SELECT datname FROM pg_database WHERE datname LIKE 'lifeboat\\_%' OR datname = 'copy' ORDER BY 1"
    for sweep in ("reconciling", "the next restore"):
        kill_in(lab, "read all", "database:copy")
        ((name,),) = lab.rows(query)
        assert name.startswith("lifeboat_restore_")
        if sweep == "reconciling":
            give_up_at = time.monotonic() + 60
            while name not in reconcile(lab.installation).removed_databases:
                assert time.monotonic() < give_up_at  # the server has yet to see that its owner is gone
                time.sleep(0.1)
            assert lab.rows(query) == []
    run_restore(lab.installation, RestoreOrder(RecoveryTarget(), RestoreTo.parse("database:copy")))
    assert lab.rows(query) == [("copy",)]
    about = "SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'copy'"
    assert lab.rows(about) == [(-1, None)]
    # A dry-run refuses what the run would refuse.
    words = ["--config", str(lab.root / "lifeboat.toml"), "restore", "run", "--latest", "--to", "database:copy"]
    assert main([*words, "--dry-run"]) == 2
    assert "there is a database copy already" in capsys.readouterr().err
    with connect(lab.installation.source.with_database("copy")) as session:
        assert session.execute("SELECT max(number) FROM public.heartbeats").fetchone() == (1,)


def begun(lab: RecoveryLab, process: dict[str, Any], flow_run_id: UUID | None = None) -> UUID:
    identity = uuid4()
    lab.installation.catalog.restores.record(
        identity,
        cluster="studio",
        target_kind=RestoreTarget.DIRECTORY,
        target="the latest moment to new:/somewhere",
        status=RestoreStatus.RUNNING,
        actor="test",
        started_at=datetime.now(UTC),
        report={"process": process},
        flow_run_id=flow_run_id,
    )
    return identity


def test_only_what_is_known_to_be_over_is_ended(lab: RecoveryLab) -> None:
    elsewhere = {**owner_record(), "host": "another.host"}
    alive, far = begun(lab, owner_record()), begun(lab, elsewhere)
    flows = {state: uuid4() for state in ("RUNNING", "CRASHED", "FAILED", "COMPLETED")}
    of_flows = {state: begun(lab, elsewhere, run) for state, run in flows.items()}
    assert running_flow_runs(lab.installation) == sorted(flows.values())
    states = {run: state for state, run in flows.items()}
    repaired = reconcile(lab.installation, flow_run_states=states).repaired
    assert dict(repaired) == {
        of_flows["CRASHED"]: "crashed",
        of_flows["FAILED"]: "failed",
        of_flows["COMPLETED"]: "completed",
    }
    left = {row.id for row in rows(lab) if row.status is RestoreStatus.RUNNING}
    assert left == {alive, far, of_flows["RUNNING"]}
    assert all(row.error for row in rows(lab) if row.id in dict(repaired))
