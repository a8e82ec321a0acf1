"""`lifeboat catalog`."""

from collections.abc import Iterable

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say, say_json
from console.cli.session import installation_of, with_source
from tasks.figures import count_text

app = typer.Typer(no_args_is_help=True)


@app.command()
def migrate(context: typer.Context, as_json: AsJson = False) -> None:
    """Create the catalog's tables, or bring them to this version."""
    from lifeboat.catalog.migrate import migrate as migrate_catalog

    settings = installation_of(context).settings
    done = migrate_catalog(
        (installation_of(context) if settings.catalog.dsn else with_source(context)).catalog_connection
    )
    if as_json:
        say_json({"before": done.before, "after": done.after, "changed": done.changed})
    elif done.changed:
        say(f"The catalog is now of revision {done.after} (it was {done.before or 'empty'}).")
    else:
        say(f"The catalog is of revision {done.after} already.")


@app.command()
def reconcile(context: typer.Context, as_json: AsJson = False) -> None:
    """Make the catalog agree with storage and with what runs.

    Storage decides. Exit code 3 when a backup that the catalog knows is not in storage, 1 when a destination cannot be
    read.
    """
    from lifeboat.operations.reconcile import reconcile as reconcile_catalog

    installation = installation_of(context)
    report = reconcile_catalog(installation if installation.settings.catalog.dsn else with_source(context))
    if as_json:
        say_json(report)
    else:
        for items, noun, done in (
            (report.adopted, "backup", "taken over from storage"),
            ([f"{row} {status}" for row, status in report.repaired], "row", "corrected"),
            (list(map(str, report.removed_scratch)), "abandoned scratch cluster", "removed"),
            (report.removed_databases, "abandoned drill database", "dropped"),
            (report.annotations, "annotation", "made as storage has it"),
            (report.missing_in_storage, "backup", "missing in storage"),
        ):
            say(f"{count_text(len(items), noun)} {done}{_names(items)}")
    if report.unread:
        notice(f"not reconciled, since it cannot be read: {', '.join(report.unread)}")
        raise typer.Exit(1)
    if report.missing_in_storage:
        raise typer.Exit(3)


def _names(items: Iterable[str]) -> str:
    listed = ", ".join(items)
    return f": {listed}" if listed else ""
