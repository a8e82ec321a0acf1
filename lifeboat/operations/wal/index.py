"""Brings the activity index of the platform's WAL up to date."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from lifeboat.errors import LifeboatError, TransientError
from lifeboat.operations.backup.observing import observe_names
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.operations.wal.index_stops import StopJudge, is_due
from lifeboat.operations.wal.one_run import alone
from lifeboat.operations.wal.status import ask_server
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.activity.index import IndexProgress, TimelineReport, build_index

_PHYSICAL = frozenset({BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL})


class IndexRunning(TransientError):
    """Another `wal index` of this installation runs."""


@dataclass(frozen=True)
class WalIndexReport:
    """What a run of the index did; `stopped` says, per timeline that has a gap, why nothing behind it is known."""

    cluster: str
    timelines: tuple[TimelineReport, ...]
    duration_seconds: float
    notes: tuple[str, ...] = ()

    @property
    def stopped(self) -> tuple[str, ...]:
        """Why timelines could not be read to their end."""
        return tuple(report.stopped for report in self.timelines if report.stopped is not None)

    @property
    def read_bytes(self) -> int:
        """How much WAL was read."""
        return sum(report.read_bytes for report in self.timelines)

    @property
    def records(self) -> int:
        """How many records of it were looked at."""
        return sum(report.records for report in self.timelines)

    @property
    def events(self) -> int:
        """How many notable events were found."""
        return sum(report.events for report in self.timelines)

    @property
    def indexed_until(self) -> datetime | None:
        """The latest end of a transaction in the index."""
        return max((report.latest_at for report in self.timelines if report.latest_at is not None), default=None)


def index_wal(
    installation: Installation, *, on_progress: Callable[[IndexProgress], None] | None = None
) -> WalIndexReport:
    """Observe the names of relations, then index what the archive has and the index has not.

    A run that dies loses nothing and counts nothing twice; a gap is in the report, not an error, and only while a full
    backup is wanted behind it. Raises SettingsError where WAL is not archived, IndexRunning, IndexMoved,
    ArchiveUnreadable, CatalogError, WrongDecoder, DecoderKilled, CommandTimeout.
    """
    began, settings = time.monotonic(), installation.settings
    archive, cluster = wal_archive(installation), settings.platform.cluster
    # Asked before the archive is listed: what it was told is archived must be there, later WAL may be on its way.
    server, _ = ask_server(installation)
    notes = observe_names(installation)
    busy = IndexRunning("another `wal index` is reading the archive", hint="Wait for its end.")
    with alone(settings.state_dir / "wal-index", installation.run_as, busy) as folder:
        report = build_index(
            Source(archive, installation.tools, folder),
            installation.catalog,
            cluster,
            on_progress=on_progress,
            bulk_rows=settings.wal.bulk_rows,
            keep_from=_window_start(installation),
            is_due=partial(is_due, server),
        )
    stops = StopJudge(installation)
    timelines = tuple(stops.judged(timeline) for timeline in report.timelines)
    for timeline in timelines:
        if timeline.waits_for is not None:
            LOG.info("the WAL index waits for %s", timeline.waits_for)
        for gap in timeline.gaps:
            LOG.warning("the WAL index goes on behind a gap: %s", gap.describe())
        if timeline.stopped is not None:
            LOG.error("the WAL index stops: %s", timeline.stopped)
    return WalIndexReport(cluster, timelines, round(time.monotonic() - began, 3), tuple(notes))


def _window_start(installation: Installation) -> datetime | None:
    """The start of the oldest physical backup, before which no restore reaches; None when that is not known."""
    starts: list[datetime] = []
    for name in installation.settings.destinations:
        try:
            stored = installation.repository(name).sound_backups(tell_fault)
        except LifeboatError as error:
            LOG.warning("nothing old goes from the WAL index: %s cannot be read: %s", name, error.message)
            return None
        starts += [each.manifest.started_at for each in stored if each.manifest.type in _PHYSICAL]
    return min(starts, default=None)
