"""Reconciling: the catalog says what storage and Prefect say."""

from flows.definition import lifeboat_flow
from lifeboat.operations.results import ReconcileReport
from tasks.reconcile import end_zombie_runs, reconcile_catalog


@lifeboat_flow("reconcile")
def reconcile() -> ReconcileReport:
    """Repair what hooks could not see: killed workers, a catalog that was down, backups that nobody wrote down.

    The manifest decides over a run's state.
    """
    end_zombie_runs()
    return reconcile_catalog()
