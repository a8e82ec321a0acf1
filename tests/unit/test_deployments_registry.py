"""prefect.yaml: every entry point imports, its parameters validate, every schedule has a slug."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.client.schemas.schedules import CronSchedule
from prefect.utilities.callables import parameter_schema

from deployments.deploying import load_flow
from deployments.registry import DEFAULT_SLUG_PREFIX, DeploymentDefinition, load_registry, registry_file
from deployments.triggering import refuse_wrong_parameters
from lifeboat.errors import SettingsError

REGISTRY = load_registry()
EACH = pytest.mark.parametrize("entry", REGISTRY.deployments, ids=lambda entry: entry.name)
# A person asks for these.
ON_DEMAND = {"restore", "restore-preview"}
MIRRORED = {"full-backup", "differential-backup", "incremental-backup", "logical-backup", "config-export"}


def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump(exclude_unset=True)


@EACH
def test_each_entry_point_is_a_flow_of_that_name(entry: DeploymentDefinition) -> None:
    flow = load_flow(entry.entrypoint)
    assert flow.name == entry.name
    assert "lifeboat" in entry.tags
    assert flow.description


@EACH
def test_the_parameters_of_each_deployment_validate(entry: DeploymentDefinition) -> None:
    flow = load_flow(entry.entrypoint)
    refuse_wrong_parameters(entry.name, schema_of(flow), entry.parameters)
    flow.validate_parameters(entry.parameters)


@EACH
def test_each_parameter_is_explained_in_the_form_that_prefect_shows(entry: DeploymentDefinition) -> None:
    properties = schema_of(load_flow(entry.entrypoint)).get("properties", {})
    assert all(value.get("description") for value in properties.values())


def test_every_schedule_has_a_slug_of_its_own_and_a_valid_cron() -> None:
    schedules = [schedule for entry in REGISTRY.deployments for schedule in entry.schedules]
    slugs = [schedule.slug for schedule in schedules]
    assert len(slugs) == len(set(slugs))
    assert {entry.name for entry in REGISTRY.deployments if len(entry.schedules) != 1} == ON_DEMAND
    assert all(slug.startswith(DEFAULT_SLUG_PREFIX) for slug in slugs)
    assert {CronSchedule(cron=item.cron, timezone=item.timezone).timezone for item in schedules} == {"UTC"}


def test_prefects_own_cli_reads_the_file_without_losing_a_key() -> None:
    given = yaml.safe_load(registry_file().read_text("utf-8"))
    assert PrefectYamlModel.model_validate(given).model_dump(exclude_unset=True, by_alias=True) == given


def test_nothing_is_pulled_and_no_folder_of_this_machine_is_named() -> None:
    assert REGISTRY.pull == [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}}]
    assert str(Path.home()) not in registry_file().read_text("utf-8")


@EACH
def test_backup_flows_have_the_mirror_on_every_state(entry: DeploymentDefinition) -> None:
    flow = load_flow(entry.entrypoint)
    hooks = [
        flow.on_running_hooks,
        flow.on_completion_hooks,
        flow.on_failure_hooks,
        flow.on_crashed_hooks,
        flow.on_cancellation_hooks,
    ]
    for found in hooks:
        assert [hook.__name__ for hook in found] == (["mirror_run"] if entry.name in MIRRORED else [])
        for hook in found:
            assert list(inspect.signature(hook).parameters) == ["flow", "flow_run", "state"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"engin": "basebackup"}, "did you mean `engine`"),
        ({"wind": 1}, "it takes: engine, destination"),
        ({"engine": "rsync"}, "Allowed: basebackup, pgbackrest, pg_dump"),
        ({"destination": 4}, "refuses 4 for `destination`"),
    ],
)
def test_wrong_parameters_are_refused_before_a_run_starts(parameters: dict[str, Any], message: str) -> None:
    schema = schema_of(load_flow("flows.full_backup:full_backup"))
    with pytest.raises(SettingsError, match=message):
        refuse_wrong_parameters("full-backup/full-backup", schema, parameters)


def test_left_out_and_empty_parameters_are_accepted() -> None:
    schema = schema_of(load_flow("flows.test_restore:test_restore"))
    refuse_wrong_parameters("test-restore/test-restore", schema, {"destination": None})
    refuse_wrong_parameters("test-restore/test-restore", schema, {})
