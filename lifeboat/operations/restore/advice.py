"""What a finished restore tells: where it landed, and what an administrator does next."""

import shlex
from datetime import UTC, datetime

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.preparation import PreparedRestore
from lifeboat.operations.restore.recovered_cluster import Recovered
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport
from lifeboat.operations.restore.server_settings import OwnSettings


def report_of(  # noqa: PLR0913 - what a report is made of
    installation: Installation,
    order: RestoreOrder,
    prepared: PreparedRestore,
    found: Recovered,
    own: OwnSettings,
    started_at: datetime,
) -> RestoreReport:
    """The report of a proven restore, but for its phases and what only the caller knows."""
    planned, landing = prepared.planned, found.landing
    notes = [*planned.plan.notes, *prepared.notes, *own.notes]
    notes += [
        f"tablespace {prepared.tablespaces.originals[oid]} is at {folder} now"
        for oid, folder in prepared.tablespaces.folders.items()
    ]
    return RestoreReport(
        id=order.id,
        target=str(order.target),
        to=str(order.to),
        label=planned.manifest.label,
        chain=[manifest.label for manifest in planned.chain],
        started_at=started_at,
        completed_at=datetime.now(UTC),
        phases={},
        place=str(prepared.target),
        timeline=planned.plan.timeline,
        new_timeline=landing.new_timeline,
        landing=str(landing),
        last_commit_at=landing.last_commit_at,
        next_commit_at=landing.next_commit_at,
        notes=notes,
        next_steps=_next_steps(installation, order, prepared, own),
    )


def _next_steps(
    installation: Installation, order: RestoreOrder, prepared: PreparedRestore, own: OwnSettings
) -> list[str]:
    data_dir = prepared.target
    log = data_dir.with_name(f"{data_dir.name}.log")
    words = [str(installation.tools.path("pg_ctl")), "-D", str(data_dir), "-l", str(log)]
    as_user = ["runuser", "-u", installation.run_as, "--"] if installation.run_as else []
    steps = []
    if prepared.old is None:
        start = shlex.join([*as_user, *words, "-o", "-p PORT", "start"])
        steps.append(f"Start it beside the original, on a port that is free: {start}")
        steps += [
            "Only when it takes over from the original, and that is stopped for good, turn on what is off now, "
            f"and restart it: {' '.join(own.undo)}"
        ]
    elif installation.settings.platform.embedded:
        steps.append("Start it: lifeboat up")
    else:
        steps.append(f"Start it as you always do, or: {shlex.join([*as_user, *words, 'start'])}")
    if prepared.old is not None and prepared.old.has_data and not order.discard_old:
        steps.append(f"The old data are in {prepared.old.kept_as}: remove them when you no longer need them")
    steps.append("Then take a full backup: lifeboat backup run --type full")
    if prepared.old is not None:
        steps.append("If the catalog was in this cluster, bring it up to date: lifeboat catalog reconcile")
    return steps
