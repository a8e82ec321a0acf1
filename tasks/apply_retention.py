"""Applies a retention plan."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.backup import expire as operation
from lifeboat.operations.results import ExpiryReport
from lifeboat.retention.policy import ExpiryPlan
from tasks.reporting import report_expiry
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="apply-retention", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def apply_retention(plan: ExpiryPlan) -> ExpiryReport:
    """Expire what the plan says, unless storage has changed since, and report."""
    with at_work() as work:
        report = operation.apply_retention(work.installation, plan, flow_run_id=work.flow_run_id)
        report_expiry(plan.destination, report)
    return report
