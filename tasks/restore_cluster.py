"""Restores to a moment, for the flow `restore`."""

from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from lifeboat.catalog.values import RestoreTarget
from lifeboat.engines.engine import Progress
from lifeboat.errors import SettingsError
from lifeboat.operations.installation import LOG
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.operations.restore.run import run_restore
from tasks.figures import size_text
from tasks.progress import ProgressBar
from tasks.publishing import announce, publish_markdown
from tasks.restore_report import restore_report
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work

# Where on the bar a phase begins, in percent.
_PHASES = {"plan": 0.0, "space check": 4.0, "restore files": 5.0, "replay": 50.0, "read all": 85.0}


def refuse_in_place(place: RestoreTo) -> None:
    """Raise SettingsError for a restore in place: whoever reaches Prefect could start one."""
    if place.kind is RestoreTarget.IN_PLACE:
        raise SettingsError(
            "a flow does not restore in place", hint="On the server's host: lifeboat restore run --to in-place."
        )


class _Shown:
    def __init__(self, bar: ProgressBar) -> None:
        self._bar, self._phase, self._percent = bar, "", 0.0

    def phase(self, name: str) -> None:
        self._phase, self._percent = name, max(self._percent, _PHASES.get(name, 0.0))
        self._bar.show(self._percent, name)

    def amount(self, progress: Progress) -> None:
        self._bar.show(self._percent, f"{self._phase}, {size_text(progress.done_bytes)}")


@task(name="restore-cluster", task_run_name="restore", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def restore_cluster(order: RestoreOrder) -> RestoreReport:
    """Restore and prove it; a target that cannot be had fails the run and names the nearest that can."""
    refuse_in_place(order.to)
    with at_work() as work, ProgressBar("restore-progress", f"restore to {order.target}") as bar:
        shown = _Shown(bar)
        order = replace(order, actor="flow", flow_run_id=work.flow_run_id)
        report = run_restore(work.installation, order, shown.phase, shown.amount)
    LOG.info("restored %s to %s: %s", report.label, report.place, report.landing)
    publish_markdown("restore", restore_report(report), f"{report.target}: {report.place}")
    facts = {"target": report.target, "place": report.place, "label": report.label, "landing": report.landing}
    announce("restore.completed", kind="restore", identifier=report.id, name=report.place, payload=facts)
    return report
