"""Backups as Prefect runs them: a real server and worker, and what an administrator's other terminal can see."""

import hashlib
import re
from uuid import UUID

from deployments.api import prefect_api
from deployments.registry import registry_file
from lifeboat.storage.manifest import BackupType
from tests.support.prefect import Services, prefect_cli, services, until

__all__ = ["services"]


def test_a_full_backup_started_from_another_terminal_matches_its_row(services: Services) -> None:
    said = prefect_cli(services, "deployment", "run", "full-backup/full-backup")
    found = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert found is not None
    run = services.wait(UUID(found[1]))
    assert (run.state_type, run.state_name) == ("COMPLETED", "Completed"), run.message

    config, full = services.rows(run.id)
    assert (config.type, full.type, config.set_id, full.set_id) == (BackupType.CONFIG, BackupType.FULL, run.id, run.id)
    repository = services.installation.repository()
    for row in (config, full):
        assert row.label is not None
        stored = repository.load(row.label)
        data = repository.destination.read(repository.key(row.label, "manifest.json"))
        assert hashlib.sha256(data).hexdigest() == row.manifest_sha256 == stored.manifest_sha256
        facts = (row.id, row.size_bytes, row.started_at, row.completed_at, row.flow_run_id)
        manifest = stored.manifest
        assert facts == (manifest.id, manifest.size_bytes, manifest.started_at, manifest.completed_at, run.id)
        assert list(repository.check_objects(manifest)) == []

    pages = {item.key: item for item in run.artifacts}
    assert {"full-backup", "config-backup", "backup-progress"} <= set(pages)
    assert f"export REPOSITORY={services.home / 'store' / 'studio'}" in pages["full-backup"].data
    assert f'"$REPOSITORY/{full.label}/' in pages["full-backup"].data
    assert pages["backup-progress"].type == "progress"
    assert run.url.endswith(f"/v2/runs/flow-run/{run.id}")


def test_what_the_domain_logs_and_announces_is_on_the_run(services: Services) -> None:
    run = services.run("config-export")
    (row,) = services.rows(run.id)

    def told() -> bool:
        with prefect_api(services.installation.settings.prefect) as client:
            wanted = {"logs": {"flow_run_id": {"any_": [str(run.id)]}}, "limit": 200}
            lines = [line["message"] for line in client.request("POST", "/logs/filter", json=wanted).json()]
            events = {
                "event": {"name": ["lifeboat.backup.completed"]},
                "resource": {"id": [f"lifeboat.backup.{row.id}"]},
            }
            found = client.request("POST", "/events/filter", json={"filter": events}).json()["events"]
        return any(f"config backup {row.label} is complete" in line for line in lines) and len(found) == 1

    until(told, 30)


def test_the_scheduler_plans_runs_and_says_which_schedule_made_them(services: Services) -> None:
    def planned() -> set[str]:
        runs = services.scheduled_runs()
        return {run.created_by.display_value or "" for run in runs if run.created_by is not None}

    until(lambda: "lifeboat-default-full-backup" in planned(), 90)


def test_prefects_own_command_line_deploys_the_same(services: Services) -> None:
    def deployed() -> list[dict[str, object]]:
        with prefect_api(services.installation.settings.prefect) as client:
            found = client.request("POST", "/deployments/filter", json={"sort": "NAME_ASC"}).json()
        wanted = ("name", "entrypoint", "pull_steps", "parameters", "tags", "parameter_openapi_schema", "description")
        return [
            {name: item[name] for name in wanted} | {"slugs": [schedule["slug"] for schedule in item["schedules"]]}
            for item in found
        ]

    before = deployed()
    prefect_cli(services, "--no-prompt", "deploy", "--all", "--prefect-file", str(registry_file()))
    assert deployed() == before


def test_a_chain_is_proven_by_a_test_restore(services: Services) -> None:
    runs = [services.run(flow) for flow in ("full-backup", "incremental-backup", "differential-backup")]
    assert [run.succeeded for run in runs] == [True, True, True]
    drill = services.run("test-restore")
    assert drill.succeeded, drill.message
    pages = {item.key: item for item in drill.artifacts}
    assert "passed" in pages["restore-drill"].data
    progress = pages["restore-drill-progress"]
    assert (progress.type, progress.data, progress.description) == ("progress", 100.0, "drill of latest")
    (latest,) = services.rows(runs[-1].id)
    assert (latest.type, latest.verified) == (BackupType.DIFFERENTIAL, True)


def test_a_drill_that_finds_something_wrong_ends_as_found_problems(services: Services) -> None:
    assert services.run("full-backup").succeeded
    question = {"name": "all are here", "sql": "SELECT count(*) FROM characters", "expect": {"equals": 7}}
    services.write(drills={"validation": [question]})
    try:
        drill = services.run("test-restore")
    finally:
        services.write()
    assert (drill.state_type, drill.state_name) == ("FAILED", "FoundProblems")
    assert "all are here" in drill.message


def test_settings_that_name_no_assets_end_in_a_clear_message(services: Services) -> None:
    run = services.run("asset-verification")
    assert (run.state_type, run.state_name) == ("FAILED", "Failed")
    assert "settings name no assets to check" in run.message


def test_a_retried_run_keeps_the_backup_that_it_has(services: Services) -> None:
    run = services.run("full-backup")
    before = services.installation.repository().labels()
    prefect_cli(services, "flow-run", "retry", str(run.id))
    again = services.wait(run.id)
    assert again.succeeded, again.message
    assert services.installation.repository().labels() == before


def test_retention_and_reconciling_leave_sound_backups_alone(services: Services) -> None:
    services.run("full-backup")
    before = services.installation.repository().labels()
    assert services.run("retention").succeeded
    assert services.run("reconcile").succeeded
    assert services.installation.repository().labels() == before
