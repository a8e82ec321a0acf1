"""Artifacts and events of a run. They tell of work that is done: none of them may make it fail."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger

TABLE_ROWS_MAX = 500


def publish_markdown(key: str, text: str, description: str) -> None:
    """Show a Markdown page on the run, and in the history of `key`."""
    with never_failing(f"artifact {key}"):
        create_markdown_artifact(text, key=key, description=description)


def publish_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show a table of at most TABLE_ROWS_MAX rows on the run, and in the history of `key`."""
    with never_failing(f"artifact {key}"):
        create_table_artifact([dict(row) for row in rows[:TABLE_ROWS_MAX]], key=key, description=description)


def announce(event: str, *, kind: str, identifier: object, name: str, payload: Mapping[str, Any]) -> None:
    """Emit the event `lifeboat.<event>` about the resource `lifeboat.<kind>.<identifier>`; no secrets in `payload`."""
    with never_failing(f"event lifeboat.{event}"):
        resource = {"prefect.resource.id": f"lifeboat.{kind}.{identifier}", "prefect.resource.name": name}
        emit_event(f"lifeboat.{event}", resource=resource, payload=dict(payload))


@contextmanager
def never_failing(what: str) -> Iterator[None]:
    """Log instead of failing: what is told about is done already."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever the API says, the work itself is done
        get_run_logger().warning("could not publish the %s: %s", what, error)
