"""A backup as a run of its Prefect deployment; this module imports Prefect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

import typer

from console.cli.output import mark, notice, say, say_json
from deployments.triggering import TriggeredRun, trigger
from flows.problems import FOUND_PROBLEMS
from tasks.figures import duration_text, size_text

if TYPE_CHECKING:
    from lifeboat.operations.backup.inventory import ListedBackup
    from lifeboat.operations.installation import Installation

_FLOWS = {"config": "config-export"}
_WITH_ENGINE = {"full", "differential", "incremental"}


def trigger_backup(  # noqa: PLR0913 - the command's options
    installation: "Installation",
    kind: str,
    *,
    engine: str | None,
    destination: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Start the deployment for this kind of backup; with `wait` follow it to its end and exit as it ended."""
    flow = _FLOWS.get(kind, f"{kind}-backup")
    chosen = {"engine": engine if kind in _WITH_ENGINE else None, "destination": destination}
    parameters = {name: value for name, value in chosen.items() if value is not None}
    seen: list[TriggeredRun] = []

    def tell(run: TriggeredRun) -> None:
        seen.append(run)
        notice(f"{run.name}: {run.state_name.lower()}")

    timeout_seconds = None if wait else 0
    try:
        run = trigger(installation, f"{flow}/{flow}", parameters, timeout_seconds=timeout_seconds, on_update=tell)
    except KeyboardInterrupt:
        if seen:
            notice(f"only the waiting was interrupted, the run goes on: {seen[-1].url}")
        raise
    taken = _backups_of(installation, run.id) if run.succeeded else []
    if as_json:
        say_json({name: value for name, value in vars(run).items() if name != "artifacts"} | {"backups": taken})
    elif not run.ended:
        say(f"{run.name} is scheduled: {run.url}")
        notice("with --wait the command ends when the run does, and as it does")
    else:
        _show(run, taken)
    if run.ended and not run.succeeded:
        raise typer.Exit(3 if run.state_name == FOUND_PROBLEMS else 1)


def _show(run: TriggeredRun, taken: "Sequence[ListedBackup]") -> None:
    word = "completed" if run.succeeded else mark("failed")
    say(f"{run.name} {word} in {duration_text(run.duration_seconds)}: {run.url}")
    if not run.succeeded:
        say(f"  {run.state_name}: {run.message}")
    for backup in taken:
        size = size_text(backup.size_bytes)
        say(f"  {backup.label}: {backup.type} by {backup.engine}, {size}, at {backup.destination}")


def _backups_of(installation: "Installation", flow_run_id: UUID) -> "list[ListedBackup]":
    from lifeboat.operations.backup.inventory import list_backups

    found = list_backups(installation, ended_limit=0).backups
    return [backup for backup in found if backup.flow_run_id == flow_run_id]
