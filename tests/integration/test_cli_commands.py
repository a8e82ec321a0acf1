"""The commands on a real platform: what they write, how they end, and that they need no catalog to read."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import tomlkit

from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import BackupType
from tests.support.command_line import Run, lifeboat, settings_file

__all__ = ["lifeboat", "settings_file"]


@pytest.fixture
def no_catalog(reachable_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes the catalog away when it is called."""
    return lambda: monkeypatch.setenv("LIFEBOAT_CATALOG__DSN", f"host={reachable_tmp} dbname=nowhere")


def take(lifeboat: Run, kind: str) -> str:
    """Take a backup in process and return the label of the first thing taken."""
    done = lifeboat("backup", "run", "--type", kind, "--in-process", "--json")
    assert done.code == 0, done.err
    return str(done.json[0]["label"])


def test_a_backup_is_taken_listed_and_proven(lifeboat: Run) -> None:
    full = take(lifeboat, "full")
    incremental = take(lifeboat, "incremental")
    listed = lifeboat("backup", "list", "--json")
    plain = lifeboat("backup", "list")
    shown = lifeboat("backup", "show", incremental)
    proven = lifeboat("backup", "verify", "latest", "--json")
    after = lifeboat("backup", "list", "--json")

    assert [(item["type"], item["status"]) for item in listed.json["backups"]] == [
        ("full", "completed"),
        ("config", "completed"),
        ("incremental", "completed"),
    ]
    assert listed.json["backups"][0]["set_id"] == listed.json["backups"][1]["set_id"]
    assert full in plain.out
    assert "pg_combinebackup" in shown.out
    assert f"needs       {full}" in shown.out
    assert (proven.code, proven.json["passed"], proven.json["label"]) == (0, True, incremental)
    assert [item["verified"] for item in after.json["backups"]] == [False, False, True]


def test_without_prefect_a_note_says_where_it_runs(lifeboat: Run) -> None:
    done = lifeboat("backup", "run", "--type", "config")

    assert done.code == 0
    assert "note: taken in this process" in done.err
    assert "config by configuration" in done.out


def test_reading_and_pinning_need_no_catalog(lifeboat: Run, no_catalog: Callable[[], None]) -> None:
    label = take(lifeboat, "logical")
    no_catalog()
    listed = lifeboat("backup", "list", "--json")
    pinned = lifeboat("backup", "pin", label)
    again = lifeboat("backup", "pin", label)
    plan = lifeboat("retention", "plan", "--json")

    assert listed.code == 0
    assert [item["label"] for item in listed.json["backups"]] == [label]
    assert "the catalog cannot be asked" in listed.json["notes"][0]
    assert pinned.out == f"{label} is pinned now\n"
    assert again.out == f"{label} is pinned already\n"
    assert "pinned" in plan.json["decisions"][0]["reasons"]
    assert lifeboat("backup", "show", label).code == 0
    assert lifeboat("storage", "status", "--json").json[0]["backups"] == {"logical": 1}


def test_a_pin_is_in_storage_catalog_and_audit(lifeboat: Run, installation: Installation) -> None:
    label = take(lifeboat, "logical")
    lifeboat("backup", "pin", label)
    stored = installation.repository().load(label)
    row = installation.catalog.backups.get(stored.manifest.id)
    with connect(installation.source, autocommit=True) as session:
        audit = session.execute("SELECT action, object FROM lifeboat.audit_log").fetchall()
    lifeboat("backup", "unpin", label)

    assert stored.state.pinned
    assert row is not None
    assert row.pinned
    assert audit == [("pin", f"backup {label}")]
    assert not installation.repository().load(label).state.pinned


def test_a_damaged_object_is_found_by_the_check_and_by_the_drill(lifeboat: Run, installation: Installation) -> None:
    label = take(lifeboat, "logical")
    sound = lifeboat("backup", "verify", label, "--check-only")
    folder = installation.destination().path / "studio" / label
    victim = max(folder.glob("dump/*.gz"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.write_bytes(data)
    checked = lifeboat("backup", "verify", label, "--check-only", "--json")
    drilled = lifeboat("backup", "verify", label)

    assert sound.code == 0
    assert "only a restore drill proves" in sound.err
    assert (checked.code, checked.json["sound"]) == (3, False)
    assert victim.name in checked.json["faults"][0]
    assert drilled.code == 3
    assert "FAULT" in drilled.out


def test_a_manifest_that_was_changed_hides_no_other_backup(lifeboat: Run, installation: Installation) -> None:
    first, second = take(lifeboat, "logical"), take(lifeboat, "config")
    manifest = installation.destination().path / "studio" / first / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"logical"', '"full"'))
    listed = lifeboat("backup", "list", "--json")

    assert listed.code == 3
    assert {item["label"]: item["status"] for item in listed.json["backups"]} == {first: "damaged", second: "completed"}
    assert lifeboat("backup", "show", first).code == 1


def test_retention_is_previewed_confirmed_and_applied(lifeboat: Run) -> None:
    old, new = take(lifeboat, "logical"), take(lifeboat, "logical")
    plan = lifeboat("retention", "plan", "--json").json
    shown = lifeboat("retention", "plan").out
    short = plan["plan_hash"][:12]
    refused = [
        lifeboat("retention", "apply", "--yes", "0" * 64),
        lifeboat("retention", "apply", "--yes", ""),
        lifeboat("retention", "apply", typed="yes\n"),
        lifeboat("retention", "apply"),
    ]
    kept = [item["label"] for item in lifeboat("backup", "list", "--json").json["backups"]]
    applied = lifeboat("retention", "apply", typed=f"{short}\n")

    assert {item["label"]: item["verdict"] for item in plan["decisions"]} == {old: "expire", new: "keep"}
    assert plan["freed_bytes"] > 0
    assert f"plan {short}" in shown
    assert "no rule keeps it" in shown
    assert [done.code for done in refused] == [1, 1, 1, 1]
    assert kept == [old, new]
    assert applied.code == 0
    assert f"expired {old}" in applied.out
    assert [item["label"] for item in lifeboat("backup", "list", "--json").json["backups"]] == [new]


def test_a_script_applies_the_plan_that_it_has_seen(lifeboat: Run) -> None:
    take(lifeboat, "logical")
    take(lifeboat, "logical")
    seen = lifeboat("retention", "plan", "--json").json["plan_hash"]
    take(lifeboat, "logical")
    outdated = lifeboat("retention", "apply", "--yes", seen)
    fresh = lifeboat("retention", "plan", "--json").json["plan_hash"]
    applied = lifeboat("retention", "apply", "--yes", fresh, "--json")

    assert outdated.code == 1
    assert "HINT: Look at what would be done now" in outdated.err
    assert (applied.code, len(applied.json["expired"])) == (0, 2)


def test_the_wal_archive_shows_its_ranges_and_gaps(lifeboat: Run, settings_file: Path, reachable_tmp: Path) -> None:
    take(lifeboat, "full")
    take(lifeboat, "full")
    sound = lifeboat("wal", "status", "--json")
    source = Path(str(sound.json["archive"]))
    copy = reachable_tmp / "copy" / "studio" / "wal"
    shutil.copytree(source, copy)
    text = tomlkit.parse(settings_file.read_text())
    text["destinations"]["copy"] = {"path": str(reachable_tmp / "copy")}
    text["wal"]["destination"] = "copy"
    settings_file.write_text(tomlkit.dumps(text))
    segments = sorted(copy.glob("0*/0*.gz"))
    segments[len(segments) // 2].unlink()
    broken = lifeboat("wal", "status", "--json")
    plain = lifeboat("wal", "status")

    assert (sound.code, sound.json["gaps"], sound.json["damaged"]) == (0, [], [])
    assert sound.json["ranges"][0]["segments"] >= 2
    assert (broken.code, len(broken.json["gaps"])) == (3, 1)
    assert plain.code == 3
    assert "GAP" in plain.out


def test_reconcile_takes_over_what_the_catalog_missed(
    lifeboat: Run, installation: Installation, monkeypatch: pytest.MonkeyPatch, no_catalog: Callable[[], None]
) -> None:
    no_catalog()
    label = take(lifeboat, "logical")
    monkeypatch.delenv("LIFEBOAT_CATALOG__DSN")
    done = lifeboat("catalog", "reconcile", "--json")

    assert (done.code, done.json["adopted"]) == (0, [label])


def test_schedules_are_the_defaults_while_the_table_is_empty(lifeboat: Run) -> None:
    listed = lifeboat("schedule", "list", "--json")

    assert listed.code == 0
    assert "lifeboat-default-full-backup" in [item["name"] for item in listed.json["schedules"]]


def test_doctor_ends_with_3_for_findings_and_2_for_settings(lifeboat: Run, settings_file: Path) -> None:
    sound = lifeboat("doctor", "--json")
    settings_file.chmod(0o600)
    text = settings_file.read_text()
    settings_file.write_text(text.replace("[destinations.primary]\n", '[destinations.primary]\nmount = "perhaps"\n'))
    wrong = lifeboat("doctor")
    settings_file.write_text(text.replace("minimum_free_bytes = 0", "minimum_free_bytes = 900000000000000"))
    full = lifeboat("doctor")

    assert sound.code == 0
    assert sound.json["counts"].get("failed", 0) == 0
    assert wrong.code == 2
    assert "destinations.primary.mount" in wrong.out
    assert full.code == 3
    assert "fix: Free space" in full.out


def test_assets_that_nobody_named_are_a_matter_of_settings(lifeboat: Run) -> None:
    refused = lifeboat("assets", "verify")

    assert refused.code == 2
    assert "assets.roots" in refused.err


def test_an_unknown_destination_and_backup_are_named(lifeboat: Run) -> None:
    assert lifeboat("backup", "list", "--destination", "tape").code == 2
    assert lifeboat("backup", "run", "--type", "full", "--destination", "tape", "--in-process").code == 2
    assert lifeboat("backup", "verify", "20200101-000000F").code == 1


def test_a_destination_that_is_away_is_not_an_empty_one(
    lifeboat: Run, installation: Installation, no_catalog: Callable[[], None]
) -> None:
    label = take(lifeboat, "logical")
    folder = installation.destination().path
    folder.rename(folder.with_name("away"))
    listed, as_json = lifeboat("backup", "list"), lifeboat("backup", "list", "--json")
    doctor = lifeboat("doctor")
    shown, status = lifeboat("backup", "show", "latest"), lifeboat("storage", "status")
    reconciled = lifeboat("catalog", "reconcile")
    no_catalog()
    alone = lifeboat("backup", "list")

    assert (listed.code, as_json.code, shown.code, status.code, reconciled.code, alone.code) == (1, 1, 1, 3, 1, 1)
    assert label in listed.out
    assert "only what the catalog knows" in listed.err
    assert list(as_json.json["unread"]) == ["primary"]
    assert "cannot be read" in status.out
    assert "There are no backups" not in alone.out
    assert "is not there" in alone.err
    assert doctor.code == 3
    assert "fix: Create it, or mount it." in doctor.out
    assert not folder.exists()


def test_a_run_without_a_backup_is_shown_from_the_catalog(lifeboat: Run, installation: Installation) -> None:
    identifier = uuid4()
    backups = installation.catalog.backups
    backups.record_started(
        identifier,
        set_id=identifier,
        type=BackupType.FULL,
        engine="basebackup",
        cluster="studio",
        destination="primary",
        started_at=datetime.now(UTC),
    )
    backups.record_ended(identifier, status="failed", error="the disk was full")
    shown = lifeboat("backup", "show", str(identifier))

    assert shown.code == 0
    assert "status      failed" in shown.out
    assert "the disk was full" in shown.out
    assert lifeboat("backup", "show", str(identifier), "--json").json["catalog"]["status"] == "failed"
    assert lifeboat("backup", "show", str(uuid4())).code == 1


def test_restore_commands_and_pins_come_as_json(lifeboat: Run) -> None:
    label = take(lifeboat, "config")
    commands = lifeboat("backup", "show", label, "--json").json["restore_commands"]
    pinned = lifeboat("backup", "pin", label, "--json").json
    unpinned = lifeboat("backup", "unpin", label)
    again = lifeboat("backup", "unpin", label)

    assert any(line.startswith("export REPOSITORY=/") for line in commands)
    assert any(line.startswith("export TARGET=") for line in commands)
    assert (pinned["label"], pinned["pinned"], pinned["changed"]) == (label, True, True)
    assert unpinned.out == f"{label} is no longer pinned\n"
    assert again.out == f"{label} was not pinned\n"
