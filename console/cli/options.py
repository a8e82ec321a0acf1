"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Destination = Annotated[
    str | None, typer.Option("--destination", metavar="NAME", help="A destination of lifeboat.toml; else the default.")
]
Yes = Annotated[
    str | None, typer.Option("--yes", metavar="HASH", help="Do not ask: do it if the plan still has this hash.")
]
