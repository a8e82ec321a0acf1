"""What a finished restore tells: where it landed, and what an administrator does next."""

import shlex
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.preparation import PreparedRestore
from lifeboat.operations.restore.recovered_cluster import Recovered
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport
from lifeboat.operations.restore.server_settings import OwnSettings
from lifeboat.operations.restore.starting import as_account, pg_ctl_start, start_command
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.settings.own_command import own_command

_FIRST_PORT, _LAST_PORT = 5433, 5532
_SOCKET_PATH_BYTES_MAX = 107


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
        target=str(planned.plan.target),  # it names the backup that `latest` is
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
        replayed_bytes=planned.replayed_bytes(landing.redo_done_lsn),
        next_steps=_next_steps(installation, order, prepared, own, found),
    )


def _next_steps(
    installation: Installation,
    order: RestoreOrder,
    prepared: PreparedRestore,
    own: OwnSettings,
    found: Recovered,
) -> list[str]:
    data_dir, steps = prepared.target, list[str]()
    if prepared.old is None:
        steps += _start_beside(installation, data_dir, found.connection)
        steps += [
            "Only when it takes over from the original, and that is stopped for good, turn on what is off now, "
            f"and restart it: {' '.join(own.undo)}"
        ]
    else:
        is_ours = installation.settings.platform.embedded
        how = ", unless `lifeboat up` runs, which does it by itself" if is_ours else " as you always do, or"
        steps.append(f"Start it{how}: {start_command(installation, data_dir)}")
    if prepared.old is not None and prepared.old.has_data and not order.discard_old:
        steps.append(f"The old data are in {prepared.old.kept_as}: remove them when you no longer need them")
    back_up = own_command(installation.settings_file, "backup", "run", "--type", "full")
    steps.append(f"Then take a full backup: {back_up}")
    if order.discard_old:
        steps += _left_over(data_dir, found.cluster.log_path)
    if prepared.old is not None:
        reconcile = own_command(installation.settings_file, "catalog", "reconcile")
        steps.append(f"If the catalog was in this cluster, bring it up to date: {reconcile}")
    return steps


def _left_over(data_dir: Path, log: Path) -> Iterator[str]:
    """What restores over old data leave beside them, and when that may go."""
    if left := sorted(map(str, data_dir.parent.glob(f"{data_dir.name}.wal-before-restore-*"))):
        yield (
            "When that backup is taken, and nothing that was committed behind the target is needed any more, remove "
            f"the last WAL of the old server: {', '.join(left)}"
        )
    yield f"When the restored server runs, what this restore has logged may go: it is at the end of {log}"


def _start_beside(installation: Installation, data_dir: Path, connection: ConnectionInfo) -> list[str]:
    port = _free_port()
    # Its own settings may name the original's socket folder, and need not listen anywhere else.
    fits = len(f"{data_dir}/.s.PGSQL.{port}".encode()) <= _SOCKET_PATH_BYTES_MAX
    folder = str(data_dir) if fits else "/tmp"  # noqa: S108 - PostgreSQL's own default
    options = f"-p {port} -k {shlex.quote(folder)}"
    psql = [str(installation.tools.path("psql")), "-h", folder, "-p", str(port)]
    psql += ["-U", connection.user or "postgres", "-d", connection.database or "postgres"]
    start = pg_ctl_start(installation, data_dir, "-o", options)
    return [
        f"Start it beside the original, on a port that is free: {start}",
        f"Look into it: {shlex.join([*as_account(installation), *psql])}",
    ]


def _free_port() -> int:
    for port in range(_FIRST_PORT, _LAST_PORT):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return _LAST_PORT
