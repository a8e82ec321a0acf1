"""What a restore of a cluster would do: planned and checked, with nothing changed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lifeboat.catalog.values import RestoreTarget
from lifeboat.engines.engine import Progress
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.in_place import OldCluster, find_old_cluster
from lifeboat.operations.restore.place import (
    interrupted_over,
    interrupted_place,
    interrupted_tail,
    made_before,
    refuse_interrupted,
    refuse_taken,
)
from lifeboat.operations.restore.planning import PlannedRestore, plan_for, read_material
from lifeboat.operations.restore.recovered_cluster import delta_engine, refuse_other_version
from lifeboat.operations.restore.refused_places import refuse_owned
from lifeboat.operations.restore.results import RestoreOrder
from lifeboat.operations.restore.tablespaces import TablespaceMap
from lifeboat.recovery.targets import TargetKind


@dataclass(frozen=True)
class PreparedRestore:
    """What a restore would do: its plan, where it goes, and the old cluster that it replaces, if it does."""

    planned: PlannedRestore
    target: Path
    old: OldCluster | None
    tablespaces: TablespaceMap
    notes: tuple[str, ...] = ()


def prepare_restore(
    installation: Installation,
    order: RestoreOrder,
    *,
    tail: Path | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> PreparedRestore:
    """Plan a restore of a cluster and check where it goes; nothing is changed.

    `tail` is a folder of save_tail; without it the one of a killed restore, or a stopped server's own pg_wal, is looked
    into. `on_amount` as for `plan_for`. Raises TargetRefused, TimelineUnknown, PlaceTaken, InPlaceRefused,
    SettingsError, ArchiveUnreadable.
    """
    old = find_old_cluster(installation, order) if order.to.kind is RestoreTarget.IN_PLACE else None
    target = old.data_dir if old is not None else order.to.directory
    if target is None:
        raise ValueError(f"{order.to} is no place for a cluster")
    if old is None:
        refuse_taken(target)
        refuse_owned(installation, target)
    if (interrupted := interrupted_place(target)) is not None:
        refuse_interrupted(interrupted, order.key, discards=order.discard_old, in_place=old is not None)
    if tail is None and old is not None:
        tail = _tail_of(old)
    needs_wal = order.target.kind is not TargetKind.BACKUP
    material = read_material(installation, order.destination, tail=tail, needs_wal=needs_wal)
    planned = plan_for(installation, material, order.target, on_amount)
    refuse_other_version(installation, planned)
    if old is not None:
        old.refuse_other_system(planned.manifest)
    notes = (old.wal_elsewhere,) if old is not None and old.wal_elsewhere is not None else ()
    if order.discard_old:
        delta_engine(installation.engine(planned.manifest.engine))
        return PreparedRestore(planned, target, old, TablespaceMap.as_before(planned.manifest), notes)
    beside = target.with_name(f"{target.name}.tablespaces" + (f"-{old.stamp}" if old is not None else ""))
    spaces = TablespaceMap.of(planned.manifest, order.tablespaces, beside, made_before(target))
    spaces.refuse_within(target)
    # Beside old data, what is not asked for goes where they are, and that may be below `state_dir`.
    for folder in spaces.folders.values() if old is None else order.tablespaces.values():
        refuse_owned(installation, Path(folder))
    return PreparedRestore(planned, target, old, spaces, notes)


def _tail_of(old: OldCluster) -> Path | None:
    saved, own = interrupted_tail(old.data_dir), old.data_dir / "pg_wal"
    # What a killed restore over the old data has left there is WAL of its own.
    is_own = interrupted_over(old.data_dir) is None and old.is_stopped and own.is_dir()
    return saved or (own if is_own else None)
