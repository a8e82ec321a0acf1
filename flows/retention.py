"""Retention: plan what expires, show the plan, apply it."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from lifeboat.operations.results import ExpiryReport
from lifeboat.retention.policy import ExpiryPlan
from tasks.apply_retention import apply_retention
from tasks.plan_retention import plan_retention
from tasks.staleness import skip_if_stale


@lifeboat_flow("retention")
def retention(destination: str | None = None, dry_run: bool = False) -> ExpiryPlan | ExpiryReport | State[Any]:
    """Expire what the rules say; the guards keep what must never go, whatever the rules say.

    Args:
        destination: A destination of lifeboat.toml; without it, the default one.
        dry_run: Show the plan only.
    """
    if stale := skip_if_stale():
        return stale
    plan = plan_retention(destination)
    if dry_run:
        return plan
    return apply_retention(plan)
