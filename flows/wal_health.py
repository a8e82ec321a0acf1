"""WAL health: does WAL reach the archive, and is all of it there?"""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.operations.wal.health import WalHealthReport
from tasks.staleness import skip_if_stale
from tasks.wal_archived import skip_without_archive
from tasks.wal_health import check_wal_health


@lifeboat_flow("wal-health")
def wal_health() -> WalHealthReport | State[Any]:
    """Look at the archiver, the archive, replication slots and the agent's heartbeat.

    An alert ends the run as Failed with the name FoundProblems; warnings are in the artifact only. Behind a gap that no
    full backup bridges, the next scheduled differential or incremental backup becomes a full one.
    """
    if skipped := skip_if_stale() or skip_without_archive():
        return skipped
    report = check_wal_health()
    if not report.healthy:
        return found_problems("WAL archiving needs attention", [item.what for item in report.verdict.alerts])
    return report
