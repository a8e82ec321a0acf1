"""From storage alone to a restore plan: manifests, the archive's listing, and the WAL itself where it must be asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lifeboat.engines.engine import Progress
from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.selection import find_backup, tell_fault
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.noted_places import noted_places
from lifeboat.operations.wal.archives import about_copy, wal_archive
from lifeboat.operations.wal.status import damaged_wal
from lifeboat.postgres.scratch import scratch_cluster
from lifeboat.recovery.planning import RestorePlan, TargetRefused, nearest_text, plan_restore
from lifeboat.recovery.spans import ArchivedWal, BackupPoint
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import current_timeline
from lifeboat.recovery.unpacked_wal import SegmentUnusable
from lifeboat.recovery.wal_reader import ArchivedWalReader, NotedPlace
from lifeboat.recovery.wal_tail import ArchiveWithTail
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository, StoredBackup
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.coverage import ArchiveListing, ArchiveUnreadable
from lifeboat.wal.names import (
    DEFAULT_SEGMENT_SIZE_BYTES,
    InvalidWalName,
    Segment,
    TimelineSwitch,
    history_name,
    parse_lsn,
)
from lifeboat.wal.scrub_record import damaged_segments

_PHYSICAL = frozenset({BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL})
_MOST_UNUSABLE_SEGMENTS = 100
_ARCHIVED_WITHIN = timedelta(minutes=10)
# What to do where the newest moments cannot be had yet.
SOON = (
    "Newer WAL is archived when its segment is full, or after the server's archive_timeout: try again then, or have it "
    "archived at once with `lifeboat restore point add NAME`."
)


@dataclass(frozen=True)
class RecoveryMaterial:
    """What storage has to restore from. `archive` and `listing` are None where no WAL is archived or can be read."""

    repository: BackupRepository
    points: tuple[BackupPoint, ...]
    wal: ArchivedWal
    archive: WalArchive | None = None
    listing: ArchiveListing | None = None
    open_ended: frozenset[Segment] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def current_timeline(self) -> int:
        """The timeline that the cluster is on."""
        return current_timeline(self.wal.histories, {*self.wal.timelines, *(point.timeline for point in self.points)})


@dataclass(frozen=True)
class PlannedRestore:
    """A plan with the manifests of its chain, the full backup first, and what was noticed on the way."""

    plan: RestorePlan
    chain: list[Manifest]
    material: RecoveryMaterial

    @property
    def manifest(self) -> Manifest:
        """The backup that replay begins with."""
        return self.chain[-1]

    def replayed_bytes(self, landing_lsn: int | None) -> int:
        """The WAL that is replayed up to a landing, in whole segments; 0 where that is not known."""
        if landing_lsn is None:
            return 0
        size_bytes = self.material.wal.segment_size_bytes
        return max(0, landing_lsn // size_bytes - self.plan.span.first_number + 1) * size_bytes


def read_material(
    installation: Installation, destination: str | None = None, *, tail: Path | None = None, needs_wal: bool = True
) -> RecoveryMaterial:
    """Read what can be restored from; `tail` is a folder of save_tail.

    Raises ArchiveUnreadable (unless not `needs_wal`), SettingsError, DestinationUnavailable.
    """
    repository = installation.repository(destination)
    notes: list[str] = []
    archive: WalArchive | None = wal_archive(installation, destination) if installation.settings.wal.archive else None
    listing: ArchiveListing | None = None
    if archive is not None:
        notes += about_copy(installation, destination)
        archive = ArchiveWithTail(archive, tail) if tail is not None else archive
        try:
            listing = archive.listing()
        except ArchiveUnreadable as error:
            if needs_wal:
                raise
            notes.append(error.message)
            archive = None
    wal = ArchivedWal.of((), (), {}, DEFAULT_SEGMENT_SIZE_BYTES)
    if archive is not None and listing is not None:
        damaged = _damaged(installation, listing, notes)
        wal = ArchivedWal.of(listing.ranges, damaged, _histories(archive, listing, notes), listing.segment_size_bytes)
    stored = repository.sound_backups(tell_fault)
    identifier = listing.system_identifier if listing is not None else None
    points = tuple(_points(stored, identifier, installation.tools.major))
    open_ended = archive.open_ended(listing) if isinstance(archive, ArchiveWithTail) and listing else frozenset()
    return RecoveryMaterial(repository, points, wal, archive, listing, open_ended, tuple(notes))


def plan_for(
    installation: Installation,
    material: RecoveryMaterial,
    target: RecoveryTarget,
    on_amount: Callable[[Progress], None] | None = None,
) -> PlannedRestore:
    """Plan the way to a target, reading what WAL must be read; nothing is changed.

    A segment that turns out to be unusable is left out, and the plan made again. `on_amount` is told how much WAL was
    searched for a name or a transaction whose place is not known. Raises TargetRefused, TimelineUnknown, ManifestError,
    ArchiveUnreadable, CommandTimeout.
    """
    if target.kind is TargetKind.BACKUP and target.backup is not None:
        target = replace(target, backup=_label(material, target.backup))
    wal, notes = material.wal, list(material.notes)
    noted = noted_places(installation, target, material.listing.system_identifier if material.listing else None)
    # What is unpacked there goes with it, or where we are killed with the next drill or restore.
    with scratch_cluster(installation.tools, installation.settings.scratch_dir, purpose="plan") as scratch:
        reader = wal_reader(installation, material, scratch.directory, noted, on_amount)
        for _ in range(_MOST_UNUSABLE_SEGMENTS):
            try:
                plan = plan_restore(target, material.points, wal, replace(reader, wal=wal))
                break
            except TargetRefused as refused:
                if (
                    refused.not_archived
                    and not refused.other_timelines
                    and target.at is not None
                    and _is_recent(target.at)
                ):
                    refused.hint = f"{nearest_text(refused.earlier, refused.later)} {SOON}"
                raise
            except SegmentUnusable as error:
                notes.append(error.message)
                wal = ArchivedWal.of(wal.ranges, {*wal.damaged, error.segment}, wal.histories, wal.segment_size_bytes)
        else:
            raise TargetRefused(f"{target} cannot be planned: {'; '.join(notes[-3:])}")
    chain = material.repository.chain(plan.backup.label)
    return PlannedRestore(
        replace(plan, notes=(*notes, *plan.notes)), chain, replace(material, wal=wal, notes=tuple(notes))
    )


def wal_reader(
    installation: Installation,
    material: RecoveryMaterial,
    folder: Path,
    noted: tuple[NotedPlace, ...] = (),
    on_amount: Callable[[Progress], None] | None = None,
) -> ArchivedWalReader:
    """What answers questions about archived WAL, unpacking it in `folder`; `noted` and `on_amount` are for searches."""
    return ArchivedWalReader(
        material.archive or _NoArchive(),
        material.wal,
        installation.tools,
        folder,
        open_ended=material.open_ended,
        timeout_seconds=installation.settings.drills.timeout_seconds,
        noted=noted,
        on_read=(lambda done, total: on_amount(Progress(done, total))) if on_amount is not None else None,
    )


def _label(material: RecoveryMaterial, wanted: str) -> str:
    usable = [point for point in material.points if point.unusable is None]
    if wanted == "latest" and usable:
        return max(usable, key=lambda point: point.stopped_at).label
    return find_backup(material.repository, wanted).manifest.label


def _is_recent(at: datetime) -> bool:
    now = datetime.now(UTC)
    return now - _ARCHIVED_WITHIN < at <= now


class _NoArchive:
    """Where WAL is not archived, nothing is asked of it: no span has segments."""

    def listing(self) -> ArchiveListing:
        raise ArchiveUnreadable("no WAL is archived")

    def fetch(self, name: str, target: Path) -> None:
        raise ArchiveUnreadable(f"no WAL is archived: {name} cannot be brought to {target}")

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        raise ArchiveUnreadable(f"no WAL is archived: timeline {timeline} has no history")

    def describe(self) -> str:
        return "no WAL archive"


def _damaged(installation: Installation, listing: ArchiveListing, notes: list[str]) -> frozenset[Segment]:
    try:
        return damaged_wal(installation, listing)
    except LifeboatError as error:
        notes.append(f"what `lifeboat wal verify` has found is not known: {error.message}")
        return damaged_segments(listing, None)


def _histories(archive: WalArchive, listing: ArchiveListing, notes: list[str]) -> dict[int, tuple[TimelineSwitch, ...]]:
    found = {}
    for timeline in listing.history_timelines:
        try:
            found[timeline] = archive.history(timeline)
        except (WalFileMissing, WalDamaged, InvalidWalName) as error:
            notes.append(f"{history_name(timeline)} cannot be used: {error.message}")
    return found


def _points(stored: list[StoredBackup], archive_of: str | None, major: int) -> Iterator[BackupPoint]:
    manifests = {item.manifest.label: item.manifest for item in stored}
    suspects = {item.manifest.label for item in stored if item.state.suspect}
    for item in stored:
        manifest = item.manifest
        if manifest.type not in _PHYSICAL or manifest.timeline is None:
            continue
        if manifest.start_lsn is None or manifest.stop_lsn is None:
            continue
        chain, complete = _chain(manifest, manifests)
        yield BackupPoint(
            label=manifest.label,
            engine=manifest.engine,
            timeline=manifest.timeline,
            start_lsn=parse_lsn(manifest.start_lsn),
            stop_lsn=parse_lsn(manifest.stop_lsn),
            stopped_at=manifest.stopped_at,
            chain=tuple(chain),
            own_wal=bool(manifest.details.get("holds_wal", True)),
            unusable=_other_version(manifest, major)
            or _unusable(manifest, chain, suspects, archive_of, complete=complete),
        )


def _chain(manifest: Manifest, manifests: dict[str, Manifest]) -> tuple[list[str], bool]:
    labels = [manifest.label]
    parent = manifest.parent_label
    while parent is not None and parent in manifests:
        labels.insert(0, parent)
        parent = manifests[parent].parent_label
    return labels, parent is None


def _other_version(manifest: Manifest, major: int) -> str | None:
    # Another version's pg_waldump would take all of its WAL for damaged.
    if str(manifest.pg_version).partition(".")[0] == str(major):
        return None
    return f"of PostgreSQL {manifest.pg_version}, and the programs here are of version {major}: set `platform.bin_dir`"


def _unusable(
    manifest: Manifest, chain: list[str], suspects: set[str], archive_of: str | None, *, complete: bool
) -> str | None:
    if not complete:
        return "without a backup that it builds on"
    if bad := [label for label in chain if label in suspects]:
        return "suspect" if bad == [manifest.label] else f"built on {bad[0]}, which is suspect"
    if archive_of is not None and manifest.system_identifier != archive_of:
        return f"of system {manifest.system_identifier}, and the WAL archive of {archive_of}"
    return None
