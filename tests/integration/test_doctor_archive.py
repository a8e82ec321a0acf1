"""Archiving for a server that is not ours: doctor's fix leads to `wal install`, and its statements to an archive."""

import os
import shlex
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployments.services import RunningServices, _introduce
from lifeboat.errors import SettingsError
from lifeboat.operations.doctor.archive import (
    Call,
    check_archive_timeout,
    check_archiver,
    check_archiving,
    parse_call,
    segments_behind,
)
from lifeboat.operations.doctor.run import CheckResult, CheckStatus, run_checks
from lifeboat.operations.doctor.source import Archiver, read_source
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archive_setup import set_up_archiving
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.settings.root import Settings
from lifeboat.wal.coverage import scan_archive
from lifeboat.wal.install import CONFIG_NAME

SEGMENT_BYTES = 16 * 1024 * 1024
NOW = datetime.now(UTC)
SOUND = Archiver(3, "000000010000000000000003", NOW, 0, None, None, "000000010000000000000004")


@pytest.fixture
def outside(each_stopped_cluster: Cluster, reachable_tmp: Path) -> Installation:
    """An installation beside a server of its own that archives nothing yet."""
    each_stopped_cluster.write_settings({"listen_addresses": "", "fsync": False})
    each_stopped_cluster.start()
    return Installation(
        Settings.model_validate(
            {
                "state_dir": reachable_tmp / "state",
                "platform": {"dsn": each_stopped_cluster.dsn(), "bin_dir": each_stopped_cluster.tools.bin_dir},
                "destinations": {"primary": {"path": reachable_tmp / "store", "minimum_free_bytes": 0}},
                "wal": {"minimum_free_bytes": 0},
                "prefect": {"port": 1024},
            }
        )
    )


def examine(installation: Installation) -> dict[str, CheckResult]:
    """The results by name."""
    return {result.name: result for result in run_checks(installation)}


def run_statements(dsn: str, statements: list[str]) -> None:
    """Do what `wal install` printed, as an administrator would."""
    with connect(dsn, autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def test_archiving_is_set_up_by_what_is_printed(outside: Installation, each_stopped_cluster: Cluster) -> None:
    before = examine(outside)
    setup = set_up_archiving(outside)
    run_statements(outside.source.dsn, setup.statements)
    each_stopped_cluster.stop()
    each_stopped_cluster.start()
    fresh = examine(outside)
    run_statements(outside.source.dsn, ["SELECT pg_switch_wal()"])
    _wait_until_archived(outside)
    after = examine(outside)

    assert before["archiving"].status is CheckStatus.FAILED
    assert "archive_mode is off; there is no archive_command" in before["archiving"].detail
    assert str(before["archiving"].fix).startswith("lifeboat wal install")
    assert setup.needs_restart
    assert (fresh["archiving"].status, fresh["archiver"].status) == (CheckStatus.OK, CheckStatus.WARNING)
    assert (after["archiving"].status, after["archiver"].status) == (CheckStatus.OK, CheckStatus.OK)
    assert scan_archive(outside.destination().path, "main").ranges


def test_what_breaks_later_is_found(outside: Installation, each_stopped_cluster: Cluster, reachable_tmp: Path) -> None:
    setup = set_up_archiving(outside)
    run_statements(outside.source.dsn, setup.statements)
    each_stopped_cluster.stop()
    each_stopped_cluster.start()

    config = outside.settings.state_dir / "wal" / CONFIG_NAME
    kept = config.read_bytes()
    config.unlink()
    assert "cannot use" in examine(outside)["archiving"].detail
    config.write_bytes(kept.replace(b'"main"', b'"other"'))
    assert "settings say" in examine(outside)["archiving"].detail
    config.write_bytes(kept)

    archive = outside.destination().path / "main" / "wal"
    archive.chmod(0o000)
    closed = examine(outside)["archiving"]
    archive.chmod(0o750)
    setup.program.chmod(0o000)
    unreadable = examine(outside)["archiving"]
    setup.program.chmod(0o644)
    if os.geteuid() == 0:
        assert closed.status is CheckStatus.FAILED
        assert unreadable.status is CheckStatus.FAILED
    assert examine(outside)["archiving"].status is CheckStatus.OK

    run_statements(outside.source.dsn, ["ALTER SYSTEM SET archive_command = 'cp %p /x'", "SELECT pg_reload_conf()"])
    foreign = _until_not(outside, CheckStatus.OK)
    assert "which is not Lifeboat's" in foreign.detail


def test_a_receiver_is_a_way_to_archive_and_needs_archive_timeout_too(outside: Installation) -> None:
    wal = outside.settings.wal.model_copy(update={"receive": True})
    receiving = Installation(outside.settings.model_copy(update={"wal": wal}))
    before = examine(receiving)
    run_statements(outside.source.dsn, ["ALTER SYSTEM SET archive_timeout = '30s'", "SELECT pg_reload_conf()"])
    assert (before["archiving"].status, before["archive_timeout"].status) == (CheckStatus.OK, CheckStatus.WARNING)
    assert "lifeboat wal receive" in before["archiving"].detail
    assert "archive_timeout = '30s'" in str(before["archive_timeout"].fix)
    for _ in range(50):
        if "archive_timeout" not in examine(receiving):
            break
    else:
        raise AssertionError("the warning stays")
    longer = replace(facts := read_source(receiving), settings={**facts.settings, "archive_timeout": "3600"})
    (result,) = check_archive_timeout(receiving, longer)
    assert "for 3600 s, and `wal.archive_timeout_seconds` wants 30" in result.detail
    assert "archive_timeout = '30s'" in str(result.fix)


def test_the_embedded_server_sets_itself_up(outside: Installation, installation: Installation) -> None:
    with pytest.raises(SettingsError, match="set up by `lifeboat up`"):
        set_up_archiving(installation)
    results = examine(installation)

    assert results["archiving"].status is CheckStatus.OK


def test_doctor_and_up_tell_how_to_connect_to_the_embedded_server(installation: Installation) -> None:
    command = examine(installation)["source"].detail.partition("; embedded: ")[2]
    asked = [*shlex.split(command, comments=True), "-Atc", "SELECT current_database()"]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert (found.stdout.strip(), found.stderr) == (installation.settings.platform.database, "")

    said: list[str] = []
    _introduce(RunningServices(installation, said.append))
    assert f"PostgreSQL: {command}" in said


def test_a_remote_server_is_set_up_on_its_own_machine(outside: Installation) -> None:
    facts = replace(read_source(outside), local=False)
    (result,) = check_archiving(outside, facts)

    assert result.status is CheckStatus.FAILED
    assert "on the server's machine" in str(result.fix)


@pytest.mark.parametrize(
    ("command", "call"),
    [
        (
            '/usr/bin/python3 -I -S /v/wal/archive_program.pyz push --config /v/wal/wal.json "%p" "%f" || exit 1',
            Call(Path("/usr/bin/python3"), Path("/v/wal/archive_program.pyz"), Path("/v/wal/wal.json")),
        ),
        (
            "'/my py/python' '/100%%/archive_program.pyz' push --config '/a b/wal.json' %p %f",
            Call(Path("/my py/python"), Path("/100%/archive_program.pyz"), Path("/a b/wal.json")),
        ),
        ("cp %p /archive/%f", None),
        ("python archive_program.pyz fetch --config /x %p %f", None),
        ("python archive_program.pyz push", None),
        ("echo 'unbalanced", None),
        ("", None),
    ],
)
def test_only_our_own_command_is_understood(command: str, call: Call | None) -> None:
    assert parse_call(command) == call


@pytest.mark.parametrize(
    ("archiver", "status", "said"),
    [
        (SOUND, CheckStatus.OK, "last archived 000000010000000000000003"),
        (
            replace(SOUND, last_archived_wal=None, last_archived_at=None),
            CheckStatus.WARNING,
            "nothing was archived yet",
        ),
        (replace(SOUND, current_segment="000000010000000000000009"), CheckStatus.WARNING, "5 segments wait"),
        (replace(SOUND, current_segment="000000020000000000000009"), CheckStatus.OK, "last archived"),
        (
            replace(SOUND, failed_count=2, last_failed_wal="x", last_failed_at=NOW + timedelta(seconds=1)),
            CheckStatus.FAILED,
            "2 failures in all",
        ),
        (
            replace(SOUND, failed_count=2, last_failed_wal="x", last_failed_at=NOW - timedelta(seconds=1)),
            CheckStatus.OK,
            "last archived",
        ),
    ],
)
def test_the_servers_own_word_on_archiving(archiver: Archiver, status: CheckStatus, said: str) -> None:
    (result,) = check_archiver(archiver, SEGMENT_BYTES)

    assert result.status is status
    assert said in result.detail


def test_history_files_do_not_confuse_the_lag() -> None:
    assert segments_behind(replace(SOUND, last_archived_wal="00000002.history"), SEGMENT_BYTES) is None


def _wait_until_archived(installation: Installation) -> None:
    give_up_at = time.monotonic() + 60
    while read_source(installation).archiver.last_archived_wal is None:
        assert time.monotonic() < give_up_at, "nothing was archived within a minute"
        time.sleep(0.1)


def _until_not(installation: Installation, status: CheckStatus) -> CheckResult:
    # The server reads its configuration a moment after it was asked to.
    for _ in range(50):
        found = examine(installation)["archiving"]
        if found.status is not status:
            return found
    raise AssertionError(f"archiving stayed {status}")
