"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Destination = Annotated[
    str | None, typer.Option("--destination", metavar="NAME", help="A destination of lifeboat.toml; else the default.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
