"""`lifeboat agent`."""

import logging

import typer

from console.cli.session import installation_of


def command(context: typer.Context) -> None:
    """Write the heartbeat and observe relation names, in the foreground, until Ctrl-C or SIGTERM.

    It reconnects for ever. A second agent of the same cluster waits until the first one has ended.
    """
    installation = installation_of(context)
    log = logging.getLogger("lifeboat")
    # It is watched through its log: what it does has to be there without --verbose.
    log.setLevel(min(log.level, logging.INFO))
    from lifeboat.operations.agent import run_agent

    run_agent(installation)
