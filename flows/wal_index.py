"""WAL index: what committed transactions did, table by table, minute by minute."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.operations.wal.index import WalIndexReport
from tasks.index_wal import index_wal
from tasks.staleness import skip_if_stale
from tasks.wal_archived import skip_without_archive


@lifeboat_flow("wal-index")
def wal_index() -> WalIndexReport | State[Any]:
    """Index the WAL that has arrived in the archive: rows changed by minute and table, and notable events.

    WAL that is missing or cannot be decoded ends the run as Failed with the name FoundProblems: what lies behind it is
    indexed from the next full backup on.
    """
    if skipped := skip_if_stale() or skip_without_archive():
        return skipped
    report = index_wal()
    if report.stopped:
        return found_problems("the WAL index cannot go on", list(report.stopped))
    return report
