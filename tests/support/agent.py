"""An agent that works while a test looks at what it does."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from lifeboat.agent.agent import Agent
from lifeboat.agent.heartbeat import newest_heartbeat
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.settings.agent import AgentSettings


@contextmanager
def running_agent(
    source: str | ConnectionInfo, catalog: Catalog, *, cluster: str = "studio", heartbeat_seconds: float = 0.1
) -> Iterator[Agent]:
    """An agent in a thread of its own; what it raised is raised at the end."""
    settings = AgentSettings(heartbeat_seconds=heartbeat_seconds, observe_seconds=1)
    agent = Agent(ConnectionInfo.parse(source), catalog, cluster, settings)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - raised where the test can see it
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield agent
    finally:
        agent.stopping.set()
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []


def beat_after(source: str | ConnectionInfo, after: datetime | None = None, *, timeout_seconds: float = 60) -> datetime:
    """Wait for a heartbeat, a later one than `after`."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        with connect(source, autocommit=True) as session:
            found = newest_heartbeat(session)
        if found is not None and (after is None or found > after):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no heartbeat after {after} within {timeout_seconds} s")


def soon(what: Callable[[], bool], *, timeout_seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
