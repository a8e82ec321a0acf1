"""Scheduled runs that ask for what the server cannot give: skipped, since a full backup each time helps nobody."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed

from lifeboat.operations.installation import LOG
from lifeboat.operations.unsupported import why_leave_out
from lifeboat.storage.manifest import BackupType
from tasks.engines import physical_engine
from tasks.retrying import TRANSIENT_ONLY
from tasks.staleness import SKIPPED
from tasks.work import at_work


def skip_if_unsupported(kind: BackupType, engine: str | None, destination: str | None) -> State[None] | None:
    """The state `Skipped` for a scheduled run of a type that this server never gives the engine; None for all others.

    Who asks by hand gets a full backup instead, with the reason.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not context.flow_run.auto_scheduled:
        return None
    reason = ask_the_server(kind, engine, destination)
    return Completed(name=SKIPPED, message=reason) if reason is not None else None


@task(name="ask-the-server", task_run_name="does it give {kind} backups?", cache_policy=NO_CACHE, **TRANSIENT_ONLY)
def ask_the_server(kind: BackupType, engine: str | None, destination: str | None) -> str | None:
    """Why a scheduled backup of that type is left out; None where it should be taken."""
    with at_work() as work:
        chosen = physical_engine(engine, work.installation.settings.backup.engine)
        reason = why_leave_out(work.installation, kind, chosen, destination)
        if reason is not None:
            LOG.warning("skipped: %s", reason)
    return reason
