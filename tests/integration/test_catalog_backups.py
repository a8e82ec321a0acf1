"""Rows of backups: what each word about a run does to them, and lists over many."""

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from lifeboat.catalog.backups import LISTING
from lifeboat.catalog.store import BackupFilter, BackupRow, BackupStatus, Catalog, CatalogRefused, CursorInvalid
from lifeboat.postgres.connections import connect
from lifeboat.storage.events import BackupState
from lifeboat.storage.manifest import BackupType
from tests.support.catalog import NOON, SHA256, manifest, numbered, record_completed, record_started

DIALECT = create_engine("postgresql+psycopg://").dialect
ENDS = ["failed", "cancelled", "crashed", "skipped"]
FILL = """
INSERT INTO lifeboat.backups (id, set_id, type, engine, cluster, destination, label, status, started_at,
                              completed_at, ended_at, size_bytes, manifest_sha256)
SELECT gen_random_uuid(), gen_random_uuid(), CASE WHEN i % 7 = 0 THEN 'full' ELSE 'incremental' END,
       CASE WHEN i % 50 = 0 THEN 'pg_dump' ELSE 'basebackup' END, 'main', 'primary', 'label-' || i,
       CASE WHEN i % 1000 = 0 THEN 'failed' ELSE 'completed' END,
       timestamptz '2020-01-01' + i / 2 * interval '1 minute',
       CASE WHEN i % 1000 = 0 THEN NULL ELSE timestamptz '2020-01-01' + i * interval '1 minute' END,
       timestamptz '2020-01-01' + i * interval '1 minute', 1000, 'sha'
FROM generate_series(1, 20000) i
"""


def row(catalog: Catalog, number: int = 1) -> BackupRow:
    """The row of the backup with this number."""
    found = catalog.backups.get(numbered(number))
    assert found is not None
    return found


def test_a_run_has_a_row_before_its_label_is_known(catalog: Catalog) -> None:
    assert record_started(catalog, flow_run_id=numbered(99))

    started = row(catalog)

    assert (started.status, started.label, started.completed_at, started.verified) == ("running", None, None, False)
    assert started.flow_run_id == numbered(99)
    assert catalog.backups.running() == [started]


def test_a_completed_backup_says_what_its_manifest_says(catalog: Catalog) -> None:
    record_started(catalog, type=BackupType.INCREMENTAL)
    said = manifest(parent_id=numbered(7), parent_label="20261122-110000F", flow_run_id=numbered(99))

    assert catalog.backups.record_completed(said, destination="primary", manifest_sha256=SHA256)

    completed = row(catalog)
    for name in ("id", "set_id", "type", "engine", "cluster", "label", "parent_id", "started_at", "completed_at",
                 "size_bytes", "pg_version", "timeline", "start_lsn", "stop_lsn", "flow_run_id"):  # fmt: skip
        assert getattr(completed, name) == getattr(said, name), name
    assert (completed.status, completed.destination, completed.manifest_sha256) == ("completed", "primary", SHA256)
    assert completed.ended_at == said.completed_at
    assert catalog.backups.running() == []


def test_a_backup_that_the_catalog_never_heard_of_gets_its_row_from_the_manifest(catalog: Catalog) -> None:
    assert record_completed(catalog)
    before = row(catalog)
    assert record_completed(catalog)

    assert row(catalog) == before


@pytest.mark.parametrize("status", ENDS)
def test_a_run_that_ends_without_a_backup_looks_like_none(catalog: Catalog, status: str) -> None:
    record_started(catalog)

    assert catalog.backups.record_ended(numbered(1), status=status, error="disk\0full \udcff", ended_at=NOON)

    ended = row(catalog)
    assert (ended.status, ended.ended_at, ended.error) == (status, NOON, "disk\\x00full \\udcff")
    assert (ended.completed_at, ended.size_bytes, ended.label, ended.verified) == (None, None, None, False)


def test_a_retried_run_starts_afresh(catalog: Catalog) -> None:
    record_started(catalog)
    catalog.backups.record_ended(numbered(1), status="failed", error="no route")

    assert record_started(catalog, started_at=NOON + timedelta(hours=1))

    again = row(catalog)
    assert (again.status, again.error, again.ended_at) == ("running", None, None)
    assert again.started_at == NOON + timedelta(hours=1)


@pytest.mark.parametrize("status", ["running", "completed", "expired", "done"])
def test_a_run_ends_only_as_something_that_is_no_backup(catalog: Catalog, status: str) -> None:
    with pytest.raises(ValueError, match=status):
        catalog.backups.record_ended(numbered(1), status=status, error=None)


def test_nothing_takes_back_that_a_backup_was_completed(catalog: Catalog) -> None:
    record_completed(catalog)
    before = row(catalog)

    assert not record_started(catalog)
    assert not catalog.backups.record_ended(numbered(1), status="crashed", error="late")
    assert catalog.backups.record_flow_run_ended(numbered(99), status="crashed", error="late") == []

    assert row(catalog) == before


def test_an_expired_backup_stays_expired(catalog: Catalog) -> None:
    record_completed(catalog)
    assert catalog.backups.mark_expired(numbered(1), NOON)
    before = row(catalog)

    assert catalog.backups.mark_expired(numbered(1), NOON + timedelta(days=1))
    assert not record_completed(catalog)
    assert not record_started(catalog)
    assert not catalog.backups.record_ended(numbered(1), status="failed", error="late")

    assert row(catalog) == before
    assert (before.status, before.expired_at, before.size_bytes) == ("expired", NOON, 1000)


def test_what_is_left_of_an_expired_backup_makes_its_row(catalog: Catalog) -> None:
    assert not catalog.backups.mark_expired(numbered(1), NOON)
    record_started(catalog, 2)

    for number in (1, 2, 2):
        catalog.backups.record_expired(manifest(number), destination="primary", manifest_sha256=SHA256, expired_at=NOON)

    for number in (1, 2):
        assert (row(catalog, number).status, row(catalog, number).expired_at) == ("expired", NOON)


def test_the_end_of_a_flow_run_ends_what_it_left_running(catalog: Catalog) -> None:
    record_started(catalog, 1, flow_run_id=numbered(99))
    record_started(catalog, 2, flow_run_id=numbered(99))
    record_completed(catalog, 2, flow_run_id=numbered(99))
    record_started(catalog, 3, flow_run_id=numbered(98))

    ended = catalog.backups.record_flow_run_ended(numbered(99), status="crashed", error="the worker is gone")

    assert ended == [numbered(1)]
    assert [row(catalog, number).status for number in (1, 2, 3)] == ["crashed", "completed", "running"]


def test_only_a_finished_backup_is_verified_pinned_or_suspect(catalog: Catalog) -> None:
    record_started(catalog)
    assert not catalog.backups.mark_verified(numbered(1), NOON, passed=True)
    assert not catalog.backups.set_pinned(numbered(1), True)
    assert not catalog.backups.set_suspect(numbered(2), True)

    record_completed(catalog)
    assert catalog.backups.mark_verified(numbered(1), NOON, passed=True)
    assert catalog.backups.set_pinned(numbered(1), True)
    assert catalog.backups.set_suspect(numbered(1), True)
    record_completed(catalog)

    marked = row(catalog)
    assert (marked.verified, marked.verified_at, marked.pinned, marked.suspect) == (True, NOON, True, True)


def test_a_failed_drill_takes_the_verification_but_not_its_time(catalog: Catalog) -> None:
    record_completed(catalog)
    for at in (NOON, NOON - timedelta(hours=1)):
        catalog.backups.mark_verified(numbered(1), at, passed=True)
    assert row(catalog).verified_at == NOON

    catalog.backups.mark_verified(numbered(1), NOON + timedelta(hours=1), passed=False)

    assert (row(catalog).verified, row(catalog).verified_at) == (False, NOON)


@pytest.mark.parametrize(
    "state",
    [
        BackupState(),
        BackupState(verified_at=NOON, pinned=True),
        BackupState(verified_at=NOON, failed_drill_at=NOON + timedelta(hours=1), suspect=True),
    ],
)
def test_the_state_in_storage_overwrites_what_the_row_said(catalog: Catalog, state: BackupState) -> None:
    record_completed(catalog)
    catalog.backups.mark_verified(numbered(1), NOON + timedelta(days=1), passed=True)
    catalog.backups.set_suspect(numbered(1), True)

    assert catalog.backups.record_state(numbered(1), state)

    found = row(catalog)
    assert (found.verified, found.verified_at) == (state.verified, state.verified_at)
    assert (found.pinned, found.suspect) == (state.pinned, state.suspect)
    assert not catalog.backups.record_state(numbered(2), state)


def test_a_backup_is_found_by_id_or_label(catalog: Catalog) -> None:
    record_completed(catalog, 1)
    record_completed(catalog, 2, label=manifest(1).label, cluster="other")
    label = manifest(1).label

    assert catalog.backups.find(str(numbered(1))) == row(catalog, 1)
    assert catalog.backups.find(label, cluster="other") == row(catalog, 2)
    assert catalog.backups.find("20200101-000000F") is None
    assert catalog.backups.find(str(uuid4())) is None
    with pytest.raises(CatalogRefused, match="there are 2 backups") as caught:
        catalog.backups.find(label)
    assert str(numbered(2)) in caught.value.message


def test_two_backups_cannot_have_one_label_at_one_place(catalog: Catalog) -> None:
    record_completed(catalog, 1)

    with pytest.raises(CatalogRefused, match="uq_backups_label"):
        record_completed(catalog, 2, label=manifest(1).label)


def test_what_should_be_at_a_destination_is_listed(catalog: Catalog) -> None:
    for number in (1, 2, 3):
        record_completed(catalog, number)
    record_completed(catalog, 4, cluster="other")
    record_started(catalog, 5)
    catalog.backups.mark_expired(numbered(2), NOON)

    rows = catalog.backups.completed_at_destination("primary", "main")

    assert [found.id for found in rows] == [numbered(3), numbered(1)]
    assert catalog.backups.completed_at_destination("elsewhere", "main") == []


def test_lists_are_filtered(catalog: Catalog) -> None:
    record_completed(catalog, 1)
    record_completed(catalog, 2, type=BackupType.LOGICAL, engine="pg_dump")
    record_completed(catalog, 3, cluster="other")
    record_started(catalog, 4, destination="second")

    def chosen(**wanted: object) -> list[int]:
        page = catalog.backups.list_backups(BackupFilter(**wanted))  # type: ignore[arg-type]
        return [number for found in page.rows for number in range(1, 5) if found.id == numbered(number)]

    assert chosen() == [4, 3, 2, 1]
    assert chosen(status=BackupStatus.COMPLETED) == [3, 2, 1]
    assert chosen(type=BackupType.LOGICAL) == [2]
    assert chosen(engine="basebackup", status=BackupStatus.COMPLETED) == [3, 1]
    assert chosen(cluster="other") == [3]
    assert chosen(destination="second") == [4]
    assert chosen(cluster="nobody") == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 12), wanted=st.sampled_from([None, BackupStatus.COMPLETED, BackupStatus.FAILED]))
def test_pages_hold_every_row_once_also_when_rows_start_at_the_same_moment(
    catalog: Catalog, limit: int, wanted: BackupStatus | None
) -> None:
    for number in range(1, 11):
        record_completed(catalog, number, started_at=NOON + timedelta(minutes=number // 3))
    chosen = BackupFilter(status=wanted)
    everything = catalog.backups.list_backups(chosen, limit=100)
    assert everything.next_cursor is None

    paged, cursor = list[BackupRow](), None
    while True:
        page = catalog.backups.list_backups(chosen, limit=limit, cursor=cursor)
        assert len(page.rows) <= limit
        paged += page.rows
        cursor = page.next_cursor
        if cursor is None:
            break

    assert paged == everything.rows
    assert paged == sorted(paged, key=lambda found: (found.started_at, found.id), reverse=True)


def test_a_new_backup_does_not_shift_the_next_page(catalog: Catalog) -> None:
    for number in (1, 2, 3):
        record_completed(catalog, number)
    first = catalog.backups.list_backups(limit=2)
    record_started(catalog, 4)

    second = catalog.backups.list_backups(limit=2, cursor=first.next_cursor)

    assert [found.id for found in second.rows] == [numbered(1)]
    with pytest.raises(CursorInvalid):
        catalog.backups.list_backups(cursor="bm9uZQ")
    with pytest.raises(ValueError, match="0 rows"):
        catalog.backups.list_backups(limit=0)


def test_lists_over_many_backups_are_read_from_an_index(catalog: Catalog, platform_dsn: str) -> None:
    with connect(platform_dsn, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute("ANALYZE lifeboat.backups")

        for chosen in (
            BackupFilter(),
            BackupFilter(status=BackupStatus.FAILED),
            BackupFilter(status=BackupStatus.COMPLETED, type=BackupType.FULL),
            BackupFilter(engine="pg_dump"),
            BackupFilter(cluster="main"),
            BackupFilter(destination="nowhere"),
        ):
            first = catalog.backups.list_backups(chosen)
            for cursor in {first.next_cursor, None}:
                statement = LISTING.statement(chosen.conditions(), 50, cursor)
                compiled = statement.compile(
                    dialect=create_engine("postgresql+psycopg://").dialect, compile_kwargs={"literal_binds": True}
                )
                plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN ANALYZE {compiled}".encode()))
                assert "Index Scan" in plan, plan
                assert "Seq Scan" not in plan, plan
                assert "Sort" not in plan, plan
