"""Makes the catalog true."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations import reconcile as operation
from lifeboat.operations.results import ReconcileReport
from tasks.flow_runs import crash_zombies, flow_run_states
from tasks.reporting import report_reconciling
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="end-zombie-runs", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def end_zombie_runs() -> int:
    """Give flow runs that show no sign of life their end; returns how many."""
    with at_work() as work:
        return len(crash_zombies(work.installation))


@task(name="reconcile", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def reconcile_catalog() -> ReconcileReport:
    """Repair the catalog from storage, from the cluster's lock and from Prefect, and report what was repaired."""
    with at_work() as work:
        states = flow_run_states(operation.running_flow_runs(work.installation))
        report = operation.reconcile(work.installation, flow_run_states=states)
        report_reconciling(report)
    return report
