"""`lifeboat backup run`: through Prefect where a worker waits for it, in this process otherwise."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from console.cli.options import AsJson, Destination
from console.cli.output import notice, say, say_json
from console.cli.progress import Follower, follow
from console.cli.session import with_source
from tasks.figures import duration_text, size_text

if TYPE_CHECKING:
    from lifeboat.engines.engine import Progress
    from lifeboat.operations.installation import Installation
    from lifeboat.operations.results import BackupTaken


class Type(StrEnum):
    """What to take."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    INCREMENTAL = "incremental"
    LOGICAL = "logical"
    CONFIG = "config"


class EngineChoice(StrEnum):
    """What to take it with."""

    BASEBACKUP = "basebackup"
    PGBACKREST = "pgbackrest"
    PG_DUMP = "pg_dump"


def run(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    type_: Annotated[Type, typer.Option("--type", help="What to take; a full backup includes the configuration.")],
    engine: Annotated[EngineChoice | None, typer.Option("--engine", help="Else the settings' engine.")] = None,
    destination: Destination = None,
    wait: Annotated[bool, typer.Option("--wait", help="Through Prefect: wait until the run has ended.")] = False,
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Take it in this process, even if Prefect is there.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take a backup.

    It becomes a run of Prefect when its API answers and a worker waits, else it is taken in this process; so it is
    with --in-process. The result is the same, and so are the locks.
    """
    installation = with_source(context)
    _refuse_impossible(type_, engine)
    installation.destination(destination)
    if not in_process and _worker_waits(installation):
        from console.cli.backup_trigger import trigger_backup

        name = engine.value if engine else None
        trigger_backup(installation, type_.value, engine=name, destination=destination, wait=wait, as_json=as_json)
        return
    with follow(f"{type_} backup") as follower:
        taken = _take(installation, type_, engine, destination, follower)
    if as_json:
        say_json(taken)
        return
    for backup in taken:
        _show(backup)


def _refuse_impossible(type_: Type, engine: EngineChoice | None) -> None:
    if type_ is Type.LOGICAL and engine in {EngineChoice.BASEBACKUP, EngineChoice.PGBACKREST}:
        raise typer.BadParameter("a logical backup is taken by pg_dump")
    if type_ in {Type.DIFFERENTIAL, Type.INCREMENTAL} and engine is EngineChoice.PG_DUMP:
        raise typer.BadParameter(f"pg_dump takes no {type_} backup: leave out --engine")


def _worker_waits(installation: "Installation") -> bool:
    from lifeboat.operations.prefect_api import NoWorker, PrefectSilent, online_workers

    try:
        online_workers(installation)
    except (NoWorker, PrefectSilent) as error:
        notice(f"note: taken in this process, since {error.message}")
        return False
    return True


def _take(
    installation: "Installation",
    type_: Type,
    engine: EngineChoice | None,
    destination: str | None,
    follower: Follower,
) -> "list[BackupTaken]":
    from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
    from lifeboat.operations.export_configuration import export_configuration
    from lifeboat.storage.manifest import BackupType
    from tasks.engines import physical_engine, type_by_engine

    set_id = uuid4()
    if type_ is Type.CONFIG:
        return [export_configuration(installation, set_id=set_id, destination=destination)]

    def tell(progress: "Progress") -> None:
        follower.amount(progress.done_bytes, progress.total_bytes)

    asked, configured = engine.value if engine else None, installation.settings.backup.engine
    name = asked or ("pg_dump" if type_ is Type.LOGICAL else configured)
    if type_ in {Type.DIFFERENTIAL, Type.INCREMENTAL}:
        name = physical_engine(asked, configured)
    order = BackupOrder(type_by_engine(BackupType(type_.value), name), name, destination, set_id)
    taken = [take_backup(installation, order, tell)]
    if type_ is Type.FULL:
        follower.phase("configuration")
        taken.append(export_configuration(installation, set_id=set_id, destination=destination))
    return taken


def _show(backup: "BackupTaken") -> None:
    say(
        f"{backup.label}: {backup.type} by {backup.engine}, {size_text(backup.size_bytes)} in "
        f"{duration_text(backup.duration_seconds)}, at {backup.location}"
    )
    if backup.reason:
        notice(f"note: {backup.reason}")
    if backup.phases:
        phases = ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in backup.phases.items())
        notice(f"  {phases}")
