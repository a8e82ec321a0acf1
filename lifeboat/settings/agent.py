"""Settings of the resident agent (`[agent]` in lifeboat.toml)."""

from typing import Self

from pydantic import Field, model_validator

from lifeboat.settings.base import Section


class AgentSettings(Section):
    """The agent keeps restore targets fresh on a quiet server, and remembers what relations are called."""

    enabled: bool = Field(True, description="Whether `lifeboat up` runs the agent, and `doctor` misses its heartbeat.")
    heartbeat_seconds: float = Field(
        5.0, ge=0.1, le=3600, description="How often the heartbeat row is written: restores can aim that exactly."
    )
    observe_seconds: float = Field(
        30.0, ge=1, le=86400, description="How often pg_class of every database is looked at, for the names in WAL."
    )
    silence_seconds: float = Field(
        60.0, gt=0, description="A newest heartbeat older than this is an alarm: the agent, or its way in, is gone."
    )

    @model_validator(mode="after")
    def _silence_is_longer_than_a_beat(self) -> Self:
        if self.silence_seconds <= self.heartbeat_seconds:
            raise ValueError(
                f"silence_seconds ({self.silence_seconds:g}) must be more than heartbeat_seconds "
                f"({self.heartbeat_seconds:g})"
            )
        return self
