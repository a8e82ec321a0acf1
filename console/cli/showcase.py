"""`lifeboat demo`."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="PATH", help="Where the demo lives; it is kept for the next time."),
    ] = None,
) -> None:
    """Play the whole loop on a small studio, and show evidence for every step."""
    from console.cli.demo import run

    raise typer.Exit(run(directory))
