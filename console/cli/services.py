"""`lifeboat up`."""

import typer

from console.cli.output import say_now
from console.cli.session import installation_of


def command(context: typer.Context) -> None:
    """Start embedded PostgreSQL, Prefect server, agent, worker and deployments; run until Ctrl-C, then stop cleanly.

    The first Ctrl-C lets running flows end; a second one cancels them.
    """
    installation = installation_of(context)
    say_now("loading Prefect")
    from deployments.services import run_until_signalled

    run_until_signalled(installation, say_now)
