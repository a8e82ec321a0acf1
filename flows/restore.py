"""Restore: to a moment, into a new cluster or a new database."""

from datetime import UTC, datetime

from flows.definition import lifeboat_flow
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.recovery.targets import parse_target
from tasks.restore_cluster import refuse_in_place, restore_cluster


@lifeboat_flow("restore")
def restore(  # noqa: PLR0913 - each is a field of the form that Prefect shows
    to: str = "",
    at: str | None = None,
    name: str | None = None,
    lsn: str | None = None,
    backup: str | None = None,
    timeline: int | None = None,
    destination: str | None = None,
) -> RestoreReport:
    """Restore to a moment on the worker's host, and prove where it landed.

    Without a target, to the latest moment. A restore in place is for the command line alone: a person who has seen its
    plan has to confirm it.

    Args:
        to: `new:DIRECTORY` or `database:NAME` (from a dump).
        at: The moment: `2026-11-22 14:03:22+01:00`, without a zone in UTC, or `15m ago`.
        name: A named restore point, instead of a moment.
        lsn: A WAL position, instead of a moment.
        backup: The end of a backup, instead of a moment: a label, an id or `latest`.
        timeline: A timeline of the archive; without it, the current one.
        destination: A destination of lifeboat.toml; without it, the default one.
    """
    place = RestoreTo.parse(to)
    refuse_in_place(place)
    target = parse_target(now=datetime.now(UTC), at=at, name=name, lsn=lsn, backup=backup, timeline=timeline)
    return restore_cluster(RestoreOrder(target, place, destination=destination))
