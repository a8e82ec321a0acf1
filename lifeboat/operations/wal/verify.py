"""Scrubs the platform's WAL archive and keeps what it finds where every reader of the archive looks."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from lifeboat.errors import LifeboatError, TransientError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.operations.wal.health import gaps_that_matter
from lifeboat.operations.wal.one_run import alone
from lifeboat.operations.wal.status import read_scrub_record, read_wal_status, scrub_place
from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.scrub import ScrubOrder, ScrubProgress, ScrubReport, scrub
from lifeboat.wal.scrub_record import ScrubRecord, ScrubRecordDamaged, store_record


class ScrubRunning(TransientError):
    """Another `wal verify` of this installation runs."""


def verify_wal(
    installation: Installation,
    *,
    everything: bool = False,
    max_seconds: float | None = None,
    on_progress: Callable[[ScrubProgress], None] | None = None,
) -> ScrubReport:
    """Read the archived WAL that was never read or too long ago (`everything`: all of it), and keep the findings.

    The report's gaps are those that `wal health` alerts for. A killed run's work is not lost: the next one goes on.
    Raises SettingsError where WAL is not archived, ScrubRunning, ArchiveUnreadable, and the destination's errors.
    """
    archive, settings = wal_archive(installation), installation.settings
    destination, key = scrub_place(installation)
    busy = ScrubRunning("another `wal verify` is reading the archive", hint="Wait for its end.")
    with alone(settings.state_dir / "wal-verify", installation.run_as, busy) as folder:
        order = ScrubOrder(
            scratch_dir=folder,
            tools=_tools(installation),
            max_age=timedelta(0) if everything else timedelta(days=settings.wal.verify_max_age_days),
            max_seconds=max_seconds,
        )
        report = scrub(
            archive,
            _known(installation),
            order,
            save=lambda record: store_record(destination, key, record),
            on_progress=on_progress,
        )
    for finding in report.new_findings:
        LOG.error("archived WAL is damaged: %s", finding)
    for note in report.notes:
        LOG.warning("%s", note)
    # The listing alone calls a gap what is on its way, and what a full backup has bridged long since.
    return replace(report, gaps=gaps_that_matter(installation, read_wal_status(installation)))


def _known(installation: Installation) -> ScrubRecord | None:
    try:
        return read_scrub_record(installation)
    except ScrubRecordDamaged as error:
        LOG.warning("the whole archive is read anew: %s", error.message)
        return None


def _tools(installation: Installation) -> PgTools | None:
    try:
        tools = installation.tools
        return tools if tools.has("pg_waldump") else None
    except LifeboatError as error:
        LOG.warning("records cannot be checked without PostgreSQL's programs: %s", error.message)
        return None
