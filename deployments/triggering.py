"""Starts a deployment and waits for its end."""

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import ArtifactSort
from prefect.exceptions import ObjectNotFound
from prefect.utilities.schema_tools import validate

from deployments.api import prefect_api, run_url
from lifeboat.errors import PermanentError, SettingsError, TransientError
from lifeboat.operations.deployment_owner import DeploymentOwner, refuse_foreign
from lifeboat.operations.installation import Installation
from lifeboat.settings.prefect import PrefectSettings

_POLL_SECONDS = 0.5
_ARTIFACTS_MAX = 200


class NoSuchDeployment(PermanentError):
    """Prefect has no deployment of that name."""


class RunTooLong(TransientError):
    """The flow run did not end in time; it goes on."""


@dataclass(frozen=True)
class PublishedArtifact:
    """One artifact of a run; `data` is Markdown text, a table as JSON, or a percentage."""

    key: str
    type: str
    description: str
    data: Any


@dataclass(frozen=True)
class TriggeredRun:
    """A flow run as Prefect sees it now; `state_name` tells FoundProblems from Failed."""

    id: UUID
    name: str
    url: str
    state_type: str
    state_name: str
    message: str
    duration_seconds: float
    artifacts: tuple[PublishedArtifact, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.state_type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    @property
    def succeeded(self) -> bool:
        """Whether it did what it should."""
        return self.state_type == "COMPLETED"


OnUpdate = Callable[[TriggeredRun], None]


def trigger(  # noqa: PLR0913 - the one way to start a flow: its options belong to it
    installation: Installation,
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    timeout_seconds: float | None,
    idempotency_key: str | None = None,
    on_update: OnUpdate | None = None,
) -> TriggeredRun:
    """Run the deployment `flow/deployment` and wait for its end; `timeout_seconds` 0 does not wait, None for ever.

    The same `idempotency_key` names the same run. `on_update` is called whenever the state changes. Raises
    NoSuchDeployment, ForeignDeployment, SettingsError for parameters that the flow does not take, RunTooLong,
    PrefectUnreachable.
    """
    settings = installation.settings.prefect
    with prefect_api(settings) as client:
        deployment = _find(client, name)
        owner = DeploymentOwner.of(installation)
        refuse_foreign(name, deployment.job_variables, owner, settings.effective_api_url)
        refuse_wrong_parameters(name, deployment.parameter_openapi_schema or {}, parameters or {})
        run = client.create_flow_run_from_deployment(
            deployment.id, parameters=dict(parameters or {}), idempotency_key=idempotency_key
        )
        if timeout_seconds == 0:
            return _seen(settings, run)
        return _wait(client, settings, run, timeout_seconds, on_update)


def refuse_wrong_parameters(name: str, schema: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Raise SettingsError unless a flow with this parameter schema takes the parameters: Prefect finds out late."""
    known = list(schema.get("properties", {}))
    for given in parameters:
        if given not in known:
            near = difflib.get_close_matches(given, known, n=1, cutoff=0.5)
            wanted = f"did you mean `{near[0]}`?" if near else f"it takes: {', '.join(known) or 'none'}"
            raise SettingsError(f"{name} takes no parameter `{given}`; {wanted}")
    for error in validate(dict(parameters), dict(schema), ignore_required=True):
        where = ".".join(str(part) for part in error.absolute_path)
        allowed = [value for choice in error.context or [error] for value in _values(choice)]
        hint = f"Allowed: {', '.join(map(str, allowed))}." if allowed else None
        raise SettingsError(f"{name} refuses {error.instance!r} for `{where}`", hint=hint)


def read_run(client: SyncPrefectClient, settings: PrefectSettings, flow_run_id: UUID) -> TriggeredRun:
    """A run as it stands, with its artifacts once it has ended."""
    seen = _seen(settings, client.read_flow_run(flow_run_id))
    if not seen.ended:
        return seen
    return TriggeredRun(**{**vars(seen), "artifacts": _artifacts(client, flow_run_id)})


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        raise NoSuchDeployment(
            f"Prefect has no deployment {name}", hint="`lifeboat up` and `prefect deploy --all` create them."
        ) from None


def _wait(
    client: SyncPrefectClient,
    settings: PrefectSettings,
    run: FlowRun,
    timeout_seconds: float | None,
    on_update: OnUpdate | None,
) -> TriggeredRun:
    deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
    told = None
    while True:
        seen = read_run(client, settings, run.id)
        if on_update is not None and (seen.name, seen.state_name) != told:
            told = (seen.name, seen.state_name)
            on_update(seen)
        if seen.ended:
            return seen
        if time.monotonic() >= deadline:
            raise RunTooLong(
                f"flow run {seen.name} is {seen.state_name} after {timeout_seconds:.0f} s",
                hint=f"Follow it at {seen.url}",
            )
        time.sleep(_POLL_SECONDS)


def _seen(settings: PrefectSettings, run: FlowRun) -> TriggeredRun:
    state = run.state
    return TriggeredRun(
        id=run.id,
        name=run.name,
        url=run_url(settings, run.id),
        state_type=state.type.value if state else "SCHEDULED",
        state_name=(state.name if state else None) or "Scheduled",
        message=(state.message if state else None) or "",
        duration_seconds=run.total_run_time.total_seconds(),
    )


def _artifacts(client: SyncPrefectClient, flow_run_id: UUID) -> tuple[PublishedArtifact, ...]:
    ours = ArtifactFilter.model_validate({"flow_run_id": {"any_": [flow_run_id]}})
    found = client.read_artifacts(
        artifact_filter=ours,
        # The server of 3.8.8 refuses the nulls that the client sends for what is left out.
        flow_run_filter=FlowRunFilter(),
        task_run_filter=TaskRunFilter(),
        sort=ArtifactSort.KEY_ASC,
        limit=_ARTIFACTS_MAX,
        offset=0,
    )
    return tuple(
        PublishedArtifact(item.key or "", item.type or "", item.description or "", item.data)
        for item in sorted(found, key=lambda item: (item.key or "", str(item.id)))
        if item.type != "result"
    )


def _values(error: Any) -> list[Any]:  # noqa: ANN401 - jsonschema ships no types
    return list(error.validator_value) if error.validator == "enum" else []
