"""Looks at WAL archiving."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.wal import health as operation
from lifeboat.operations.wal.health import WalHealthReport
from tasks.retrying import TRANSIENT_ONLY
from tasks.wal_report import report_health
from tasks.work import at_work


@task(name="check-wal-health", cache_policy=NO_CACHE, timeout_seconds=240, **TRANSIENT_ONLY)
def check_wal_health() -> WalHealthReport:
    """Judge archiver, archive, slots and heartbeat, remember a wish for a full backup, report, and remember that."""
    with at_work() as work:
        report = operation.check_wal_health(work.installation)
        report_health(report)
        operation.remember_told(work.installation, report)
    return report
