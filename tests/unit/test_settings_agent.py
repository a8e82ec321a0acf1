"""The agent's settings make sense together."""

import pytest
from pydantic import ValidationError

from lifeboat.settings.agent import AgentSettings


def test_silence_is_longer_than_a_beat() -> None:
    assert AgentSettings(heartbeat_seconds=5, silence_seconds=5.1).silence_seconds == 5.1
    with pytest.raises(ValidationError, match=r"silence_seconds \(5\) must be more than heartbeat_seconds \(5\)"):
        AgentSettings(heartbeat_seconds=5, silence_seconds=5)


@pytest.mark.parametrize("field", ["heartbeat_seconds", "observe_seconds", "silence_seconds"])
def test_no_time_is_no_setting(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        AgentSettings.model_validate({field: 0})
