"""`lifeboat restore`: each subcommand has a module of its own."""

import typer

from console.cli import restore_points, restore_preview, restore_run

app = typer.Typer(no_args_is_help=True)
app.command("points")(restore_points.points)
app.command("preview")(restore_preview.preview)
app.add_typer(restore_points.point, name="point")
app.command("run")(restore_run.run)
