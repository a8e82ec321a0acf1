"""`lifeboat init`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson
from console.cli.output import say, say_json
from console.cli.session import session_of


def command(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    embedded: Annotated[bool, typer.Option("--embedded", help="Run our own PostgreSQL 18 and protect that.")] = False,
    dsn: Annotated[
        str | None,
        typer.Option("--dsn", help="Connection string of the server to protect; `-` reads it from stdin."),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            "--state-dir", metavar="PATH", help="Lifeboat's own files: keys, scratch clusters, Prefect's home."
        ),
    ] = None,
    backups: Annotated[
        Path | None,
        typer.Option("--backups", metavar="PATH", help="Where backups go; by default below the state folder."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a commented lifeboat.toml to start from, and the signing key; nothing that exists is replaced."""
    from lifeboat.operations.initialise import default_state_dir, initialise
    from lifeboat.settings.own_command import own_command

    if embedded == (dsn is not None):
        raise typer.BadParameter("say either --embedded or --dsn: one of them, not both")
    made = initialise(
        (session_of(context).config or Path("lifeboat.toml")).absolute(),
        dsn=sys.stdin.readline().strip() if dsn == "-" else dsn,
        state_dir=(state_dir or default_state_dir()).absolute(),
        destination=backups.absolute() if backups else None,
    )
    if as_json:
        say_json(made)
        return
    say(f"settings     {made.settings_file}")
    say(f"state        {made.state_dir}")
    say(f"backups      {made.destination}")
    say(f"signing key  {made.signing_key} (key {made.key_id}): keep a copy of it elsewhere")
    say("\nNext:")
    then = ("up",) if embedded else ("wal install", "catalog migrate")
    for words in ("doctor", *then, "backup run --type full"):
        say(f"  {own_command(made.settings_file, *words.split())}")
