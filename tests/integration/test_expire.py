"""Retention on a real repository: what goes, what stays, and what an interruption leaves."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.operations.backup.expire import apply_retention, plan_retention
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.export_configuration import export_configuration
from lifeboat.operations.installation import Installation
from lifeboat.operations.leases import DestinationBusy, lease, writing_lock
from lifeboat.operations.reconcile import reconcile
from lifeboat.retention.expiry import PlanOutdated
from lifeboat.settings.retention import RetentionSettings
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.manifest import BackupType


@pytest.fixture
def strict(installation: Installation) -> Installation:
    """The same installation that keeps only one backup of each kind."""
    retention = RetentionSettings(keep_last=1, keep_days=0, unfinished_hours=0)
    return Installation(installation.settings.model_copy(update={"retention": retention}))


def dump(installation: Installation) -> str:
    """Take a dump; its label."""
    return take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump")).label


def expired(installation: Installation) -> list[str]:
    """What the plan would take away."""
    return sorted(decision.candidate.label for decision in plan_retention(installation).expired)


def test_old_dumps_go_and_the_catalog_is_told(strict: Installation) -> None:
    old, new = dump(strict), dump(strict)
    plan = plan_retention(strict)
    assert [decision.candidate.label for decision in plan.expired] == [old]
    report = apply_retention(strict, plan)
    assert [label for label, _ in report.expired] == [old]
    assert report.freed_bytes > 0
    repository = strict.repository()
    assert repository.labels() == [new]
    assert repository.expired_labels() == [old]
    row = strict.catalog.backups.find(old)
    assert row is not None
    assert row.status == "expired"
    assert [entry.action for entry in strict.catalog.audit.latest(limit=1)] == ["expire"]
    assert expired(strict) == []


def test_verified_pinned_suspect_and_leased_ones_stay(strict: Installation) -> None:
    verified = dump(strict)
    assert run_drill(strict, DrillOrder(verified)).passed
    labels = [dump(strict) for _ in range(4)]
    pinned, suspect, leased, newest = labels
    repository = strict.writable_repository()
    for label, kind in ((pinned, EventKind.PINNED), (suspect, EventKind.SUSPECT)):
        identifier = repository.manifest(label).id
        repository.append_event(Event(kind=kind, at=datetime.now(UTC), backup_id=identifier, label=label))
    with lease(strict, repository, [leased]):
        assert expired(strict) == []
    assert expired(strict) == [leased]
    apply_retention(strict, plan_retention(strict))
    assert repository.labels() == [verified, pinned, suspect, newest]


def test_a_lease_taken_after_the_plan_keeps_the_backup(strict: Installation) -> None:
    old = dump(strict)
    dump(strict)
    plan = plan_retention(strict)
    repository = strict.repository()
    with lease(strict, repository, [old]), pytest.raises(PlanOutdated):
        apply_retention(strict, plan)
    assert old in repository.labels()


def test_an_interrupted_expiry_goes_on_with_the_same_plan(strict: Installation) -> None:
    old = [dump(strict) for _ in range(3)]
    newest = dump(strict)
    plan = plan_retention(strict)
    repository = strict.writable_repository()
    first = plan.expired[0].candidate.label
    repository.expire(first)
    report = apply_retention(strict, plan)
    assert sorted(label for label, _ in report.expired) == sorted(set(old) - {first})
    assert repository.labels() == [newest]


def test_a_plan_is_refused_once_something_changed(strict: Installation) -> None:
    dump(strict)
    dump(strict)
    plan = plan_retention(strict)
    dump(strict)
    with pytest.raises(PlanOutdated, match="have changed since"):
        apply_retention(strict, plan)
    assert len(strict.repository().labels()) == 3


def test_a_chain_stays_whole_and_its_configuration_with_it(strict: Installation) -> None:
    if strict.tools.major < 17:
        pytest.skip("incremental base backups came with PostgreSQL 17")
    full = take_backup(strict, BackupOrder(BackupType.FULL))
    configuration = export_configuration(strict, set_id=strict.repository().manifest(full.label).set_id)
    take_backup(strict, BackupOrder(BackupType.INCREMENTAL))
    export_configuration(strict)
    assert expired(strict) == []
    second = take_backup(strict, BackupOrder(BackupType.FULL))
    gone = expired(strict)
    assert full.label in gone
    assert configuration.label in gone
    assert second.label not in gone
    order = [decision.candidate.label for decision in plan_retention(strict).expired]
    assert order.index(f"{full.label}") > min(
        order.index(label) for label in order if label.startswith(full.label + "_")
    )


def test_an_interrupted_expiry_is_finished_and_told_by_the_next(
    strict: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = dump(strict), dump(strict)
    repository = strict.writable_repository()
    manifest = repository.manifest(old)
    repository.append_event(Event(kind=EventKind.EXPIRED, at=datetime.now(UTC), backup_id=manifest.id, label=old))
    repository.destination.rename(repository.key(old, "manifest.json"), repository.key(old, "expired.json"))
    assert repository.leftovers(old) != []
    apply_retention(strict, plan_retention(strict))
    assert repository.leftovers(old) == []
    assert repository.labels() == [new]
    assert reconcile(strict).repaired == [(manifest.id, "expired")]


def test_two_expiries_never_run_at_once(strict: Installation) -> None:
    dump(strict)
    plan = plan_retention(strict)
    with writing_lock(strict, strict.repository()), pytest.raises(DestinationBusy):
        apply_retention(strict, plan)


def test_old_unfinished_folders_go_and_young_ones_stay(strict: Installation) -> None:
    repository = strict.writable_repository()
    past = datetime.now(UTC) - timedelta(days=3)
    left = repository.begin(BackupType.FULL, past)
    left.release()
    Path(left.directory / "half").write_bytes(b"x")
    alive = repository.begin(BackupType.FULL, past)
    report = apply_retention(strict, plan_retention(strict))
    assert report.removed_unfinished == [left.label]
    assert repository.unfinished_labels() == [alive.label]
    alive.abandon()
