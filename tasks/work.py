"""What every task starts from: the installation, the flow run's id, and the run's log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from prefect.runtime import flow_run

from lifeboat.operations.installation import Installation
from tasks.run_log import run_log


@dataclass(frozen=True)
class Work:
    """One task at work."""

    installation: Installation
    flow_run_id: UUID


@contextmanager
def at_work() -> Iterator[Work]:
    """Load the settings that $LIFEBOAT_CONFIG names, and log to the run's page; raises SettingsError."""
    identifier = flow_run.id
    with run_log():
        yield Work(Installation.load(), UUID(identifier) if identifier else uuid4())
