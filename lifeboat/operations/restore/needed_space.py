"""How much space a restored cluster takes while it is made: its files unpacked, and the WAL that stays in pg_wal."""

import re
from dataclasses import dataclass
from posixpath import split

from lifeboat.engines.basebackup_restore import PG_MANIFEST
from lifeboat.errors import LifeboatError
from lifeboat.operations.restore.planning import PlannedRestore
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.wal.names import parse_lsn

_FILE = re.compile(rb'"(?:Encoded-)?Path": "([^"]*)", "Size": (\d+)')
_INCREMENTAL = "INCREMENTAL."
# The restoring server runs with PostgreSQL's max_wal_size of 1 GB, and may exceed it by the original's distance between
# two checkpoints: what is older is removed.
_MOST_KEPT_WAL_BYTES = 2 << 30
_NEW_SEGMENTS = 2  # the new timeline's first segment, and one that is made ready ahead
# Where PostgreSQL's list of the files cannot be read: gzip packs well-filled pages to a third or a quarter.
_UNPACKED_FACTOR = 4


def needed_bytes(planned: PlannedRestore, landing_lsn: int | None = None) -> int:
    """Up to about how much space a restore takes, in bytes, to be told; WAL counts to the landing, or else to its end.

    Files, what replay adds to them, and the WAL in pg_wal.
    """
    files, replayed = _files(planned), _replayed_bytes(planned, landing_lsn)
    # All of the WAL may be new rows. Years of it are not, so the files are taken to double at most.
    grown = min(replayed, max(files.most, _MOST_KEPT_WAL_BYTES))
    new = _NEW_SEGMENTS * planned.material.wal.segment_size_bytes
    kept = min(replayed, _MOST_KEPT_WAL_BYTES)
    return files.most + max(files.beside, grown + kept + new) + _own_wal_bytes(planned)


def certain_bytes(planned: PlannedRestore) -> int:
    """Without how much space, in bytes, a restore need not begin: the files, and the WAL that the backup brings along.

    Nothing counts that replay may or may not add to the files, or leave in pg_wal.
    """
    files, is_among_them = _files(planned), bool(planned.manifest.details.get("cluster_bytes"))
    brought = _own_wal_bytes(planned) if planned.plan.backup.own_wal and not is_among_them else 0
    return files.least + files.beside + brought


@dataclass(frozen=True)
class _Files:
    """Bytes: of the cluster's files at least and at most, and of what is beside them until a chain is combined."""

    least: int
    most: int
    beside: int = 0


def _files(planned: PlannedRestore) -> _Files:
    if cluster_bytes := int(planned.manifest.details.get("cluster_bytes") or 0):
        return _Files(cluster_bytes, cluster_bytes)
    try:
        lists = [_sizes(planned.material.repository, each) for each in planned.chain]
    except (LifeboatError, OSError):
        # It is damaged or gone: restoring says so, and what it would have needed is a guess.
        stored = sum(each.size_bytes for each in planned.chain)
        return _Files(stored, stored * _UNPACKED_FACTOR)
    unpacked = sum(sum(sizes.values()) for sizes in lists)
    # Combined, it has no block that none of them has.
    return _Files(_combined_bytes(lists), unpacked, unpacked if len(lists) > 1 else 0)


def _combined_bytes(lists: list[dict[str, int]]) -> int:
    """The files that pg_combinebackup makes: one of which a backup has changed blocks only stays about as long."""
    combined: dict[str, int] = {}
    for sizes in lists:
        before, combined = combined, {}
        for path, size_bytes in sizes.items():
            folder, name = split(path)
            whole = f"{folder}/{name.removeprefix(_INCREMENTAL)}"
            kept = before.get(whole, 0) if name.startswith(_INCREMENTAL) else 0
            combined[whole] = max(size_bytes, kept)
    return sum(combined.values())


def _replayed_bytes(planned: PlannedRestore, landing_lsn: int | None = None) -> int:
    """The WAL behind the backup's own, up to the landing where that is known, in whole segments."""
    plan, size_bytes = planned.plan, planned.material.wal.segment_size_bytes
    if plan.settings.get("recovery_target") == "immediate":
        return 0
    position = plan.settings.get("recovery_target_lsn")
    if landing_lsn is None and position is not None:
        landing_lsn = parse_lsn(position)
    last = plan.span.last_number
    if landing_lsn is not None:
        last = min(last, landing_lsn // size_bytes)
    return max(0, last - _stop_number(planned)) * size_bytes


def _own_wal_bytes(planned: PlannedRestore) -> int:
    """The WAL that a backup is consistent with: it brings it along, or has it replayed."""
    size_bytes = planned.material.wal.segment_size_bytes
    return (_stop_number(planned) - planned.plan.backup.start_lsn // size_bytes + 1) * size_bytes


def _stop_number(planned: PlannedRestore) -> int:
    return max(planned.plan.backup.stop_lsn - 1, 0) // planned.material.wal.segment_size_bytes


def _sizes(repository: BackupRepository, manifest: Manifest) -> dict[str, int]:
    """By path, from PostgreSQL's own list of a backup's files, which is stored as it is."""
    with repository.open_object(manifest.label, PG_MANIFEST) as lines:
        found = (_FILE.search(line) for line in lines)
        return {each[1].decode(errors="replace"): int(each[2]) for each in found if each}
