"""`lifeboat storage`."""

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say_json, say_table
from console.cli.session import installation_of
from tasks.figures import size_text

app = typer.Typer(no_args_is_help=True)


@app.callback()
def storage() -> None:
    """Free space and what backups take, by destination."""


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how full each destination is and what of it is ours.

    Exit code 3 when one cannot be read.
    """
    from lifeboat.operations.storage_status import storage_status

    found = storage_status(installation_of(context))
    if as_json:
        say_json(found)
    else:
        columns = ("destination", "where", "backups", "size", "WAL", "free above the minimum", "of")
        rows = [
            (item.name, item.location, "cannot be read", *[""] * 4)
            if item.fault is not None
            else (
                item.name,
                item.location,
                ", ".join(f"{count} {kind}" for kind, count in (item.backups or {}).items()) or "none",
                size_text(item.backups_bytes),
                size_text(item.wal_bytes) if item.wal_bytes is not None else "",
                size_text(item.usable_bytes),
                size_text(item.total_bytes),
            )
            for item in found
        ]
        say_table(columns, rows, right=columns[3:])
        for item in found:
            if item.fault is not None:
                notice(f"{item.name}: {item.fault}")
            for label in item.unfinished:
                notice(f"{item.name} holds the unfinished folder {label}, which is no backup")
    if any(item.fault is not None for item in found):
        raise typer.Exit(3)
