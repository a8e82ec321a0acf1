"""The earliest moment that a backup can be restored to: when it ended in the server, not when it was stored."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from lifeboat.operations.backup.selection import find_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.storage.manifest import STOPPED_AT, BackupType, Manifest
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab

COMMIT = re.compile(r"desc: COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")


@pytest.fixture
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source for each version."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        yield made
        made.cluster.stop(mode="immediate")


def commits_within(lab: RecoveryLab, manifest: Manifest) -> list[datetime]:
    """The times of the commits between a backup's start and its stop."""
    words: list[str | Path] = ["--path", lab.cluster.data_dir / "pg_wal", "--rmgr", "Transaction"]
    words += ["--start", str(manifest.start_lsn), "--end", str(manifest.stop_lsn)]
    text = lab.cluster.tools.run("pg_waldump", words, env={"TZ": "UTC"}, timeout_seconds=120).stdout
    return [datetime.fromisoformat(found).replace(tzinfo=UTC) for found in COMMIT.findall(text)]


def test_a_moment_between_its_end_and_its_manifest_can_be_had(lab: RecoveryLab) -> None:
    # The server's words in a zone of its own: the end is not read as if it were in UTC.
    lab.run("ALTER SYSTEM SET log_timezone = 'Asia/Kathmandu'", "SELECT pg_reload_conf()")
    with lab.load(pause_seconds=0.01):
        label = lab.back_up()
    lab.switch()
    manifest: Manifest = find_backup(lab.installation.repository(), label).manifest
    assert manifest.started_at < manifest.stopped_at < manifest.completed_at
    before = commits_within(lab, manifest)
    assert before
    assert max(before) <= manifest.stopped_at
    between = manifest.stopped_at + (manifest.completed_at - manifest.stopped_at) / 2
    for number, at in enumerate((manifest.stopped_at, between)):
        order = RestoreOrder(
            RecoveryTarget(TargetKind.TIME, at=at), RestoreTo.parse(f"new:{lab.root / f'restored {number}'}")
        )
        report = run_restore(lab.installation, order)
        assert report.next_commit_at is not None
        assert report.next_commit_at > at
        with lab.opened(lab.root / f"restored {number}") as dsn:
            assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == lab.beats(at)
    early = RecoveryTarget(TargetKind.TIME, at=min(before))
    with pytest.raises(TargetRefused):
        run_restore(lab.installation, RestoreOrder(early, RestoreTo.parse(f"new:{lab.root / 'refused'}")))


def test_without_the_right_to_read_files_it_is_the_servers_clock(lab: RecoveryLab) -> None:
    lab.run("CREATE ROLE keeper LOGIN REPLICATION", "GRANT pg_read_all_data TO keeper")
    settings = lab.installation.settings
    platform = settings.platform.model_copy(update={"dsn": SecretStr(lab.cluster.dsn(user="keeper"))})
    limited = type(lab.installation)(settings.model_copy(update={"platform": platform}))
    begun = lab.value("SELECT clock_timestamp()")
    label = take_backup(limited, BackupOrder(BackupType.FULL, engine="basebackup")).label
    manifest = find_backup(lab.installation.repository(), label).manifest
    assert STOPPED_AT in manifest.details
    assert begun < manifest.stopped_at < manifest.completed_at


def test_an_older_manifest_says_when_it_was_complete(lab: RecoveryLab) -> None:
    label = lab.back_up()
    manifest = find_backup(lab.installation.repository(), label).manifest
    details = {key: value for key, value in manifest.details.items() if key != STOPPED_AT}
    older = manifest.model_copy(update={"details": details})
    assert older.stopped_at == manifest.completed_at
