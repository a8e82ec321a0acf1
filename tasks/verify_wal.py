"""Reads what the WAL archive holds."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.wal.verify import verify_wal as verify_installation_wal
from lifeboat.wal.scrub import ScrubProgress, ScrubReport
from tasks.figures import size_text
from tasks.progress import ProgressBar
from tasks.retrying import TRANSIENT_ONLY
from tasks.wal_report import report_scrub
from tasks.work import at_work

_PERCENT = 100.0


# No time-out of the task's own: `wal.verify_max_seconds` ends the work between two windows, with its findings stored,
# and each pg_waldump has a limit in lifeboat.commands.
@task(name="verify-wal", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def verify_wal(everything: bool) -> ScrubReport:
    """Read the segments that are due, keep the findings beside the archive, and report."""
    with at_work() as work, ProgressBar("wal-verify-progress", "WAL") as bar:

        def show(progress: ScrubProgress) -> None:
            read = f"{size_text(progress.read_bytes)} of {size_text(progress.due_bytes)}"
            bar.show(
                _PERCENT * progress.read_bytes / max(1, progress.due_bytes), f"{read}, {progress.findings} findings"
            )

        limit = None if everything else work.installation.settings.wal.verify_max_seconds
        report = verify_installation_wal(work.installation, everything=everything, max_seconds=limit, on_progress=show)
        report_scrub(report)
    return report
