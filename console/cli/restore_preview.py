"""`lifeboat restore preview`."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson, Destination
from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from console.cli.restore_deep import show_deep_preview
from console.cli.restore_words import tell_next
from console.cli.session import installation_of

if TYPE_CHECKING:
    from lifeboat.operations.preview.quick import RestorePreview

At = Annotated[
    str, typer.Option("--at", metavar="T", help="`2026-11-22 14:03:22+01:00`, in UTC without a zone; `15m ago`.")
]
Timeline = Annotated[int | None, typer.Option("--timeline", metavar="N", help="A timeline; else the current one.")]
Deep = Annotated[bool, typer.Option("--deep", help="Restore in a scratch cluster and compare: exact, and slow.")]
NoIndex = Annotated[bool, typer.Option("--no-index", help="Answer at once, without the newest WAL.")]


def preview(  # noqa: PLR0913 - one option each
    context: typer.Context,
    at: At,
    timeline: Timeline = None,
    destination: Destination = None,
    no_index: NoIndex = False,
    deep: Deep = False,
    as_json: AsJson = False,
) -> None:
    """Show what a restore to a moment would undo, and what it needs. Nothing is restored.

    Rows by table, lost transactions, objects that come back or go, size, predicted time, space, version, extensions.
    The activity index is brought up to date first. It counts by time: `lifeboat restore points` tells the moment of a
    transaction or a named point.

    Exit code 1 when the moment cannot be had; the nearest one that can is named.
    """
    from datetime import UTC, datetime

    from lifeboat.operations.preview.quick import PreviewOrder, preview_restore
    from lifeboat.recovery.targets import parse_target

    target = parse_target(now=datetime.now(UTC), at=at, timeline=timeline)
    if deep:
        show_deep_preview(installation_of(context), target, destination, as_json=as_json)
        return
    with follow(f"looking at {target}"):
        found = preview_restore(installation_of(context), PreviewOrder(target, destination, update_index=not no_index))
    if as_json:
        say_json({"exact": found.exact, **vars(found)})
    else:
        _show(found)
        tell_next(installation_of(context), target, destination, ["--to", "new:DIRECTORY"])


def _show(found: "RestorePreview") -> None:
    from tasks.preview_report import (
        NUMBERS,
        OBJECT_COLUMNS,
        TABLE_COLUMNS,
        event_rows,
        facts,
        object_rows,
        remarks,
        table_rows,
    )

    rows = facts(found)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name:<{width}}  {value}")
    say()
    if found.tables:
        say("Changed since, and taken back by a restore:")
        say_table(TABLE_COLUMNS, table_rows(found), right=NUMBERS)
    elif found.transactions is not None:
        say("No committed row has changed since.")
    if found.objects:
        say()
        say_table(OBJECT_COLUMNS, object_rows(found))
    for at, text in event_rows(found):
        say(f"{at}  {text}")
    for text in remarks(found):
        notice(f"note: {text}")
