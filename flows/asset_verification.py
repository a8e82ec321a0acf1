"""Asset verification: every file against the database."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.assets.findings import AssetReport
from tasks.staleness import skip_if_stale
from tasks.verify_assets import verify_assets


@lifeboat_flow("asset-verification")
def asset_verification(resume: bool = True) -> AssetReport | State[Any]:
    """Read every asset file and compare its checksum with the database's: missing, corrupt, unreadable.

    Findings end the run as Failed with the name FoundProblems: Completed would hide them. The message has the counts,
    the artifacts list each file, and the catalog keeps them until a later check finds the file sound.

    Args:
        resume: Go on where an interrupted check stopped.
    """
    if stale := skip_if_stale():
        return stale
    report = verify_assets(resume)
    if not report.sound:
        counts = f"{report.missing} missing, {report.corrupt} corrupt, {report.unreadable} unreadable"
        return found_problems(f"{report.checked:,} assets checked, {counts}", [str(item) for item in report.findings])
    return report
