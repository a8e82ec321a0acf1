"""Settings of the asset check: where the files are and which query says what they should be."""

from typing import Self

from pydantic import Field, model_validator

from lifeboat.settings.base import AbsolutePath, Section


class AssetSettings(Section):
    """The files that the platform's database refers to; without `roots` and `query` nothing is checked."""

    roots: list[AbsolutePath] = Field(
        [], description="Folders that hold the files; a path from the query is looked up in each, in order."
    )
    query: str | None = Field(
        None,
        min_length=1,
        description="A row per file: unique id, kind, path (relative to a root), size_bytes, sha256.",
    )
    mount: bool = Field(False, description="Refuse unless something is mounted at each root or above it.")
    workers: int | None = Field(
        None, ge=1, le=256, description="Files read side by side; nothing means two per core, at most 32."
    )
    resume: bool = Field(True, description="Go on where an interrupted check stopped.")
    resume_hours: float = Field(24, gt=0, description="An interrupted check older than this starts again.")
    sample_fraction: float = Field(
        1.0, gt=0, le=1, description="The share of files that one check reads, drawn anew each time."
    )
    bytes_per_second: int | None = Field(
        None, ge=1024, description="The most that is read per second; nothing means as fast as it goes."
    )
    nice: int = Field(0, ge=0, le=19, description="Lowers the CPU, and so the I/O, priority of the threads that read.")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if bool(self.roots) != bool(self.query):
            raise ValueError("roots and query belong together: set both or neither")
        return self

    @property
    def configured(self) -> bool:
        """Whether there is anything to check."""
        return self.query is not None
