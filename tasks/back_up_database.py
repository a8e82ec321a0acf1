"""Takes one backup of the database."""

from contextlib import suppress

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.runtime import flow_run

from lifeboat.engines.engine import Progress
from lifeboat.operations.backup.selection import NoSuchBackup, find_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.results import BackupTaken
from lifeboat.storage.labels import backup_id
from lifeboat.storage.manifest import BackupType
from tasks.engines import physical_engine, type_by_engine
from tasks.figures import size_text
from tasks.progress import ProgressBar
from tasks.reporting import report_backup
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import Work, at_work

_BUILT_ON_OTHERS = {BackupType.DIFFERENTIAL, BackupType.INCREMENTAL}


@task(
    name="back-up-database",
    task_run_name="{kind} backup",
    persist_result=True,
    cache_policy=INPUTS + RUN_ID,
    **TRANSIENT_ONLY,
)
def back_up_database(kind: BackupType, engine: str | None, destination: str | None) -> BackupTaken:
    """Take a backup and report it. A retried flow run that has one already keeps that one."""
    with at_work() as work:
        order = _order(work, kind, engine, destination)
        taken = _found(work.installation, order) or _take(work.installation, order)
        report_backup(work.installation, taken)
    return taken


def _order(work: Work, kind: BackupType, engine: str | None, destination: str | None) -> BackupOrder:
    configured = work.installation.settings.backup.engine
    chosen = physical_engine(engine, configured) if kind in _BUILT_ON_OTHERS else engine or configured
    return BackupOrder(
        type=type_by_engine(kind, chosen),
        engine=chosen,
        destination=destination,
        set_id=work.flow_run_id,
        flow_run_id=work.flow_run_id,
    )


def _take(installation: Installation, order: BackupOrder) -> BackupTaken:
    with ProgressBar("backup-progress", f"{order.type} backup") as bar:

        def show(progress: Progress) -> None:
            if progress.total_bytes:
                amount = f"{size_text(progress.done_bytes)} of {size_text(progress.total_bytes)}"
                bar.show(min(99.0, 100 * progress.done_bytes / progress.total_bytes), amount)

        return take_backup(installation, order, show)


def _found(installation: Installation, order: BackupOrder) -> BackupTaken | None:
    # A run that died between the manifest and its own last word must not take the backup twice.
    if (flow_run.run_count or 0) <= 1:
        return None
    repository = installation.repository(order.destination)
    identifier = backup_id(order.set_id, order.engine or installation.settings.backup.engine, order.type)
    with suppress(NoSuchBackup):
        stored = find_backup(repository, str(identifier))
        LOG.info("an earlier attempt of this flow run has finished %s", stored.manifest.label)
        return BackupTaken.of(stored.manifest, repository, stored.manifest_sha256)
    return None
