"""Runs the agent in the foreground, until it is asked to end."""

import threading

from lifeboat.agent.agent import Agent
from lifeboat.operations.installation import Installation
from lifeboat.operations.signals import stop_event


def make_agent(installation: Installation, stopping: threading.Event) -> Agent:
    """The agent of an installation, not started."""
    settings = installation.settings
    return Agent(installation.source, installation.catalog, settings.platform.cluster, settings.agent, stopping)


def run_agent(installation: Installation) -> None:
    """Work until SIGINT, SIGTERM or SIGHUP, called from the main thread; raises only what nobody foresaw."""
    with stop_event() as stopping:
        make_agent(installation, stopping).run()
