"""`lifeboat note`: what somebody knows about a moment, shown among the restore points."""

from typing import Annotated

import typer

from console.cli.options import AsJson
from console.cli.output import say, say_json, say_table
from console.cli.session import installation_of
from tasks.figures import time_text

app = typer.Typer(no_args_is_help=True)

_ID_DIGITS = 8


@app.command()
def add(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What happened, or is about to.")],
    at: Annotated[
        str, typer.Option("--at", metavar="T", help="When: `2026-11-22 14:03:22+01:00`, `15m ago`, `now`.")
    ] = "now",
    as_json: AsJson = False,
) -> None:
    """Remember a note on a moment.

    It is in storage first, and then in the catalog.
    """
    from datetime import UTC, datetime

    from lifeboat.operations.points.notes import add_note
    from lifeboat.recovery.targets import parse_time

    record = add_note(installation_of(context), parse_time(at, datetime.now(UTC)), text)
    if as_json:
        say_json(record)
    else:
        say(f"{str(record.id)[:_ID_DIGITS]}: {time_text(record.at)}: {record.text}")


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the notes, oldest moment first; read from storage."""
    from lifeboat.operations.points.notes import list_notes

    records = list_notes(installation_of(context))
    if as_json:
        say_json(records)
    elif records:
        rows = [(str(each.id)[:_ID_DIGITS], time_text(each.at), each.text, each.actor) for each in records]
        say_table(("note", "at", "what", "who"), rows)
    else:
        say("There are no notes: `lifeboat note add --at T TEXT`.")


@app.command()
def remove(
    context: typer.Context,
    note: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning of it.")],
    as_json: AsJson = False,
) -> None:
    """Take a note back; storage keeps that it was there."""
    from lifeboat.operations.points.notes import remove_note

    record = remove_note(installation_of(context), note)
    if as_json:
        say_json({"id": record.id, "removed": True})
    else:
        say(f"removed: {time_text(record.at)}: {record.text}")
