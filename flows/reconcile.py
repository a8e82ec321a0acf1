"""Reconciling: the catalog says what storage and Prefect say."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from lifeboat.operations.results import ReconcileReport
from tasks.reconcile import end_zombie_runs, reconcile_catalog
from tasks.staleness import skip_if_stale


@lifeboat_flow("reconcile")
def reconcile() -> ReconcileReport | State[Any]:
    """Repair what hooks could not see: killed workers, a catalog that was down, backups that nobody wrote down.

    The manifest decides over a run's state.
    """
    if stale := skip_if_stale():
        return stale
    end_zombie_runs()
    return reconcile_catalog()
