"""Plans retention."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.backup import expire as operation
from lifeboat.retention.policy import ExpiryPlan
from tasks.reporting import report_plan
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="plan-retention", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def plan_retention(destination: str | None) -> ExpiryPlan:
    """Decide over every backup at a destination and show the plan; nothing is changed."""
    with at_work() as work:
        plan = operation.plan_retention(work.installation, destination)
        report_plan(plan)
    return plan
