"""Test restore: the only thing that makes a backup `verified`."""

# ruff: noqa: PT028 - a flow, not a test

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.operations.results import DrillReport
from tasks.engines import DrillTarget
from tasks.restore_drill import hold_restore_drill
from tasks.staleness import skip_if_stale


@lifeboat_flow("test-restore")
def test_restore(
    backup: str = "latest",
    destination: str | None = None,
    target: DrillTarget = "scratch",
) -> DrillReport | State[Any]:
    """Restore a backup somewhere else and prove that it is what was backed up.

    A drill that fails ends the run as Failed with the name FoundProblems; its message names the first faults and the
    artifact has all of them.

    Args:
        backup: `latest`, a label or an id.
        destination: A destination of lifeboat.toml; without it, the default one.
        target: scratch (a cluster of its own) or database (a temporary database, for dumps).
    """
    if stale := skip_if_stale():
        return stale
    report = hold_restore_drill(backup, destination, target)
    if not report.passed:
        return found_problems(f"the restore drill of {report.label} failed", report.faults)
    return report
