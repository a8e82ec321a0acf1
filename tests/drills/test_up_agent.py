"""`lifeboat up` runs the agent, and starts it again when it ends."""

import psutil

from tests.support.agent import beat_after, soon
from tests.support.prefect import Services, services

__all__ = ["services"]  # a fixture


def test_up_runs_the_agent_and_replaces_a_killed_one(services: Services) -> None:
    assert services.running is not None
    agent = services.running.agent
    assert agent is not None
    before = beat_after(services.installation.source)
    soon(lambda: "public.characters" in {name.name for name in services.installation.catalog.relations.names("studio")})
    pid = agent.pid
    assert pid is not None
    psutil.Process(pid).kill()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
    soon(lambda: agent.pid != pid)
    services.running.check()
    soon(lambda: agent.pid not in {None, pid})
    beat_after(services.installation.source, before)
