"""`lifeboat schedule`."""

from typing import TYPE_CHECKING

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say_json, say_table
from console.cli.session import installation_of

if TYPE_CHECKING:
    from lifeboat.operations.installation import Installation

app = typer.Typer(no_args_is_help=True)


@app.callback()
def schedule() -> None:
    """The backup schedules."""


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the schedules, or the defaults while there are none."""
    source, rows, remark = _schedules(installation_of(context))
    if as_json:
        say_json({"source": source, "schedules": rows, "remark": remark})
        return
    columns = ("name", "what", "cron", "timezone", "enabled", "destination")
    say_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    notice(f"note: {remark}" if remark else f"from {source}")


def _schedules(installation: "Installation") -> tuple[str, list[dict[str, object]], str | None]:
    from deployments.registry import load_registry, registry_file
    from lifeboat.catalog.store import CatalogError

    try:
        stored = installation.catalog.schedules.list_schedules()
        remark = "the table of schedules is empty: these are the defaults that Prefect was given"
    except CatalogError as error:
        stored, remark = [], f"these are the defaults, the catalog cannot be asked: {error.message}"
    if stored:
        rows: list[dict[str, object]] = [
            {
                "id": row.id,
                "name": row.name,
                "what": row.type,
                "cron": row.schedule,
                "timezone": row.timezone,
                "enabled": row.enabled,
                "destination": row.destination,
            }
            for row in stored
        ]
        return "the catalog", rows, None
    defaults: list[dict[str, object]] = [
        {
            "id": None,
            "name": each.slug,
            "what": deployment.name,
            "cron": each.cron,
            "timezone": each.timezone,
            "enabled": each.active,
            "destination": None,
        }
        for deployment in load_registry().deployments
        for each in deployment.schedules
    ]
    return str(registry_file()), defaults, remark


def _cell(value: object) -> object:
    return {True: "yes", False: "no", None: "default"}.get(value, value) if isinstance(value, bool | None) else value
