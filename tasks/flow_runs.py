"""What Prefect knows of our flow runs, and the end of those that died without a word."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import flow_run as present_run
from prefect.states import Cancelled, Crashed

from lifeboat.operations.installation import LOG, Installation
from lifeboat.postgres.lock import is_locked

OUR_TAG = "lifeboat"
BACKUP_TAG = "backup"
PAGE = 100
_OPEN = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"
_HEARTBEAT = "prefect.flow-run.heartbeat"


def find_flow_runs(
    client: SyncPrefectClient, wanted: Mapping[str, Any], *, work_pool: str | None = None, limit: int = PAGE
) -> list[FlowRun]:
    """The flow runs that match a filter in the API's own form, the last due first; at most `limit`."""
    pool = WorkPoolFilter.model_validate({"name": {"any_": [work_pool]}}) if work_pool else None
    chosen = FlowRunFilter.model_validate(wanted)
    # Without a sort the synchronous client sends one that the API refuses.
    sort = FlowRunSort.EXPECTED_START_TIME_DESC
    return client.read_flow_runs(flow_run_filter=chosen, work_pool_filter=pool, sort=sort, limit=limit)


def flow_run_states(identifiers: Sequence[UUID]) -> dict[UUID, str]:
    """The state types of flow runs by id; those that Prefect does not know (any more) are left out."""
    states: dict[UUID, str] = {}
    with get_client(sync_client=True) as client:
        for first in range(0, len(identifiers), PAGE):
            for run in find_flow_runs(client, {"id": {"any_": list(identifiers[first : first + PAGE])}}):
                if run.state_type is not None:
                    states[run.id] = run.state_type.value
    return states


def crash_zombies(installation: Installation) -> list[UUID]:
    """End the runs that have been open for long and show no sign of life; returns their ids.

    A sign of life is a process of the run on this host, a heartbeat within the time, or, for a backup, the cluster's
    lock. Runs that wait for their cancellation end as CANCELLED, the others as CRASHED.
    """
    quiet = timedelta(minutes=installation.settings.prefect.zombie_minutes)
    ended = []
    with get_client(sync_client=True) as client:
        for run in _open_runs(client, older_than=datetime.now(UTC) - quiet):
            if str(run.id) == present_run.id or _lives(client, installation, run, quiet):
                continue
            why = f"no sign of life for {quiet.total_seconds() / 60:.0f} minutes: its process is gone"
            end: State[None] = _end_of(run)(message=why)
            client.set_flow_run_state(run.id, end, force=True)
            LOG.warning("flow run %s ended as %s: %s", run.name, end.type.value, why)
            ended.append(run.id)
    return ended


def _open_runs(client: SyncPrefectClient, *, older_than: datetime) -> list[FlowRun]:
    ours = {"tags": {"all_": [OUR_TAG]}, "state": {"type": {"any_": _OPEN}}}
    runs = find_flow_runs(client, ours)
    return [run for run in runs if run.state is not None and run.state.timestamp < older_than]


def _end_of(run: FlowRun) -> Callable[..., State[None]]:
    return Cancelled if run.state_type is StateType.CANCELLING else Crashed


def _lives(client: SyncPrefectClient, installation: Installation, run: FlowRun, quiet: timedelta) -> bool:
    if _has_process(run.id) or _has_heartbeat(client, run.id, datetime.now(UTC) - quiet):
        return True
    return BACKUP_TAG in run.tags and is_locked(installation.source, installation.settings.platform.cluster) is not None


def _has_process(identifier: UUID) -> bool:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(_RUN_VARIABLE) == str(identifier):
                return True
    return False


def _has_heartbeat(client: SyncPrefectClient, identifier: UUID, since: datetime) -> bool:
    wanted = {
        "occurred": {"since": since.isoformat()},
        "event": {"name": [_HEARTBEAT]},
        "resource": {"id": [f"prefect.flow-run.{identifier}"]},
    }
    found = client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
    return bool(found.json()["events"])
