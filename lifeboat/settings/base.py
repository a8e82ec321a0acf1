"""The base of every settings model: immutable, and a key that is not understood is refused."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """One section of lifeboat.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _absolute(path: Path) -> Path:
    expanded = path.expanduser()
    if not expanded.is_absolute():
        raise ValueError(f"{path} is not an absolute path (`~` is understood)")
    return expanded


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
