"""Reconciling: the catalog says what storage and Prefect say."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.operations.results import ReconcileReport
from tasks.reconcile import end_zombie_runs, reconcile_catalog
from tasks.staleness import skip_if_stale


@lifeboat_flow("reconcile")
def reconcile() -> ReconcileReport | State[Any]:
    """Repair what hooks could not see: killed workers, a catalog that was down, backups that nobody wrote down.

    The manifest decides over a run's state. A backup that should be in storage and is not, or a destination that cannot
    be read, ends the run as Failed with the name FoundProblems.
    """
    if stale := skip_if_stale():
        return stale
    end_zombie_runs()
    report = reconcile_catalog()
    unread = [f"destination {name} could not be read: {why}" for name, why in report.unread.items()]
    missing = [f"{label} is completed, but not in storage" for label in report.missing_in_storage]
    if problems := [*missing, *unread]:
        return found_problems("reconciling found what it cannot repair", problems)
    return report
