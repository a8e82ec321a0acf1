"""Which ends of the index are worth an alarm: not WAL that is on its way, nor a timeline that was left behind."""

from dataclasses import dataclass, replace
from functools import cached_property

from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import LOG, Installation
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.activity.index import TimelineReport
from lifeboat.wal.coverage import ArchiveListing, SegmentRange
from lifeboat.wal.health import ServerWal, due_gaps
from lifeboat.wal.names import Segment


def is_due(server: ServerWal | None, listing: ArchiveListing, missing: Segment) -> bool:
    """Whether a missing segment should be in a listing that was taken after the server was asked."""
    if server is not None and server.receives_only:
        server = None  # what its archiver last told is of another time; a receiver pushes in order
    due = due_gaps(listing.ranges, [SegmentRange(missing, missing)], server)
    return any(gap.contains(missing) for gap in due)


@dataclass(frozen=True)
class StopJudge:
    """Judges where timelines stopped."""

    installation: Installation

    def judged(self, report: TimelineReport) -> TimelineReport:
        """The report without its `stopped` where that is no reason for a full backup."""
        if report.stopped is not None and self._has_later_full(report.timeline):
            # The timelines that are restored to from now on do not lead through here.
            LOG.info("timeline %d is behind us, and indexed in part: %s", report.timeline, report.stopped)
            return replace(report, stopped=None)
        return report

    def _has_later_full(self, timeline: int) -> bool:
        return any(each > timeline for each in self._full_timelines)

    @cached_property
    def _full_timelines(self) -> frozenset[int]:
        """Timelines on which sound full backups began, anywhere; what cannot be read has none."""
        found: set[int] = set()
        for name in self.installation.settings.destinations:
            try:
                stored = self.installation.repository(name).sound_backups(tell_fault)
            except LifeboatError as error:
                LOG.warning("the backups of %s cannot be listed: %s", name, error.message)
                continue
            found |= {
                item.manifest.timeline
                for item in stored
                if item.manifest.type is BackupType.FULL
                and item.manifest.timeline is not None
                and not item.state.suspect
            }
        return frozenset(found)
