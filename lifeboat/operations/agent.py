"""Runs the agent in the foreground, until it is asked to end."""

import signal
import threading
from types import FrameType

from lifeboat.agent.agent import Agent
from lifeboat.operations.installation import Installation


def make_agent(installation: Installation, stopping: threading.Event) -> Agent:
    """The agent of an installation, not started."""
    settings = installation.settings
    return Agent(installation.source, installation.catalog, settings.platform.cluster, settings.agent, stopping)


def run_agent(installation: Installation) -> None:
    """Work until SIGINT, SIGTERM or SIGHUP, called from the main thread; raises only what nobody foresaw."""
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        make_agent(installation, stopping).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
