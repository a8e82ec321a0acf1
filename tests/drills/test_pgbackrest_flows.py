"""Backups by pgBackRest as Prefect runs them: the flows choose the settings' engine, and mirror what they took."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.services import running_services
from lifeboat.operations.wal.archive_setup import set_up_archiving
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import make_private_dir
from lifeboat.storage.manifest import BackupType
from tests.support.installation import SAMPLE
from tests.support.network import free_port
from tests.support.pgbackrest import Pair, fast_folder, new_server
from tests.support.postgres import reachable_dir
from tests.support.prefect import Services


@pytest.fixture(scope="module")
def services(pair: Pair, pair_template: Path) -> Iterator[Services]:
    """Prefect's server and worker beside a platform that archives with pgBackRest."""
    with reachable_dir("lifeboat-pgbackrest-up-", parent=fast_folder()) as home:
        make_private_dir(home / "store", pair.tools.user)
        server = new_server(home, pair_template, pair.tools)
        values: dict[str, Any] = {
            "state_dir": str(home / "state"),
            "platform": {"cluster": "studio", "dsn": server.dsn(), "bin_dir": str(pair.tools.bin_dir)},
            "destinations": {"primary": {"path": str(home / "store"), "minimum_free_bytes": 0}},
            "backup": {"engine": "pgbackrest"},
            "wal": {"archive_timeout_seconds": 0},
            "retention": {"keep_last": 1, "keep_days": 0},
            "engines": {"pgbackrest": {"program": str(pair.program), "archive_timeout_seconds": 20}},
            "prefect": {"port": free_port(), "worker_poll_seconds": 1, "drain_seconds": 5},
        }
        found = Services(home, values)
        found.write()
        with connect(server.dsn(), autocommit=True) as session:
            session.execute(SAMPLE)
            for statement in set_up_archiving(found.installation).statements:
                session.execute(statement.encode())
        with running_services(found.installation, lambda text: None) as found.running:
            found.rest_schedules()
            yield found


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)  # the command line is tested with both
def test_a_chain_is_taken_mirrored_proven_and_expired(services: Services) -> None:
    runs = [services.run(flow) for flow in ("full-backup", "differential-backup", "incremental-backup")]
    assert [run.succeeded for run in runs] == [True, True, True], [run.message for run in runs]
    rows = [next(row for row in services.rows(run.id) if row.type is not BackupType.CONFIG) for run in runs]
    assert [(row.type, row.engine, row.status.value) for row in rows] == [
        (BackupType.FULL, "pgbackrest", "completed"),
        (BackupType.DIFFERENTIAL, "pgbackrest", "completed"),
        (BackupType.INCREMENTAL, "pgbackrest", "completed"),
    ]
    repository = services.installation.repository()
    for row in rows:
        assert row.label is not None
        manifest = repository.manifest(row.label)
        assert (row.id, row.size_bytes, row.flow_run_id) == (manifest.id, manifest.size_bytes, manifest.flow_run_id)
    pages = {item.key: item for item in runs[-1].artifacts}
    assert f"--set={rows[-1].label}" in pages["incremental-backup"].data

    drill = services.run("test-restore")
    assert drill.succeeded, drill.message
    assert [row.verified for row in services.rows(runs[-1].id)] == [True]
    assert services.run("full-backup").succeeded
    assert services.run("test-restore").succeeded
    retention = services.run("retention")
    assert retention.succeeded, retention.message
    info = services.installation.pgbackrest().info()
    assert len(info.backup) == 1
    assert info.backup[0].label not in {row.label for row in rows}
    assert [row.status.value for run in runs for row in services.rows(run.id) if row.engine == "pgbackrest"] == [
        "expired",
        "expired",
        "expired",
    ]
    healthy = services.run("wal-health")
    assert healthy.succeeded, healthy.message
    stored = max((services.installation.pgbackrest().folders.repository / "archive").rglob("0*-*.gz"))
    stored.write_bytes(stored.read_bytes()[:-100])
    alerted = services.run("wal-health")
    assert (alerted.state_type, alerted.state_name) == ("FAILED", "FoundProblems")
    assert stored.name[:24] in alerted.message
    services.assert_nothing_is_left()
