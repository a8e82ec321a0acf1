"""Whose a Prefect deployment is: a flow run backs up the platform of the settings that its worker was started with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.installation import Installation
from lifeboat.settings.loading import CONFIG_VARIABLE

_FILE_LABEL = "lifeboat/settings-file"
_CLUSTER_LABEL = "lifeboat/cluster"


class ForeignDeployment(PermanentError):
    """A deployment on this Prefect server belongs to another installation."""


@dataclass(frozen=True)
class DeploymentOwner:
    """The installation that a deployment was made by."""

    settings_file: str
    cluster: str

    @classmethod
    def of(cls, installation: Installation) -> "DeploymentOwner":
        """This installation; raises SettingsError without a settings file."""
        if installation.settings_file is None:
            raise SettingsError("deployments need a settings file", hint="Name it with --config.")
        return cls(str(installation.settings_file.resolve()), installation.settings.platform.cluster)

    @classmethod
    def written_in(cls, job_variables: Mapping[str, Any] | None) -> "DeploymentOwner | None":
        """The owner that a deployment's job variables name; `prefect deploy` names none."""
        labels = (job_variables or {}).get("labels") or {}
        if _FILE_LABEL not in labels or _CLUSTER_LABEL not in labels:
            return None
        return cls(str(labels[_FILE_LABEL]), str(labels[_CLUSTER_LABEL]))

    def job_variables(self, present: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The job variables that name this owner; what an administrator has set beside them stays."""
        kept = dict(present or {})
        labels = {_FILE_LABEL: self.settings_file, _CLUSTER_LABEL: self.cluster}
        # Whichever worker takes the run: it reads these settings, or fails where they are not.
        variables = {CONFIG_VARIABLE: self.settings_file}
        return {
            **kept,
            "labels": {**(kept.get("labels") or {}), **labels},
            "env": {**(kept.get("env") or {}), **variables},
        }

    def __str__(self) -> str:
        return f"{self.settings_file} (cluster {self.cluster})"


def refuse_foreign(name: str, job_variables: Mapping[str, Any] | None, ours: DeploymentOwner, api_url: str) -> None:
    """Raise ForeignDeployment when the deployment `flow/deployment` names another owner than ours."""
    theirs = DeploymentOwner.written_in(job_variables)
    if theirs is None or theirs == ours:
        return
    raise ForeignDeployment(
        f"the deployment {name} at {api_url} belongs to {theirs}, not to {ours}",
        hint="Give each installation a Prefect server of its own: another `prefect.port`, without `prefect.api_url`. "
        "Where the other one is gone, delete its deployments there and run `lifeboat up`.",
    )
