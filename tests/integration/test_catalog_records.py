"""Drills, schedules, findings, storage samples and the audit log on a real server."""

import dataclasses
from datetime import timedelta

import pytest

from lifeboat.catalog.store import (
    AssetProblem,
    Catalog,
    CatalogRefused,
    ScheduleRow,
    ScheduleType,
    SeenFinding,
    StorageSample,
)
from lifeboat.postgres.connections import connect
from tests.support.catalog import NOON, numbered

NIGHTLY = ScheduleRow(
    id=numbered(1),
    name="nightly",
    type=ScheduleType.FULL,
    schedule="0 2 * * *",
    destination=None,
    retention_policy_json=None,
    timezone="UTC",
    enabled=True,
    window_minutes=None,
    parameters_json={},
)
LATER = NOON + timedelta(hours=1)
MISSING = SeenFinding("7", "segment", "segments/7.mp4", AssetProblem.MISSING, expected_sha256="aa")
ORPHAN = SeenFinding(None, "file", "segments/\udcff.mp4", AssetProblem.ORPHAN, detail="no record knows it")


def record_drill(catalog: Catalog, number: int, *, backup: int = 1, passed: bool = True) -> None:
    """Record the drill with this number."""
    catalog.drills.record(
        numbered(number),
        backup_id=numbered(backup),
        label="20261122-120000F",
        target_kind="scratch",
        started_at=NOON + timedelta(minutes=number),
        completed_at=NOON + timedelta(minutes=number, seconds=9),
        passed=passed,
        phases={"restore": 4.25, "compare": 1},
        report={"faults": [] if passed else ["public.segments differs"], "validations": [("rows", True, "3")]},
        error=None if passed else "public.segments differs",
        flow_run_id=numbered(99),
    )


def test_a_drill_is_recorded_once_and_corrected_by_a_repeated_call(catalog: Catalog) -> None:
    record_drill(catalog, 1, passed=False)
    record_drill(catalog, 1)

    (drill,) = catalog.drills.list_drills().rows

    assert (drill.id, drill.backup_id, drill.passed, drill.error) == (numbered(1), numbered(1), True, None)
    assert drill.phases_json == {"restore": 4.25, "compare": 1}
    assert drill.report_json == {"faults": [], "validations": [["rows", True, "3"]]}
    assert (drill.completed_at - drill.started_at).total_seconds() == 9


def test_drills_are_listed_by_backup_and_page(catalog: Catalog) -> None:
    for number, backup in ((1, 1), (2, 2), (3, 1)):
        record_drill(catalog, number, backup=backup)

    first = catalog.drills.list_drills(limit=2)
    rest = catalog.drills.list_drills(limit=2, cursor=first.next_cursor)

    assert [drill.id for drill in [*first.rows, *rest.rows]] == [numbered(3), numbered(2), numbered(1)]
    assert [drill.id for drill in catalog.drills.list_drills(backup_id=numbered(1)).rows] == [numbered(3), numbered(1)]


def test_schedules_are_made_changed_and_removed(catalog: Catalog) -> None:
    hourly = dataclasses.replace(
        NIGHTLY,
        id=numbered(2),
        name="hourly",
        type=ScheduleType.INCREMENTAL,
        destination="second",
        retention_policy_json={"keep_last": 24},
        timezone="Asia/Seoul",
        window_minutes=30,
        parameters_json={"engine": "basebackup"},
    )
    for schedule in (NIGHTLY, hourly, hourly):
        catalog.schedules.upsert(schedule)
    assert catalog.schedules.list_schedules() == [hourly, NIGHTLY]

    paused = dataclasses.replace(NIGHTLY, enabled=False)
    catalog.schedules.upsert(paused)
    assert catalog.schedules.get(NIGHTLY.id) == paused

    assert catalog.schedules.remove(NIGHTLY.id)
    assert not catalog.schedules.remove(NIGHTLY.id)
    assert catalog.schedules.get(NIGHTLY.id) is None
    assert catalog.schedules.list_schedules() == [hourly]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dataclasses.replace(NIGHTLY, id=numbered(2)), r"Key \(name\)=\(nightly\) already exists"),
        (dataclasses.replace(NIGHTLY, window_minutes=0), "ck_backup_schedules_window_minutes"),
    ],
    ids=["name taken", "no window"],
)
def test_a_schedule_that_cannot_be_is_refused_and_says_why(catalog: Catalog, wrong: ScheduleRow, said: str) -> None:
    catalog.schedules.upsert(NIGHTLY)

    with pytest.raises(CatalogRefused, match=said):
        catalog.schedules.upsert(wrong)

    assert catalog.schedules.list_schedules() == [NIGHTLY]


def test_a_finding_is_open_once_however_often_it_is_seen(catalog: Catalog) -> None:
    for at in (NOON, LATER, NOON):
        assert catalog.findings.upsert_open([MISSING, ORPHAN, ORPHAN], at) == 3

    rows = catalog.findings.list_open().rows

    assert {(row.asset_id, row.path, row.finding) for row in rows} == {
        ("7", "segments/7.mp4", "missing"),
        (None, "segments/\\udcff.mp4", "orphan"),
    }
    assert {(row.first_seen_at, row.last_seen_at) for row in rows} == {(NOON, LATER)}
    assert catalog.findings.count_open() == {AssetProblem.MISSING: 1, AssetProblem.ORPHAN: 1}
    assert [row.path for row in catalog.findings.list_open(AssetProblem.MISSING).rows] == ["segments/7.mp4"]


def test_a_finding_that_becomes_another_one_dates_from_then(catalog: Catalog) -> None:
    catalog.findings.upsert_open([MISSING], NOON)
    corrupt = dataclasses.replace(MISSING, finding=AssetProblem.CORRUPT, actual_sha256="bb", detail="2 bytes less")

    catalog.findings.upsert_open([corrupt], LATER)

    (row,) = catalog.findings.list_open().rows
    assert (row.finding, row.actual_sha256, row.detail) == (AssetProblem.CORRUPT, "bb", "2 bytes less")
    assert (row.first_seen_at, row.last_seen_at) == (LATER, LATER)


def test_what_a_complete_check_does_not_see_again_is_closed(catalog: Catalog) -> None:
    catalog.findings.upsert_open([MISSING, ORPHAN], NOON)
    catalog.findings.upsert_open([ORPHAN], LATER)

    assert catalog.findings.close_unseen(LATER, LATER) == 1
    assert catalog.findings.close_unseen(LATER, LATER) == 0

    (row,) = catalog.findings.list_open().rows
    assert row.finding is AssetProblem.ORPHAN


def test_a_closed_finding_is_opened_anew(catalog: Catalog, platform_dsn: str) -> None:
    catalog.findings.upsert_open([MISSING], NOON)
    (first,) = catalog.findings.list_open().rows
    assert catalog.findings.close([first.id], LATER) == 1
    assert catalog.findings.close([first.id], LATER + timedelta(hours=1)) == 0
    assert catalog.findings.list_open().rows == []

    catalog.findings.upsert_open([MISSING], LATER)

    (second,) = catalog.findings.list_open().rows
    assert second.id != first.id
    with connect(platform_dsn) as connection:
        closed = connection.execute("SELECT id, closed_at FROM lifeboat.asset_findings WHERE closed_at IS NOT NULL")
        assert closed.fetchall() == [(first.id, LATER)]


def test_findings_of_a_large_check_are_written_all_or_none(catalog: Catalog) -> None:
    many = [dataclasses.replace(MISSING, asset_id=str(number), path=f"{number}.mp4") for number in range(1201)]
    broken = dataclasses.replace(MISSING, asset_id=None)  # only an orphan has no asset

    with pytest.raises(CatalogRefused, match="ck_asset_findings_asset_id"):
        catalog.findings.upsert_open([*many, broken], NOON)
    assert catalog.findings.count_open() == {}

    assert catalog.findings.upsert_open(iter(many), NOON) == 1201
    assert catalog.findings.count_open() == {AssetProblem.MISSING: 1201}
    assert len(catalog.findings.list_open(limit=1000).rows) == 1000


def test_storage_samples_come_back_in_order(catalog: Catalog) -> None:
    first = StorageSample(
        "primary", NOON, total_bytes=100, free_bytes=40, backups_bytes=50, wal_bytes=9, backups_count=3
    )
    second = StorageSample("primary", LATER, backups_bytes=60)
    for sample in (second, dataclasses.replace(first, free_bytes=99), first, StorageSample("other", NOON)):
        catalog.storage_samples.record(sample)

    assert catalog.storage_samples.since("primary", NOON) == [first, second]
    assert catalog.storage_samples.since("primary", LATER) == [second]
    with pytest.raises(CatalogRefused, match="free_bytes"):
        catalog.storage_samples.record(StorageSample("primary", NOON, total_bytes=1, free_bytes=2))


def test_the_audit_log_grows_and_is_read_from_its_end(catalog: Catalog) -> None:
    identifiers = [
        catalog.audit.append(
            actor="admin",
            action="pin",
            object=f"backup {number}",
            before={"pinned": False, "id": numbered(number)},
            after={"pinned": True},
            at=NOON,
        )
        for number in (1, 2, 3)
    ]
    unasked = catalog.audit.append(actor="retention", action="expire", object="backup 4")

    assert [*identifiers, unasked] == sorted({*identifiers, unasked})
    (last,) = catalog.audit.latest(limit=1)
    assert (last.id, last.before_json, last.after_json) == (unasked, None, None)
    assert last.at > NOON - timedelta(days=3650)
    earlier = catalog.audit.latest(before_id=identifiers[2])
    assert [entry.object for entry in earlier] == ["backup 2", "backup 1"]
    assert earlier[0].before_json == {"pinned": False, "id": str(numbered(2))}
