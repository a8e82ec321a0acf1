"""What a restore needs, and how long it would take by what earlier ones took."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.planning import PlannedRestore
from lifeboat.storage.repository import BackupRepository

_MEASURED = 50
_FILES, _RECOVER, _REPLAY, _REPLAYED_BYTES = "restore files", "recover", "replay", "replayed_bytes"


@dataclass(frozen=True)
class RestoreNeeds:
    """What has to be there: space in bytes, the major version of PostgreSQL, extensions and tablespace folders.

    `problems` are what this host lacks of it.
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


def restore_needs(installation: Installation, planned: PlannedRestore) -> RestoreNeeds:
    """What the plan's backup says that a restore needs, and what of it is not here."""
    manifest, problems = planned.manifest, list[str]()
    free = _free_bytes(installation.settings.scratch_dir)
    if free < planned.needed_bytes:
        problems.append(
            f"below {installation.settings.state_dir}, where previews restore to, {planned.needed_bytes - free:,} bytes"
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
        disk_bytes=planned.needed_bytes,
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
    replays = [each for each in measured if each.replayed_bytes and each.phases.get(_REPLAY)]
    if replays:
        rate = sum(each.replayed_bytes for each in replays) / sum(each.phases[_REPLAY] for each in replays)
        phases[_REPLAY] = round(size.wal_bytes / rate, 1)
    elif size.wal_segments:
        missing.append(_REPLAY)
    if not phases:
        return PredictedTime(None, {}, "no restore or drill of this engine was measured yet", tuple(missing))
    basis = f"by {len(measured)} measured restores and drills of this engine"
    return PredictedTime(round(sum(phases.values()), 1), phases, basis, tuple(missing))


@dataclass(frozen=True)
class _Measurement:
    engine: str
    bytes: int
    phases: Mapping[str, float]
    replayed_bytes: int


def _measurements(installation: Installation, repository: BackupRepository) -> Iterator[_Measurement]:
    catalog = installation.catalog
    rows: list[tuple[str | None, Mapping[str, float], Mapping[str, Any]]] = [
        (row.label, row.phases_json, {}) for row in catalog.drills.list_drills(limit=_MEASURED).rows if row.passed
    ]
    rows += [
        (row.label, row.phases_json, row.report_json)
        for row in catalog.restores.list_restores(limit=_MEASURED).rows
        if row.error is None
    ]
    sizes: dict[str, tuple[str, int] | None] = {}
    for label, phases, report in rows:
        if label is None or not phases:
            continue
        if label not in sizes:
            sizes[label] = _chain_size(repository, label)
        found = sizes[label]
        if found is not None:
            yield _Measurement(found[0], found[1], phases, _replayed(report))


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
