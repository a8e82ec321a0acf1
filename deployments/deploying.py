"""Makes Prefect's deployments what `prefect.yaml` declares; may be repeated at any time."""

from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from deployments.registry import DeploymentDefinition, Registry, ScheduleDefinition
from lifeboat.errors import SettingsError
from lifeboat.operations.deployment_owner import DeploymentOwner, refuse_foreign

# One process a run instead of two, which starts it 3 s sooner: the worker would first start another Python that only
# runs the pull steps. A worker therefore needs our environment's `bin` folder first in its PATH.
FLOW_RUN_COMMAND = "python -m prefect.engine"


def ensure_work_pool(client: SyncPrefectClient, name: str) -> None:
    """Create the process work pool, or bring its job template up to date; an administrator's pause stays.

    Raises SettingsError when a pool of another type has the name.
    """
    template = ProcessWorker.get_default_base_job_template()
    properties = template["variables"]["properties"]
    properties["command"]["default"] = FLOW_RUN_COMMAND
    # Flow runs log to the API. A pipe to the worker would break with it, and take a good backup along.
    properties["stream_output"]["default"] = False
    try:
        pool: WorkPool = client.read_work_pool(name)
    except ObjectNotFound:
        description = "Runs Lifeboat's flows as processes of the host that holds the backups."
        client.create_work_pool(
            WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
        )
        return
    if pool.type != "process":
        raise SettingsError(
            f"the work pool {name} is of type {pool.type}, but the flows run as processes",
            hint="Name another one in `prefect.work_pool`.",
        )
    if pool.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def refuse_foreign_deployments(client: SyncPrefectClient, registry: Registry, owner: DeploymentOwner) -> None:
    """Raise ForeignDeployment when the server has a deployment of ours that another installation has made."""
    for entry in registry.deployments:
        name = f"{load_flow(entry.entrypoint).name}/{entry.name}"
        with suppress(ObjectNotFound):
            refuse_foreign(name, client.read_deployment_by_name(name).job_variables, owner, str(client.api_url))


def deploy(client: SyncPrefectClient, registry: Registry, work_pool: str, owner: DeploymentOwner) -> list[str]:
    """Create or update every deployment as the owner's; returns their names, `flow/deployment`.

    Schedules are made together with their deployment only: afterwards they belong to the administrator.
    """
    return [_deploy_one(client, registry, entry, work_pool, owner) for entry in registry.deployments]


def load_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow at `module:name`; raises SettingsError for anything else."""
    module, _, name = entrypoint.partition(":")
    found = getattr(import_module(module), name, None)
    if not isinstance(found, Flow):
        raise SettingsError(f"prefect.yaml names {entrypoint}, which is no flow")
    return found


def _deploy_one(
    client: SyncPrefectClient,
    registry: Registry,
    entry: DeploymentDefinition,
    work_pool: str,
    owner: DeploymentOwner,
) -> str:
    flow = load_flow(entry.entrypoint)
    name = f"{flow.name}/{entry.name}"
    common: dict[str, Any] = {
        "version": version("lifeboat"),
        "description": entry.description,
        "parameters": entry.parameters,
        "tags": entry.tags,
        "entrypoint": entry.entrypoint,
        "work_pool_name": work_pool,
        "pull_steps": registry.pull,
        "enforce_parameter_schema": True,
    }
    schema = parameter_schema(flow).model_dump(exclude_unset=True)
    try:
        existing = client.read_deployment_by_name(name)
    except ObjectNotFound:
        client.create_deployment(
            flow_id=client.create_flow_from_name(flow.name),
            name=entry.name,
            schedules=[_schedule(schedule) for schedule in entry.schedules],
            parameter_openapi_schema=schema,
            job_variables=owner.job_variables(),
            **common,
        )
    else:
        variables = owner.job_variables(existing.job_variables)
        update = DeploymentUpdate(parameter_openapi_schema=schema, job_variables=variables, **common)
        client.update_deployment(existing.id, update)
    return name


def _schedule(definition: ScheduleDefinition) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        slug=definition.slug,
        schedule=CronSchedule(cron=definition.cron, timezone=definition.timezone),
        active=definition.active,
    )
