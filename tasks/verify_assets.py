"""Checks the asset files."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.assets.findings import AssetProgress, AssetReport
from lifeboat.operations.verify_assets import verify_installation_assets
from tasks.figures import size_text
from tasks.progress import ProgressBar
from tasks.reporting import report_assets
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="verify-assets", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def verify_assets(resume: bool) -> AssetReport:
    """Check every file against the database and report; an interrupted check goes on where it stopped."""
    with at_work() as work, ProgressBar("asset-verification-progress", "assets") as bar:

        def show(progress: AssetProgress) -> None:
            read = size_text(progress.bytes_checked)
            bar.note(f"{progress.checked:,} checked, {read} read, {progress.findings:,} findings")

        report = verify_installation_assets(
            work.installation, resume=resume, flow_run_id=work.flow_run_id, on_progress=show
        )
        report_assets(report)
    return report
