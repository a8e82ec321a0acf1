"""The cluster as of a moment: isolated, read-only, and gone when nobody needs it any more.

Read-only keeps from mistakes, not from intent: a standby knows no other roles than the original's, and its superuser
may promote it or begin a transaction READ WRITE.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from lifeboat.catalog.values import RestoreTarget
from lifeboat.engines.engine import Progress
from lifeboat.operations.drill.restore_drill import Phases
from lifeboat.operations.installation import Installation
from lifeboat.operations.leases import lease
from lifeboat.operations.restore.planning import PlannedRestore, plan_for, read_material
from lifeboat.operations.restore.recording import record_explored
from lifeboat.operations.restore.recovered_cluster import (
    Recovered,
    Site,
    recovered,
    refuse_other_version,
    require_room,
)
from lifeboat.postgres.connections import connect
from lifeboat.postgres.scratch import remove_abandoned, scratch_cluster
from lifeboat.recovery.targets import RecoveryTarget, TargetKind


@dataclass(frozen=True)
class Explored:
    """A running read-only server as of a moment, and how long each phase took until it was there, in seconds."""

    found: Recovered
    planned: PlannedRestore
    phases: dict[str, float]


@contextmanager
def explored(  # noqa: PLR0913 - of when, what for, from where, and who is told
    installation: Installation,
    target: RecoveryTarget,
    *,
    kind: RestoreTarget = RestoreTarget.EXPLORE,
    destination: str | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> Iterator[Explored]:
    """Restore to a target in a scratch cluster and keep it there, paused or read-only, while the context lasts.

    What a killed run has left is removed first. The catalog notes it as `kind`. Raises TargetRefused,
    NoRoomForRestore, RecoveryFailed, LandingRefuted, and what engines and archives raise.
    """
    started_at, phases = datetime.now(UTC), Phases(on_progress, on_amount, doing="explore")
    with phases("plan"):
        needs_wal = target.kind is not TargetKind.BACKUP
        material = read_material(installation, destination, needs_wal=needs_wal)
        planned = plan_for(installation, material, target, phases.amount)
        refuse_other_version(installation, planned)
    parent = installation.settings.scratch_dir
    with phases("space check"):
        remove_abandoned(parent)
        require_room(planned, parent)
    with (
        lease(installation, material.repository, [manifest.label for manifest in planned.chain]),
        scratch_cluster(installation.tools, parent, purpose="explore") as scratch,
    ):
        site = Site(
            scratch.data_dir,
            scratch.directory,
            scratch.socket_dir,
            pause=True,
            # Where replay has no target to pause at, the server ends recovery: sessions are read-only all the same.
            settings={"default_transaction_read_only": True},
        )
        with recovered(installation, planned, site, phases) as found:
            replayed = planned.replayed_bytes(_replayed_lsn(found))
            label = planned.manifest.label
            record_explored(installation, kind, target, label, started_at, phases.seconds, replayed)
            yield Explored(found, planned, phases.seconds)


def _replayed_lsn(found: Recovered) -> int | None:
    with closing(connect(found.connection, application_name="lifeboat explore", autocommit=True)) as session:
        row = session.execute("SELECT (pg_catalog.pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint").fetchone()
    return int(row[0]) if row is not None and row[0] is not None else None
