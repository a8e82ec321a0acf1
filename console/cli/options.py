"""Options that several commands share."""

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
Destination = Annotated[
    str | None, typer.Option("--destination", metavar="NAME", help="A destination of lifeboat.toml; else the default.")
]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="`2026-11-22 14:03:22+01:00`, or `15m ago`.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="A named restore point.")]
Lsn = Annotated[str | None, typer.Option("--lsn", metavar="LSN", help="A WAL position.")]
Xid = Annotated[str | None, typer.Option("--xid", metavar="XID", help="A transaction.")]
Backup = Annotated[str | None, typer.Option("--backup", metavar="ID", help="The end of a backup.")]
Timeline = Annotated[int | None, typer.Option("--timeline", metavar="N", help="A timeline; else the current one.")]
Before = Annotated[bool, typer.Option("--before", help="Stop just before the target, not behind it.")]
Yes = Annotated[
    str | None, typer.Option("--yes", metavar="HASH", help="Do not ask: do it if the plan still has this hash.")
]
