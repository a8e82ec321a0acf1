"""What runs tell: figures, reports, and when a task tries again."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from lifeboat.assets.findings import AssetReport, Finding, FindingKind
from lifeboat.errors import PermanentError, TransientError
from lifeboat.operations.restore.results import RestoreReport
from lifeboat.operations.results import BackupTaken, DrillReport
from lifeboat.storage.manifest import BackupObject, BackupType, Manifest, RestoreStep
from tasks.asset_report import asset_report, finding_rows
from tasks.back_up_database import back_up_database
from tasks.backup_report import backup_report
from tasks.drill_report import drill_report
from tasks.engines import physical_engine, type_by_engine
from tasks.figures import duration_text, markdown_table, size_text
from tasks.restore_report import restore_report
from tasks.retrying import is_worth_a_retry

AT = datetime(2026, 11, 22, 19, tzinfo=UTC)


@pytest.mark.parametrize(("error", "again"), [(TransientError("busy"), True), (PermanentError("no"), False)])
def test_only_transient_errors_are_tried_again(error: Exception, again: bool) -> None:
    run = TaskRun(task_key="x", dynamic_key="0")
    assert is_worth_a_retry(back_up_database, run, Failed(data=error)) is again
    assert is_worth_a_retry(back_up_database, run, Failed(data=OSError("ours was not"))) is False


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(None, "?"), (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (99_960_000, "100 MB")]
)
def test_sizes(size_bytes: int | None, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (59.96, "1 min 00 s"), (7620, "2 h 07 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_cell_cannot_break_its_table() -> None:
    assert markdown_table(("a",), [["x|y\nz"]]).splitlines()[2] == "| x\\|y z |"


def test_a_full_backup_by_pg_dump_is_a_logical_one() -> None:
    assert type_by_engine(BackupType.FULL, "pg_dump") is BackupType.LOGICAL
    assert type_by_engine(BackupType.FULL, "basebackup") is BackupType.FULL
    assert type_by_engine(BackupType.INCREMENTAL, "basebackup") is BackupType.INCREMENTAL


@pytest.mark.parametrize(
    ("asked", "configured", "chosen"),
    [
        (None, "basebackup", "basebackup"),
        (None, "pgbackrest", "pgbackrest"),
        (None, "pg_dump", "basebackup"),
        ("basebackup", "pgbackrest", "basebackup"),
    ],
)
def test_incremental_backups_go_by_the_settings_unless_that_is_a_dump(
    asked: str | None, configured: str, chosen: str
) -> None:
    assert physical_engine(asked, configured) == chosen


def test_a_backup_report_has_the_commands_with_their_variables_filled_in() -> None:
    label = "20261122-190000F"
    manifest = Manifest(
        id=UUID(int=1),
        label=label,
        set_id=UUID(int=2),
        type=BackupType.FULL,
        engine="basebackup",
        cluster="main",
        started_at=AT,
        completed_at=AT + timedelta(seconds=90),
        objects=[BackupObject(name="base.tar.gz", size_bytes=2_000_000, sha256="0" * 64)],
        compression="gzip",
        restore=[
            RestoreStep(title="Unpack", commands=[f'tar -xzf "$REPOSITORY/{label}/base.tar.gz" -C "${{TARGET}}"']),
            RestoreStep(title="Start", commands=['ls "$TABLESPACES"', 'pg_ctl -D "$TARGET" -o "-k $SOCKET" start']),
        ],
        tools={"tar": "any", "pg_ctl": "18"},
        lifeboat_version="0",
        signed_by="0" * 16,
    )
    taken = BackupTaken(
        id=manifest.id,
        label=label,
        type=manifest.type,
        engine=manifest.engine,
        destination="primary",
        location=f"/backups/main/{label}",
        size_bytes=manifest.size_bytes,
        started_at=AT,
        completed_at=manifest.completed_at,
        manifest_sha256="f" * 64,
        reason="instead of incremental",
        phases={"flush": 1.5},
    )
    report = backup_report(taken, manifest)
    assert "export REPOSITORY=/backups/main\nexport TARGET=" in report
    assert f'tar -xzf "$REPOSITORY/{label}/base.tar.gz" -C "${{TARGET}}"' in report
    for words in (f"# Full backup {label}", "2.0 MB in 1 object |", "| flush | 1.5 s |", "1 min 30 s", "pg_ctl ≥ 18"):
        assert words in report
    assert "instead of incremental" in report
    assigned = [line.split("=")[0] for line in report.splitlines() if line.startswith("export ")]
    assert assigned == [f"export {name}" for name in ("REPOSITORY", "TARGET", "SOCKET", "TABLESPACES")]
    assert "```sh\n# Run all of this as the account that will own the server" in report


def test_a_failed_drill_says_so_first_and_names_the_faults() -> None:
    report = DrillReport(
        id=uuid4(),
        backup_id=uuid4(),
        label="20261122-190000F",
        target="scratch",
        started_at=AT,
        completed_at=AT + timedelta(seconds=5),
        phases={"recover": 2.0},
        faults=["public.segments: 3 rows instead of 4"],
        compared_tables=7,
        not_compared=["public.cache: unlogged"],
        validations=[("there are characters", False, "0 (expected 1)")],
        notes=[],
    )
    text = drill_report(report)
    assert text.startswith("# Restore drill of 20261122-190000F FAILED")
    assert text.index("3 rows instead of 4") < text.index("recover")
    assert "| there are characters | WRONG | 0 (expected 1) |" in text


def test_a_restores_page_says_where_it_landed_outside_of_its_table() -> None:
    report = RestoreReport(UUID(int=1), "T", "new:/x", "L", ["L"], AT, AT, {"plan": 1.5}, "/x", landing="last commit A")
    page = restore_report(report)
    assert "\n\nLanded: last commit A\n\n" in page
    assert "| began |" in page
    assert "| ended |" in page


def test_asset_findings_are_a_table_for_each_kind() -> None:
    findings = (
        Finding("1", "segment", "a.mp4", FindingKind.MISSING, "not there"),
        Finding(
            "2", "segment", "b.mp4", FindingKind.CORRUPT, "another checksum", expected_sha256="1", actual_sha256="2"
        ),
    )
    report = AssetReport(AT, AT, 2.0, 2000, 4_000_000, 0, 1, 1, 0, findings, resumed=False)
    assert {kind: [row["path"] for row in rows] for kind, rows in finding_rows(report).items()} == {
        FindingKind.MISSING: ["a.mp4"],
        FindingKind.CORRUPT: ["b.mp4"],
    }
    assert "2,000 checked, 2 are not" in asset_report(report)
