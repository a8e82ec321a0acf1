"""When a task tries again: our errors say whether that can help."""

from typing import Any, TypedDict

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun


def is_worth_a_retry(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed attempt ended in an error that calls itself transient; Prefect's `retry_condition_fn`."""
    del task, task_run
    return bool(getattr(state.data, "transient", False))


class Retries(TypedDict):
    """The options of `@task` that retry."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Any


TRANSIENT_ONLY = Retries(
    retries=3, retry_delay_seconds=[10, 40, 160], retry_jitter_factor=0.3, retry_condition_fn=is_worth_a_retry
)
