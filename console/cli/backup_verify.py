"""`lifeboat backup verify`: a restore drill, or the integrity check alone."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson, Destination
from console.cli.output import mark, notice, say, say_json
from console.cli.progress import follow
from console.cli.session import installation_of
from tasks.figures import duration_text

if TYPE_CHECKING:
    from lifeboat.engines.engine import Progress
    from lifeboat.operations.installation import Installation
    from lifeboat.operations.results import DrillReport


class Target(StrEnum):
    """Where a drill restores to."""

    SCRATCH = "scratch"
    DATABASE = "database"


def verify(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    backup: Annotated[str, typer.Argument(metavar="ID|latest", help="A label, an id, or `latest`.")],
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only read every object and compare checksums; proves no restore.")
    ] = False,
    target: Annotated[
        Target, typer.Option("--target", help="A scratch cluster, or for dumps a temporary database.")
    ] = (Target.SCRATCH),
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Prove a backup by restoring it in isolation.

    The restored database is compared with the backup's fingerprint and answers the validation queries.
    Exit code 3 when the backup is not what it should be.
    """
    installation = installation_of(context)
    if check_only:
        _check(installation, backup, destination, as_json=as_json)
    else:
        _drill(installation, backup, target, destination, as_json=as_json)


def _check(installation: "Installation", backup: str, destination: str | None, *, as_json: bool) -> None:
    from lifeboat.operations.backup.integrity import check_backup
    from lifeboat.operations.backup.selection import find_backup
    from lifeboat.operations.pgbackrest.repository import check_in_repository

    repository = installation.repository(destination)
    manifest = find_backup(repository, backup).manifest
    with follow(f"checking {manifest.label}") as follower:
        faults = check_backup(
            repository,
            manifest,
            follower.amount,
            check_elsewhere=lambda chain: check_in_repository(installation, repository, chain),
        )
    if as_json:
        say_json({"id": manifest.id, "label": manifest.label, "sound": not faults, "faults": faults})
    elif faults:
        say(f"{manifest.label}: {mark('damaged')}")
        for fault in faults:
            say(f"  {fault}")
    else:
        say(f"{manifest.label}: every object of it and of what it depends on is as its manifest says")
        notice("note: only a restore drill proves that it can be restored: leave out --check-only")
    if faults:
        raise typer.Exit(3)


def _drill(
    installation: "Installation", backup: str, target: Target, destination: str | None, *, as_json: bool
) -> None:
    from lifeboat.operations.backup.selection import find_backup
    from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill

    label = find_backup(installation.repository(destination), backup).manifest.label
    order = DrillOrder(backup=label, destination=destination, target=target.value)
    with follow(f"restore drill of {label}") as follower:

        def tell(progress: "Progress") -> None:
            follower.amount(progress.done_bytes, progress.total_bytes)

        report = run_drill(installation, order, follower.phase, tell)
    if as_json:
        say_json({"passed": report.passed, **vars(report)})
    else:
        _show(report)
    if not report.passed:
        raise typer.Exit(3)


def _show(report: "DrillReport") -> None:
    seconds = (report.completed_at - report.started_at).total_seconds()
    say(f"{report.label}: the drill {'passed' if report.passed else mark('failed')} in {duration_text(seconds)}")
    say("  " + ", ".join(f"{name} {duration_text(took)}" for name, took in report.phases.items()))
    say(f"  {report.compared_tables} tables are equal to the fingerprint, {len(report.not_compared)} were not compared")
    for line in report.not_compared:
        say(f"    {line}")
    for name, passed, answer in report.validations:
        say(f"  validation {name}: {'passed' if passed else mark('failed')}, {answer}")
    for note in report.notes:
        say(f"  note: {note}")
    for fault in report.faults:
        say(f"  FAULT {fault}")
