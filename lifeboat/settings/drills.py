"""Settings of restore drills: how much is fingerprinted, and what else proves a restored database."""

from typing import Literal, Self

from pydantic import Field, model_validator

from lifeboat.settings.base import Section

_MEBIBYTE = 1024 * 1024


class FingerprintBudget(Section):
    """How much table content is hashed at backup time; row counts are always taken."""

    fraction: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of the database's size whose content is hashed, smallest tables first.",
    )
    floor_bytes: int = Field(
        256 * _MEBIBYTE,
        ge=0,
        description="Content up to this size in bytes is hashed whatever the fraction says.",
    )

    def limit_bytes(self, database_bytes: int) -> int:
        """How many bytes of tables may be hashed in a database of that size in bytes."""
        return max(int(self.fraction * database_bytes), self.floor_bytes)


class ExactValue(Section):
    """The query returns one row, and its first column is this value."""

    equals: bool | int | float | str = Field(description="The value; a text is compared with the value's text form.")


class ValueRange(Section):
    """The query returns one row, and its first column is a number within these bounds, both included."""

    minimum: int | float | None = Field(None, description="The least value that is right.")
    maximum: int | float | None = Field(None, description="The greatest value that is right.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.minimum is None and self.maximum is None:
            raise ValueError("give a minimum, a maximum or both")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum} is above the maximum {self.maximum}")
        return self


Expectation = ExactValue | ValueRange | Literal["nonempty"]


class ValidationQuery(Section):
    """One question to the restored database and the answer that proves it."""

    name: str = Field(min_length=1, description="What the query proves, for the report.")
    sql: str = Field(min_length=1, description="One SELECT, VALUES, TABLE or WITH query.")
    expect: Expectation = Field(
        description='{ equals = 42 }, { minimum = 1, maximum = 9 } with either bound left out, or "nonempty".'
    )


class DrillSettings(Section):
    """What a fingerprint covers, and what a restore drill does beside comparing it."""

    fingerprint: FingerprintBudget = Field(FingerprintBudget(), description="How much content is hashed.")
    validation: list[ValidationQuery] = Field([], description="Queries that the restored database must answer.")
    validation_timeout_seconds: float = Field(300, gt=0, description="The longest that one validation query may run.")
    full_read: bool = Field(True, description="Read every table of the restored database once, TOAST included.")
    amcheck: bool = Field(True, description="Run pg_amcheck where the extension amcheck can be installed.")
    verifybackup: bool = Field(
        True, description="Check restored base backups with pg_verifybackup too, where the server has one that works."
    )
    timeout_seconds: float = Field(4 * 3600, gt=0, description="The longest that one tool of a drill may run.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [query.name for query in self.validation]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two validation queries are named {', '.join(twice)}")
        return self
