"""The deployments as `prefect.yaml` declares them. The file is the truth; Prefect's own CLI reads it too."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from lifeboat.errors import SettingsError

DEFAULT_SLUG_PREFIX = "lifeboat-default-"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScheduleDefinition(_Entry):
    """One default schedule; every one has a slug (PREFECT rule 7)."""

    slug: str = Field(pattern=f"^{DEFAULT_SLUG_PREFIX}[a-z0-9-]+$")
    cron: str
    timezone: str = "UTC"
    active: bool = True


class WorkPool(_Entry):
    """The work pool that runs a deployment."""

    name: str


class DeploymentDefinition(_Entry):
    """One deployment."""

    name: str
    entrypoint: str = Field(pattern=r"^flows\.[a-z_]+:[a-z_]+$")
    description: str
    tags: list[str]
    parameters: dict[str, Any]
    work_pool: WorkPool
    schedules: list[ScheduleDefinition]


class Registry(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pull: list[dict[str, dict[str, str]]] = Field(min_length=1)
    deployments: list[DeploymentDefinition] = Field(min_length=1)


def load_registry() -> Registry:
    """Read `prefect.yaml`; raises SettingsError when it is not there or is not what we understand."""
    path = registry_file()
    try:
        return Registry.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read the deployments in {path}: {error}") from error


def registry_file() -> Path:
    """`prefect.yaml`: package data in a wheel, at the root of a checkout."""
    package = Path(str(files("lifeboat")))
    packaged = package / "_data" / "prefect.yaml"
    return packaged if packaged.is_file() else package.parent / "prefect.yaml"
