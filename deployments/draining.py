"""Lets running flows end before the worker does: a worker that ends first leaves them RUNNING for ever."""

import time
from collections.abc import Callable
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from tasks.flow_runs import find_flow_runs

_OPEN = ["RUNNING", "PENDING", "CANCELLING"]
_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 60.0


class DrainMark:
    """Remembers that we paused the work pool, so that the next start resumes it, but never somebody else's pause."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def pause(self, client: SyncPrefectClient, pool: str) -> None:
        """Stop runs from starting."""
        if client.read_work_pool(pool).is_paused:
            return
        self._path.touch()
        client.update_work_pool(pool, WorkPoolUpdate(is_paused=True))

    def resume(self, client: SyncPrefectClient, pool: str) -> None:
        """Let runs start again, if it was us who stopped them."""
        if self._path.exists():
            client.update_work_pool(pool, WorkPoolUpdate(is_paused=False))
            self._path.unlink()


def drain(
    client: SyncPrefectClient,
    pool: str,
    *,
    limit_seconds: float,
    hurry: Callable[[], bool],
    say: Callable[[str], None],
) -> bool:
    """Wait until no flow runs in `pool`; after the limit, or once `hurry` says so, cancel what is left.

    Returns whether none was left.
    """
    runs = _wait(client, pool, limit_seconds, hurry, say)
    if not runs:
        return True
    say(f"cancelling {_named(runs)}")
    for run in runs:
        client.set_flow_run_state(run.id, Cancelling(message="Lifeboat is stopping."))
    return not _wait(client, pool, _CANCEL_SECONDS, lambda: False, lambda text: None)


def _wait(
    client: SyncPrefectClient, pool: str, limit_seconds: float, hurry: Callable[[], bool], say: Callable[[str], None]
) -> list[FlowRun]:
    deadline, told = time.monotonic() + limit_seconds, ""
    while runs := _open_runs(client, pool):
        if time.monotonic() >= deadline or hurry():
            return runs
        if (names := _named(runs)) != told:
            say(f"waiting up to {limit_seconds:.0f} s for {names}; interrupt again to cancel")
            told = names
        time.sleep(_POLL_SECONDS)
    return []


def _open_runs(client: SyncPrefectClient, pool: str) -> list[FlowRun]:
    return find_flow_runs(client, {"state": {"type": {"any_": _OPEN}}}, work_pool=pool)


def _named(runs: list[FlowRun]) -> str:
    return ", ".join(sorted(run.name for run in runs))
