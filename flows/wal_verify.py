"""WAL verification: what the archived segments hold."""

from typing import Any

from prefect.client.schemas.objects import State

from flows.definition import lifeboat_flow
from flows.problems import found_problems
from lifeboat.wal.scrub import ScrubReport
from tasks.staleness import skip_if_stale
from tasks.verify_wal import verify_wal
from tasks.wal_archived import skip_without_archive


@lifeboat_flow("wal-verify")
def wal_verify(everything: bool = False) -> ScrubReport | State[Any]:
    """Read archived WAL: checksums, page headers and records of what was never read, or too long ago.

    Damage ends the run as Failed with the name FoundProblems, as long as it is there. `lifeboat wal status` and
    restores know the findings; what is left over when the time is up, the next run reads.

    Args:
        everything: Read the whole archive, without a limit of time.
    """
    if skipped := skip_if_stale() or skip_without_archive():
        return skipped
    report = verify_wal(everything)
    if not report.sound:
        problems = [
            *map(str, report.findings),
            *(f"{gap.first.name} to {gap.last.name} missing" for gap in report.gaps),
        ]
        return found_problems("the WAL archive is damaged", problems)
    return report
