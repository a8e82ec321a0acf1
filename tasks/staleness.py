"""Scheduled runs that come too late: after an outage every missed one is submitted, and only the newest counts."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed

from lifeboat.operations.installation import Installation
from tasks.flow_runs import find_flow_runs

SKIPPED = "Skipped"
_DUE = ["SCHEDULED", "PENDING", "RUNNING"]


def skip_if_stale() -> State[None] | None:
    """The state `Skipped` for a scheduled run that starts too late while a newer one is due; None for all others."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or not run.auto_scheduled or run.expected_start_time is None or run.deployment_id is None:
        return None
    late = datetime.now(UTC) - run.expected_start_time
    if late < timedelta(minutes=Installation.load().settings.prefect.stale_minutes):
        return None
    if not _newer_is_due(run.deployment_id, run.expected_start_time):
        return None
    return Completed(
        name=SKIPPED, message=f"{late.total_seconds() / 60:.0f} minutes late, and a newer run of this deployment is due"
    )


def _newer_is_due(deployment_id: UUID, scheduled_at: datetime) -> bool:
    due = {
        "deployment_id": {"any_": [deployment_id]},
        "state": {"type": {"any_": _DUE}},
        "expected_start_time": {"after_": scheduled_at + timedelta(seconds=1), "before_": datetime.now(UTC)},
    }
    with get_client(sync_client=True) as client:
        return bool(find_flow_runs(client, due, limit=1))
