"""Doctor's check of the agent: does its heart beat? Its silence is an alarm (DESIGN 7)."""

from collections.abc import Iterator
from contextlib import closing

from lifeboat.agent.heartbeat import heartbeat_age_seconds
from lifeboat.agent.lock import running_agent
from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import SourceFacts
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.postgres.lock import LOCK_DATABASE

_START = "lifeboat agent   # in the foreground; `lifeboat up` runs it too, and its log says what is in the way"


def check_agent(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Is the newest heartbeat young, and who writes it?"""
    settings = installation.settings.agent
    if not settings.enabled:
        yield skipped("agent", "`agent.enabled` is false: on a quiet server restores cannot aim at recent seconds")
        return
    if facts.in_recovery:
        yield skipped("agent", "the source is in recovery and takes no heartbeat")
        return
    with closing(connect(installation.source, application_name="lifeboat doctor", autocommit=True)) as session:
        age = heartbeat_age_seconds(session)
    lock_database = installation.source.with_database(LOCK_DATABASE)
    with closing(connect(lock_database, application_name="lifeboat doctor", autocommit=True)) as session:
        holder = running_agent(session)
    if age is None:
        detail = "there has never been a heartbeat: on a quiet server restores cannot aim at recent seconds"
        yield warning("agent", f"{detail}{f', although {holder} is there' if holder else ''}", _START)
    elif age > settings.silence_seconds:
        who = f"{holder} is there, and does not write" if holder else "no agent is connected"
        yield failed("agent", f"the newest heartbeat is {_age_text(age)} old; {who}", _START)
    else:
        yield ok("agent", f"the newest heartbeat is {max(age, 0):.0f} s old{f', by {holder}' if holder else ''}")


def _age_text(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
