"""Holds a restore drill."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.results import DrillReport
from tasks.drill_progress import DrillProgress
from tasks.engines import DrillTarget
from tasks.progress import ProgressBar
from tasks.reporting import report_drill
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="restore-drill", task_run_name="drill of {backup}", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def hold_restore_drill(backup: str, destination: str | None, target: DrillTarget) -> DrillReport:
    """Restore a backup elsewhere, compare it, and report; a drill that fails is a result, not an error."""
    with at_work() as work:
        order = DrillOrder(backup=backup, destination=destination, target=target, flow_run_id=work.flow_run_id)
        with ProgressBar("restore-drill-progress", f"drill of {backup}") as bar:
            shown = DrillProgress(bar)
            report = run_drill(work.installation, order, shown.phase, shown.amount)
        report_drill(report)
    return report
