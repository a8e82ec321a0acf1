"""What a restore needs, and how long it would take by what earlier ones took."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lifeboat.catalog.values import RestoreStatus, RestoreTarget
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.needed_space import certain_bytes, needed_bytes
from lifeboat.operations.restore.planning import PlannedRestore
from lifeboat.storage.repository import BackupRepository

_MEASURED = 50
# A shorter replay took as long as its server took to start, and says nothing of a long one.
_SHORT_REPLAY_SEGMENTS = 4
# Restores of dumps say nothing of a cluster's.
_OF_CLUSTERS = frozenset(RestoreTarget) - {RestoreTarget.DATABASE}
_FILES, _RECOVER, _REPLAY, _REPLAYED_BYTES = "restore files", "recover", "replay", "replayed_bytes"


@dataclass(frozen=True)
class RestoreNeeds:
    """What has to be there: space in bytes, the major version of PostgreSQL, extensions and tablespace folders.

    `disk_bytes` is the most that a restore takes; `problems` are what this host lacks for certain.
    """

    disk_bytes: int
    scratch_free_bytes: int
    postgresql: str | None
    extensions: dict[str, str] = field(default_factory=dict)
    tablespaces: dict[str, str] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictedTime:
    """Seconds by phase, from measured rates; `not_measured` names the phases that are missing, `basis` the evidence."""

    seconds: float | None
    phases: dict[str, float]
    basis: str
    not_measured: tuple[str, ...] = ()


@dataclass(frozen=True)
class RestoreSize:
    """What a restore reads, in bytes: the backups of the chain, and archived WAL as it is stored and as it is."""

    backups_bytes: int
    wal_segments: int
    wal_bytes: int
    wal_stored_bytes: int


def restore_size(planned: PlannedRestore, landing_lsn: int | None) -> RestoreSize:
    """How much a restore reads; up to the landing where that is known, else up to the end of the archive."""
    span, wal, listing = planned.plan.span, planned.material.wal, planned.material.listing
    size_bytes = wal.segment_size_bytes
    last = span.last_number
    if landing_lsn is not None:
        last = min(last, landing_lsn // size_bytes)
    names = {span.path.segment(number, size_bytes).name for number in range(span.first_number, last + 1)}
    stored = sum(file.stored_bytes for file in listing.files if file.parsed.name in names) if listing else 0
    backups = sum(manifest.size_bytes for manifest in planned.chain)
    return RestoreSize(backups, len(names), len(names) * size_bytes, stored)


def restore_needs(installation: Installation, planned: PlannedRestore, landing_lsn: int | None) -> RestoreNeeds:
    """What the plan's backup says that a restore needs, and what of it is not here."""
    manifest, problems = planned.manifest, list[str]()
    # As restores have it: what they would not refuse is no problem.
    needed, free = certain_bytes(planned), _free_bytes(installation.settings.scratch_dir)
    if free < needed:
        problems.append(
            f"below {installation.settings.state_dir}, where previews restore to, {needed - free:,} bytes"
            " too few are free"
        )
    version = manifest.pg_version
    try:
        ours = installation.tools.major
        if version is not None and version.partition(".")[0] != str(ours):
            problems.append(f"the backup is of PostgreSQL {version}, the programs here are of {ours}")
    except LifeboatError as error:
        problems.append(f"PostgreSQL's programs are not here: {error.message}")
    spaces = manifest.details.get("tablespaces")
    return RestoreNeeds(
        disk_bytes=needed_bytes(planned, landing_lsn),
        scratch_free_bytes=free,
        postgresql=version,
        extensions=dict(manifest.fingerprint.extensions) if manifest.fingerprint else {},
        tablespaces={str(oid): str(place) for oid, place in spaces.items()} if isinstance(spaces, Mapping) else {},
        tools=dict(manifest.tools),
        problems=tuple(problems),
    )


def predict_time(installation: Installation, planned: PlannedRestore, size: RestoreSize) -> PredictedTime:
    """How long the restore would take; raises CatalogError when what was measured cannot be asked for."""
    measured = [
        each
        for each in _measurements(installation, planned.material.repository)
        if each.engine == planned.plan.backup.engine
    ]
    return time_by(measured, size)


@dataclass(frozen=True)
class Measurement:
    """What one restore or drill took: of which engine, how much of backups and WAL in bytes, seconds by phase."""

    engine: str
    bytes: int
    phases: Mapping[str, float]
    replayed_bytes: int


def time_by(measured: Sequence[Measurement], size: RestoreSize) -> PredictedTime:
    """How long a restore of that size would take by measurements of its engine."""
    phases: dict[str, float] = {}
    missing: list[str] = []
    files = [each for each in measured if each.bytes and each.phases.get(_FILES)]
    if files:
        rate = sum(each.bytes for each in files) / sum(each.phases[_FILES] for each in files)
        phases[_FILES] = round(size.backups_bytes / rate, 1)
    else:
        missing.append(_FILES)
    starts = [each.phases[_RECOVER] for each in measured if _RECOVER in each.phases]
    if starts:
        phases[_RECOVER] = round(median(starts), 1)
    seconds_per_byte = _replay_seconds_per_byte(measured, size, phases.get(_RECOVER, 0.0))
    if seconds_per_byte:
        phases[_REPLAY] = round(size.wal_bytes * seconds_per_byte, 1)
    elif size.wal_segments:
        missing.append(_REPLAY)
    if not phases:
        return PredictedTime(None, {}, "no restore or drill of this engine was measured yet", tuple(missing))
    basis = f"by {len(measured)} measured restores and drills of this engine"
    return PredictedTime(round(sum(phases.values()), 1), phases, basis, tuple(missing))


def _replay_seconds_per_byte(measured: Sequence[Measurement], size: RestoreSize, start_seconds: float) -> float:
    """0 where nothing was measured that tells it. Their server starts within it: drills call that "recover"."""
    short_bytes = _SHORT_REPLAY_SEGMENTS * size.wal_bytes // max(size.wal_segments, 1)
    replays = [each for each in measured if each.replayed_bytes > short_bytes and each.phases.get(_REPLAY)]
    seconds = sum(max(0.0, each.phases[_REPLAY] - start_seconds) for each in replays)
    return seconds / sum(each.replayed_bytes for each in replays) if replays else 0.0


def _measurements(installation: Installation, repository: BackupRepository) -> Iterator[Measurement]:
    catalog = installation.catalog
    rows: list[tuple[str | None, Mapping[str, float], Mapping[str, Any]]] = [
        (row.label, row.phases_json, {}) for row in catalog.drills.list_drills(limit=_MEASURED).rows if row.passed
    ]
    rows += [
        (row.label, row.phases_json, row.report_json)
        for row in catalog.restores.list_restores(
            cluster=installation.settings.platform.cluster,
            kinds=_OF_CLUSTERS,
            status=RestoreStatus.COMPLETED,
            limit=_MEASURED,
        ).rows
    ]
    sizes: dict[str, tuple[str, int] | None] = {}
    for label, phases, report in rows:
        if label is None or not phases:
            continue
        if label not in sizes:
            sizes[label] = _chain_size(repository, label)
        found = sizes[label]
        if found is not None:
            yield Measurement(found[0], found[1], phases, _replayed(report))


def _replayed(report: Mapping[str, Any]) -> int:
    return int(report.get(_REPLAYED_BYTES) or 0)


def _chain_size(repository: BackupRepository, label: str) -> tuple[str, int] | None:
    """Engine and size of a backup with all that it builds on; None for one that has gone."""
    try:
        chain = repository.chain(label)
    except LifeboatError:
        return None
    return chain[-1].engine, sum(manifest.size_bytes for manifest in chain)


def _free_bytes(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
