"""Doctor and the agent: silence is told, by the server's own clock."""

from lifeboat.agent.heartbeat import beat, prepare_heartbeat
from lifeboat.operations.doctor.agent import check_agent
from lifeboat.operations.doctor.results import CheckResult, CheckStatus
from lifeboat.operations.doctor.source import read_source
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from tests.support.agent import beat_after, running_agent
from tests.support.installation import make_installation


def examine(installation: Installation) -> CheckResult:
    (result,) = check_agent(installation, read_source(installation))
    return result


def test_no_heartbeat_a_young_one_and_silence(installation: Installation) -> None:
    never = examine(installation)
    assert (never.status, never.fix is not None and never.fix.startswith("lifeboat agent")) == (
        CheckStatus.WARNING,
        True,
    )
    with running_agent(installation.source, installation.catalog):
        beat_after(installation.source)
        beating = examine(installation)
    assert beating.status is CheckStatus.OK, beating
    assert "by lifeboat agent (pid " in beating.detail
    with connect(installation.source, autocommit=True) as session:
        session.execute("UPDATE lifeboat.heartbeat SET at = at - interval '3 hours'")
    silent = examine(installation)
    assert silent.status is CheckStatus.FAILED
    assert "the newest heartbeat is 3 hours old; no agent is connected" in silent.detail


def test_an_agent_that_is_there_and_does_not_write_is_named(installation: Installation) -> None:
    with running_agent(installation.source, installation.catalog, heartbeat_seconds=30):
        at = beat_after(installation.source)
        with connect(installation.source, autocommit=True) as session:
            session.execute("UPDATE lifeboat.heartbeat SET at = %s - interval '2 minutes'", (at,))
        result = examine(installation)
    assert result.status is CheckStatus.FAILED
    assert "is there, and does not write" in result.detail


def test_a_platform_without_an_agent_by_decision_is_no_fault(installation: Installation) -> None:
    with connect(installation.source, autocommit=True) as session:
        assert prepare_heartbeat(session)
        beat(session, "test")
        session.execute("UPDATE lifeboat.heartbeat SET at = at - interval '3 hours'")
    settings = installation.settings
    without = make_installation(settings.state_dir.parent, installation.tools, agent={"enabled": False})
    assert examine(without).status is CheckStatus.SKIPPED
