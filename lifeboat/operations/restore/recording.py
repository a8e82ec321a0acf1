"""The catalog's row of a restore: as far as the catalog can be reached, and never in the restore's way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from pydantic import TypeAdapter

from lifeboat.catalog.errors import CatalogError
from lifeboat.catalog.values import RestoreRow, RestoreStatus, RestoreTarget
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, account_name
from lifeboat.postgres.owners import owner_lives, owner_record
from lifeboat.recovery.targets import RecoveryTarget

_REPORT = TypeAdapter(RestoreReport)
_PROCESS = "process"
_ENDED = {
    "COMPLETED": RestoreStatus.COMPLETED,
    "FAILED": RestoreStatus.FAILED,
    "CRASHED": RestoreStatus.CRASHED,
    "CANCELLED": RestoreStatus.CANCELLED,
}


@contextmanager
def recorded(
    installation: Installation, order: RestoreOrder, seconds: Mapping[str, float]
) -> Iterator[Callable[[RestoreReport], RestoreReport]]:
    """Record how a restore goes; what it yields records the report, and adds a note where that cannot be done.

    What killed runs have left running in the catalog gets its end first.
    """
    row = _Row(installation, order, datetime.now(UTC))
    if row.write(RestoreStatus.RUNNING, report={_PROCESS: owner_record()}) is None:
        try:
            end_dead_restores(installation, {})
        except CatalogError as error:
            LOG.info("the rows of killed restores are not looked for: %s", error.message)

    def done(report: RestoreReport) -> RestoreReport:
        body: dict[str, Any] = _REPORT.dump_python(report, mode="json")
        fault = row.write(RestoreStatus.COMPLETED, phases=report.phases, report=body, label=report.label)
        if fault is None:
            return report
        return replace(report, notes=[*report.notes, f"the catalog does not know of this restore: {fault}"])

    try:
        yield done
    except BaseException as error:
        status = RestoreStatus.FAILED if isinstance(error, Exception) else RestoreStatus.CANCELLED
        said = error.message if isinstance(error, LifeboatError) else f"{type(error).__name__}: {error}".rstrip(": ")
        row.write(status, phases=dict(seconds), error=said)
        raise


def record_explored(  # noqa: PLR0913 - what predictions go by
    installation: Installation,
    kind: RestoreTarget,
    target: RecoveryTarget,
    label: str,
    started_at: datetime,
    phases: Mapping[str, float],
    replayed_bytes: int,
) -> None:
    """Note in the catalog how long it took to bring a moment back to look at; without a catalog, nothing."""
    try:
        installation.catalog.restores.record(
            uuid4(),
            cluster=installation.settings.platform.cluster,
            target_kind=kind,
            target=str(target),
            status=RestoreStatus.COMPLETED,
            actor=account_name(),
            started_at=started_at,
            completed_at=datetime.now(UTC),
            recovery_target_at=target.at,
            label=label,
            phases=dict(phases),
            report={"replayed_bytes": replayed_bytes},
        )
    except CatalogError as error:
        LOG.info("the catalog does not know how long it took to bring back %s: %s", target, error.message)


def end_dead_restores(
    installation: Installation, flow_run_states: Mapping[UUID, str]
) -> list[tuple[UUID, RestoreStatus]]:
    """Give the catalog's rows of restores that are over their end; returns the ids and what they ended as.

    One is over when its flow run is, by Prefect's state type, or when its process is gone; a process on another host is
    not seen from here. Raises CatalogError.
    """
    store, ended = installation.catalog.restores, []
    for row in store.running(installation.settings.platform.cluster):
        found = _end_of(row, flow_run_states)
        if found is not None and store.record_ended(
            row.id, status=found[0], error=found[1], ended_at=datetime.now(UTC)
        ):
            LOG.warning("the restore %s (%s) has ended as %s: %s", row.id, row.target, *found)
            ended.append((row.id, found[0]))
    return ended


def _end_of(row: RestoreRow, flow_run_states: Mapping[UUID, str]) -> tuple[RestoreStatus, str] | None:
    state = flow_run_states.get(row.flow_run_id) if row.flow_run_id is not None else None
    if state is not None and (status := _ENDED.get(state)) is not None:
        return status, f"its flow run has ended as {state}, and its report is not in the catalog"
    try:
        gone = owner_lives(row.report_json.get(_PROCESS, {})) is False
    except ValueError:
        gone = True  # every restore says which process it is in
    if not gone:
        return None
    return (
        RestoreStatus.CRASHED,
        "its process is gone; the next restore to the same place clears up behind it",
    )


class _Row:
    def __init__(self, installation: Installation, order: RestoreOrder, started_at: datetime) -> None:
        self._installation, self._order, self._started_at = installation, order, started_at

    def write(self, status: RestoreStatus, **values: Any) -> str | None:  # noqa: ANN401 - columns
        """Why it could not be written; None when it was."""
        order = self._order
        try:
            self._installation.catalog.restores.record(
                order.id,
                cluster=self._installation.settings.platform.cluster,
                target_kind=order.to.kind,
                target=f"{order.target} to {order.to}",
                status=status,
                actor=order.actor,
                started_at=self._started_at,
                completed_at=None if status is RestoreStatus.RUNNING else datetime.now(UTC),
                recovery_target_at=order.target.at,
                flow_run_id=order.flow_run_id,
                **values,
            )
        except CatalogError as error:
            LOG.info("the catalog does not know of the restore %s: %s", order.id, error.message)
            return error.message
        return None
