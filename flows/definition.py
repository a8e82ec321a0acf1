"""What all flows share: names that tell when, and for backups the hooks that mirror them into the catalog."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow
from prefect.flows import FlowStateHook
from prefect.runtime import flow_run

from flows.mirror import mirror_run

P = ParamSpec("P")
R = TypeVar("R")


def lifeboat_flow(name: str) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """`@flow` with a run name that ends in the time, as labels write it."""
    return flow(name=name, flow_run_name=_named(name), validate_parameters=True)


def backup_flow(name: str) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """`lifeboat_flow` whose runs are rows of `backups`, whatever becomes of them."""
    hooks: list[FlowStateHook[Any, Any]] = [mirror_run]
    return flow(
        name=name,
        flow_run_name=_named(name),
        validate_parameters=True,
        on_running=hooks,
        on_completion=hooks,
        on_failure=hooks,
        on_crashed=hooks,
        on_cancellation=hooks,
    )


def _named(name: str) -> Callable[[], str]:
    def run_name() -> str:
        due = flow_run.scheduled_start_time or datetime.now(UTC)
        return f"{name} {due.astimezone(UTC):%Y%m%d-%H%M%S}"

    return run_name
