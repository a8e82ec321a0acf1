"""Brings the activity index up to date."""

import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.installation import LOG
from lifeboat.operations.wal import index as operation
from lifeboat.wal.activity.index import IndexProgress
from tasks.figures import count_text, size_text
from tasks.progress import ProgressBar
from tasks.publishing import announce, publish_markdown
from tasks.retrying import TRANSIENT_ONLY
from tasks.wal_index_report import problem_texts, wal_index_report
from tasks.work import at_work

_PERCENT = 100.0


@task(name="index-wal", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def index_wal() -> operation.WalIndexReport:
    """Read what the archive has and the index has not, and report; an interrupted run goes on where it stopped."""
    with at_work() as work, ProgressBar("wal-index-progress", "WAL index") as bar:

        def show(progress: IndexProgress) -> None:
            read = f"{size_text(progress.read_bytes)} of {size_text(progress.total_bytes)}"
            bar.show(_PERCENT * progress.read_bytes / max(1, progress.total_bytes), read)

        report = operation.index_wal(work.installation, on_progress=show)
        _report(report)
    return report


def _report(report: operation.WalIndexReport) -> None:
    """A run of the index; one that had nothing to read leaves no page."""
    title = f"{size_text(report.read_bytes)} read, {count_text(report.events, 'notable event')}"
    LOG.log(logging.ERROR if report.stopped else logging.INFO, "WAL index: %s", title)
    if report.read_bytes or problem_texts(report):
        publish_markdown("wal-index", wal_index_report(report), title)
    if report.read_bytes:
        payload = {
            "read_bytes": report.read_bytes,
            "events": report.events,
            "indexed_until": report.indexed_until.isoformat() if report.indexed_until is not None else None,
            "stopped": list(report.stopped),
        }
        announce("wal.indexed", kind="wal", identifier="index", name="WAL index", payload=payload)
