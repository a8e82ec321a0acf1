"""`lifeboat wal`: status, health, verify, index, receive, install; push and fetch run without this module (main.py)."""

from typing import Annotated

import typer

from console.cli import wal_index, wal_receive, wal_verify
from console.cli.options import AsJson
from console.cli.output import notice, say, say_json
from console.cli.session import installation_of
from console.cli.wal_status import show_health, show_status, status_as_json

app = typer.Typer(no_args_is_help=True)
app.command("verify")(wal_verify.verify)
app.command("receive")(wal_receive.receive)
app.command("index")(wal_index.index)
Acknowledge = Annotated[
    bool,
    typer.Option(
        "--acknowledge",
        help="Losses that a full backup bridges are warnings from now on; the wal-health flow does that by itself.",
    ),
]
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what the WAL archive holds and what it lacks.

    Also how far the server is ahead of it.

    Contiguous ranges by timeline, gaps, damaged files (also those that `wal verify` found), the server's archiver and
    replication slots.

    Exit code 3 when a range is not restorable: a gap, a short, empty or damaged segment. A gap in small letters is no
    reason for it: WAL that is on its way, or a loss that was told of and that a full backup bridges.
    """
    from lifeboat.operations.wal.health import gaps_that_matter
    from lifeboat.operations.wal.status import read_wal_status

    installation = installation_of(context)
    found = read_wal_status(installation)
    gaps = gaps_that_matter(installation, found)
    if as_json:
        say_json(status_as_json(found, gaps))
    else:
        show_status(found, gaps)
    if gaps or not found.intact:
        raise typer.Exit(3)


@app.command()
def health(context: typer.Context, as_json: AsJson = False, acknowledge: Acknowledge = False) -> None:
    """Judge archiving, and say what to do.

    Looks at archiver, gaps, replication slots and the agent's heartbeat.

    Behind a gap that no full backup bridges, the next differential or incremental backup becomes a full one.

    Exit code 3 when there is an alert; warnings alone are no reason for it.
    """
    from lifeboat.operations.wal.health import check_wal_health, remember_told

    installation = installation_of(context)
    report = check_wal_health(installation)
    if as_json:
        findings, wanted = report.verdict.findings, report.verdict.full_wanted
        say_json({"healthy": report.healthy, "findings": findings, "full_wanted": wanted, "server": report.server})
    else:
        show_health(report, installation.settings_file)
    if acknowledge:
        remember_told(installation, report)
    if not report.healthy:
        raise typer.Exit(3)


@app.command()
def install(context: typer.Context, as_json: AsJson = False) -> None:
    """Install the archive program; print what turns archiving on.

    Where pgBackRest archives, its configuration is written and its stanza created instead. The statements are for a
    superuser of the platform's server: Lifeboat does not change that server by itself.
    """
    from lifeboat.operations.wal.archive_setup import set_up_archiving

    setup = set_up_archiving(installation_of(context))
    if as_json:
        say_json({"statements": setup.statements, "needs_restart": setup.needs_restart, "program": setup.program})
        return
    notice(f"{setup.told}. Run this in the server, as a superuser:")
    for statement in setup.statements:
        say(statement)
    if setup.needs_restart:
        notice("Then restart the server: archive_mode needs it.")


@app.command(context_settings=_ANY_ARGUMENTS)
def push(context: typer.Context) -> None:
    """Archive one WAL file: what archive_command calls."""
    _run("push", context)


@app.command(context_settings=_ANY_ARGUMENTS)
def fetch(context: typer.Context) -> None:
    """Deliver one WAL file: what restore_command calls."""
    _run("fetch", context)


def _run(command: str, context: typer.Context) -> None:
    from lifeboat.wal import command_line

    raise typer.Exit(command_line.main(["lifeboat", "wal", command, *context.args]))
