"""Drills beside a beating agent: its row moves between fingerprint and dump, and disturbs nothing."""

from datetime import datetime, timedelta

import pytest

from lifeboat.agent.heartbeat import newest_heartbeat
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.storage.manifest import BackupType
from tests.support.agent import beat_after, running_agent


@pytest.mark.parametrize(
    ("engine", "kind", "target"),
    [
        ("basebackup", BackupType.FULL, "scratch"),
        ("pg_dump", BackupType.LOGICAL, "scratch"),
        ("pg_dump", BackupType.LOGICAL, "database"),
    ],
)
def test_a_moving_heartbeat_fails_no_drill_and_is_not_mentioned(
    installation: Installation, engine: str, kind: BackupType, target: str
) -> None:
    recovered: list[datetime | None] = []

    def look(restored: ConnectionInfo) -> None:
        with connect(restored, autocommit=True) as session:
            recovered.append(newest_heartbeat(session))

    with running_agent(installation.source, installation.catalog, heartbeat_seconds=0.1):
        before = beat_after(installation.source)
        backup = take_backup(installation, BackupOrder(kind, engine=engine))
        after = beat_after(installation.source, backup.completed_at)
        order = DrillOrder(target="database" if target == "database" else "scratch", on_restored=look)
        report = run_drill(installation, order)

    assert report.faults == []
    assert report.compared_tables >= 2
    assert "heartbeat" not in " ".join([*report.not_compared, *report.notes])
    (newest,) = recovered
    assert newest is not None
    assert before <= newest <= after
    assert newest >= backup.started_at - timedelta(seconds=2)
