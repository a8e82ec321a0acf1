"""A platform on PostgreSQL 15: no incremental backups, and a pg_verifybackup that works."""

import gzip
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.schedules import IntervalSchedule

from deployments.api import prefect_api
from deployments.triggering import TriggeredRun
from lifeboat.catalog.store import BackupRow
from lifeboat.engines.pg_dump import PgDumpEngine
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.operations.unsupported import why_leave_out
from lifeboat.postgres.binaries import PgTools
from lifeboat.storage.manifest import BackupType, Manifest
from tests.support.postgres import DEBIAN_15, absent, tools_for
from tests.support.prefect import Services, services, until

__all__ = ["services"]


@pytest.fixture(scope="session")
def pg_tools(runtime_dir: Path) -> PgTools:
    """Version 15, for this module's platform."""
    if not (DEBIAN_15 / "postgres").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    return tools_for(DEBIAN_15, runtime_dir)


@pytest.fixture
def platform(services: Services) -> Iterator[Installation]:
    """The platform, with no backup."""
    made = services.installation
    yield made
    repository = made.repository()
    for label in repository.labels():
        shutil.rmtree(repository.destination.path / repository.key(label))  # type: ignore[attr-defined]


def run_on_schedule(services: Services, flow: str) -> TriggeredRun:
    """Have Prefect's scheduler run a deployment now, as its schedule would; returns the ended run."""
    with prefect_api(services.installation.settings.prefect) as client:
        deployment = client.read_deployment_by_name(f"{flow}/{flow}")
        (schedule,) = deployment.schedules
        assert schedule.id is not None
        now = datetime.now(UTC)
        soon = IntervalSchedule(interval=timedelta(hours=1), anchor_date=now + timedelta(seconds=2))
        client.update_deployment_schedule(deployment.id, schedule.id, active=True, schedule=soon)
        # From before the first one on: on a busy machine that is past when the server comes to plan.
        window = {"start_time": now.isoformat(), "end_time": (now + timedelta(minutes=1)).isoformat()}
        client.request("POST", "/deployments/{id}/schedule", path_params={"id": deployment.id}, json=window)

        def begun() -> UUID | None:
            wanted = {
                "deployments": {"id": {"any_": [str(deployment.id)]}},
                "flow_runs": {
                    "state": {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED"]}},
                    "expected_start_time": {"after_": now.isoformat()},
                },
            }
            runs = client.request("POST", "/flow_runs/filter", json=wanted).json()
            return next((UUID(run["id"]) for run in runs if run["auto_scheduled"]), None)

        found = until(begun, 90)
        client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    return services.wait(found)


def row_of(services: Services, run: TriggeredRun) -> BackupRow:
    """The run's row, once the hook that runs after its end has been here."""
    return until(lambda: next((row for row in services.rows(run.id) if row.status != "running"), None), 30)


def log_of(services: Services, run: TriggeredRun) -> list[str]:
    """What the run logged."""
    with prefect_api(services.installation.settings.prefect) as client:
        wanted = {"logs": {"flow_run_id": {"any_": [str(run.id)]}}, "limit": 200}
        return [line["message"] for line in client.request("POST", "/logs/filter", json=wanted).json()]


def test_scheduled_incrementals_are_skipped_once_there_is_a_full_backup(
    services: Services, platform: Installation
) -> None:
    first = run_on_schedule(services, "incremental-backup")
    taken = row_of(services, first)
    assert first.succeeded, first.message
    assert (taken.type, taken.status) == (BackupType.FULL, "completed")
    labels = platform.repository().labels()
    assert labels == [taken.label]

    for flow, kind in (("incremental-backup", "incremental"), ("differential-backup", "differential")):
        run = run_on_schedule(services, flow)
        assert (run.state_type, run.state_name) == ("COMPLETED", "Skipped")
        assert run.message == (
            f"no {kind} backup is taken on schedule: it needs PostgreSQL 17 with summarize_wal on, "
            "and the server is version 15"
        )
        row = row_of(services, run)
        assert (row.type, row.status, row.error) == (kind, "skipped", run.message)
        until(lambda run=run: f"skipped: {run.message}" in log_of(services, run), 30)  # type: ignore[misc]
    assert platform.repository().labels() == labels

    by_hand = services.run("incremental-backup")
    row = row_of(services, by_hand)
    assert (row.type, row.status) == (BackupType.FULL, "completed")
    manifest = platform.repository().manifest(str(row.label))
    assert "instead of incremental: it needs PostgreSQL 17 with summarize_wal on" in str(manifest.reason)


def test_a_backup_that_must_not_be_built_on_leaves_nothing_out(platform: Installation) -> None:
    """Where the only full backup failed its drill a new one is right, whoever asks for what."""
    backup = take_backup(platform, BackupOrder(BackupType.FULL))
    assert why_leave_out(platform, BackupType.INCREMENTAL) is not None
    assert run_drill(platform, DrillOrder(damaged_copy(platform, backup.label))).faults != []
    assert why_leave_out(platform, BackupType.INCREMENTAL) is not None
    path = Path(backup.location) / "base" / "base.tar.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert not run_drill(platform, DrillOrder(backup.label)).passed
    assert why_leave_out(platform, BackupType.INCREMENTAL) is None


def test_a_full_backup_leaves_out_only_what_it_can_stand_for(platform: Installation) -> None:
    """Not one of another cluster, nor one that is as old as the limit says."""

    def with_limit(days: float) -> Installation:
        backup = platform.settings.backup.model_copy(update={"full_max_age_days": days})
        return Installation(platform.settings.model_copy(update={"backup": backup}))

    backup = take_backup(platform, BackupOrder(BackupType.FULL))
    for kind in (BackupType.INCREMENTAL, BackupType.DIFFERENTIAL):
        assert why_leave_out(platform, kind) is not None
        assert why_leave_out(with_limit(0), kind) is None
    repository = platform.writable_repository()
    original = repository.manifest(backup.label)
    shutil.rmtree(backup.location)
    age = timedelta(days=7, hours=23)
    republish(platform, original, started_at=datetime.now(UTC) - age)
    assert why_leave_out(platform, BackupType.INCREMENTAL) is not None
    assert why_leave_out(with_limit(7.9), BackupType.INCREMENTAL) is None
    shutil.rmtree(repository.destination.path / repository.key(repository.labels()[0]))  # type: ignore[attr-defined]
    republish(platform, original, system_identifier=str(int(str(original.system_identifier)) + 1))
    assert why_leave_out(platform, BackupType.INCREMENTAL) is None


class Giving(PgDumpEngine):
    """An engine that takes every type of PostgreSQL 15, as pgBackRest does."""

    def types(self, server_major: int) -> frozenset[BackupType]:
        """All of them."""
        del server_major
        return frozenset(BackupType)


def test_each_engine_is_asked_for_itself(platform: Installation) -> None:
    take_backup(platform, BackupOrder(BackupType.FULL))
    assert why_leave_out(platform, BackupType.INCREMENTAL, "basebackup") is not None
    assert why_leave_out(platform, BackupType.INCREMENTAL, "pg_dump") is None  # it has no full backup

    manifest = platform.repository().manifest(platform.repository().labels()[0])
    republish(platform, manifest, engine="pg_dump")
    reason = why_leave_out(platform, BackupType.INCREMENTAL, "pg_dump")
    assert reason == "no incremental backup is taken on schedule: pg_dump takes none of PostgreSQL 15"
    giving, dumping = Installation(platform.settings), platform.pg_dump
    vars(giving)["pg_dump"] = Giving(dumping.tools, dumping.connection, dumping.settings, dumping.timeout_seconds)
    assert why_leave_out(giving, BackupType.INCREMENTAL, "pg_dump") is None


def republish(installation: Installation, manifest: Manifest, **update: object) -> None:
    """A backup with this manifest and no content."""
    repository = installation.writable_repository()
    made = repository.begin(BackupType.FULL, manifest.started_at)
    update |= {"id": uuid4(), "label": made.label, "objects": made.seal()}
    repository.publish(made, manifest.model_copy(update=update))


def test_a_drill_asks_pg_verifybackup_too(platform: Installation, caplog: pytest.LogCaptureFixture) -> None:
    backup = take_backup(platform, BackupOrder(BackupType.FULL))
    with caplog.at_level("INFO", "lifeboat"):
        report = run_drill(platform, DrillOrder(backup.label))
    assert (report.faults, [note for note in report.notes if "verifybackup" in note]) == ([], [])
    assert "pg_verifybackup: data is as its manifest says" in caplog.messages

    report = run_drill(platform, DrillOrder(damaged_copy(platform, backup.label)))
    assert "checksum differs" in report.faults[0]
    assert "pg_verifybackup: checksum mismatch for file" in report.faults[0]


def damaged_copy(installation: Installation, label: str) -> str:
    """The label of a copy that a faulty disk changed before it was hashed and signed."""
    repository = installation.writable_repository()
    manifest = repository.manifest(label)
    folder = repository.destination.path / repository.key(label) / "base"  # type: ignore[attr-defined]
    damaged = repository.begin(BackupType.FULL, manifest.started_at)
    shutil.copytree(folder, damaged.directory / "base")
    content = gzip.decompress((folder / "base.tar.gz").read_bytes())
    assert b"the view is stale now" in content
    changed = gzip.compress(content.replace(b"the view is stale now", b"the view is stale NOW"), 1)
    (damaged.directory / "base" / "base.tar.gz").write_bytes(changed)
    update = {"id": uuid4(), "label": damaged.label, "objects": damaged.seal(), "details": manifest.details}
    repository.publish(damaged, manifest.model_copy(update=update))
    return damaged.label
