"""Exports the platform's configuration."""

from prefect import task
from prefect.cache_policies import INPUTS, RUN_ID

from lifeboat.operations import export_configuration as operation
from lifeboat.operations.results import BackupTaken
from tasks.reporting import report_backup
from tasks.retrying import TRANSIENT_ONLY
from tasks.work import at_work


@task(name="export-configuration", persist_result=True, cache_policy=INPUTS + RUN_ID, **TRANSIENT_ONLY)
def export_configuration(destination: str | None) -> BackupTaken:
    """Write a configuration archive that belongs to the flow run's set, and report it."""
    with at_work() as work:
        taken = operation.export_configuration(
            work.installation, set_id=work.flow_run_id, flow_run_id=work.flow_run_id, destination=destination
        )
        report_backup(work.installation, taken)
    return taken
