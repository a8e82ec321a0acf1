"""The verdict on archiving, pure: what the server says, what the archive holds, what was seen before.

An alert means that restores are lost, or will be if nothing is done; a warning wants a look. Sources of the figures:
pg_stat_archiver, pg_ls_archive_statusdir(), pg_replication_slots (PostgreSQL's monitoring chapter).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lifeboat.settings.wal import WalHealthSettings
from lifeboat.wal.coverage import SegmentRange
from lifeboat.wal.names import ArchiveNameKind, InvalidWalName, Segment, parse_archive_name

_STALLED_ARCHIVER = (
    "archive_command hangs, or the archive is too slow for this much WAL: look at the server's log and at the"
    " destination."
)
_STALLED_RECEIVER = (
    "The receiver hangs, or the archive does not take what it has: look at the log of `lifeboat wal receive` and at the"
    " destination."
)


@dataclass(frozen=True)
class ArchiverState:
    """pg_stat_archiver; times by the server's clock."""

    archived_count: int
    last_archived_wal: str | None
    last_archived_at: datetime | None
    failed_count: int
    last_failed_wal: str | None
    last_failed_at: datetime | None


@dataclass(frozen=True)
class Slot:
    """One row of pg_replication_slots, without temporary ones; sizes in bytes, None where the server gives none."""

    name: str
    kind: str
    active: bool
    wal_status: str | None
    safe_bytes: int | None
    retained_bytes: int | None


@dataclass(frozen=True)
class ServerWal:
    """What the server says of its WAL at `now` of its own clock.

    `waiting` counts the finished segments that are not archived, since `oldest_waiting_at`; None where the role may
    not know. `lag_bytes` lie between the archive's end and the position that is written now. `receives_only`: there is
    no archive_command, a receiver has to bring WAL to the archive. The timeouts are the server's settings.
    """

    now: datetime
    in_recovery: bool
    archives: bool
    segment_size_bytes: int
    current_lsn: int | None
    timeline: int | None
    archiver: ArchiverState
    waiting: int | None = None
    oldest_waiting_at: datetime | None = None
    slots: tuple[Slot, ...] = ()
    slots_are_limited: bool = False
    heartbeat_age_seconds: float | None = None
    heartbeat_error: str | None = None
    receives_only: bool = False
    started_at: datetime | None = None
    archive_timeout_seconds: int = 0
    checkpoint_timeout_seconds: int = 0

    @property
    def lag_bytes(self) -> int | None:
        """WAL written but not archived; None on another timeline or before the first archived segment."""
        if self.archiver.last_archived_wal is None or self.current_lsn is None:
            return None
        try:
            done = parse_archive_name(self.archiver.last_archived_wal, self.segment_size_bytes)
        except InvalidWalName:
            return None
        if done.segment is None or done.timeline != self.timeline:
            return None
        return max(0, self.current_lsn - done.segment.end_lsn)

    @property
    def segments_behind(self) -> int | None:
        """How many finished segments wait: as counted by the server, else by positions."""
        if self.waiting is not None:
            return self.waiting
        return None if self.lag_bytes is None else self.lag_bytes // self.segment_size_bytes


class Severity(StrEnum):
    """How bad it is."""

    ALERT = "alert"
    WARNING = "warning"


@dataclass(frozen=True)
class HealthFinding:
    """One reason for a verdict: what is wrong, and what to do. `code` is for programs and stays the same."""

    severity: Severity
    code: str
    what: str
    advice: str

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Hole:
    """WAL that cannot be replayed: missing or damaged segments of one timeline."""

    first: Segment
    last: Segment
    damaged: bool

    @property
    def key(self) -> str:
        """What identifies it from one look to the next."""
        return f"{self.first.name}-{self.last.name}{'-damaged' if self.damaged else ''}"

    def __str__(self) -> str:
        which = self.first.name if self.first == self.last else f"{self.first.name} to {self.last.name}"
        return f"{which} {'damaged' if self.damaged else 'missing'} in the archive"


@dataclass(frozen=True)
class BackupStart:
    """Where a full backup began, in WAL: replay from it needs nothing that lies before."""

    label: str
    timeline: int
    start_lsn: int


@dataclass(frozen=True)
class Verdict:
    """What is wrong, the worst first, and why a full backup is wanted, if it is."""

    findings: tuple[HealthFinding, ...]
    full_wanted: str | None = None

    @property
    def alerts(self) -> tuple[HealthFinding, ...]:
        """The findings that must not be overlooked."""
        return tuple(item for item in self.findings if item.severity is Severity.ALERT)

    @property
    def healthy(self) -> bool:
        """Whether there is no alert; there may be warnings."""
        return not self.alerts


def holes_of(gaps: Iterable[SegmentRange], damaged: Collection[Segment]) -> tuple[Hole, ...]:
    """The gaps of a listing and its damaged segments (also those that a scrub found), in order."""
    found = [Hole(segment, segment, damaged=True) for segment in damaged]
    for gap in gaps:
        # A damaged segment counts as missing in a listing: what is left of the gap around it is missing indeed.
        begin = gap.first
        for segment in sorted(each for each in damaged if gap.contains(each)):
            if segment > begin:
                found.append(Hole(begin, segment.following(-1), damaged=False))
            begin = segment.following()
        if begin <= gap.last:
            found.append(Hole(begin, gap.last, damaged=False))
    return tuple(sorted(found, key=lambda hole: hole.first))


def due_gaps(
    ranges: Collection[SegmentRange], gaps: Iterable[SegmentRange], server: ServerWal | None
) -> list[SegmentRange]:
    """What is missing in a listing that was taken after the server was asked, as far as that knows.

    The server was told that all up to its last archived segment are there; later ones may still be on their way, in
    any order (pgBackRest pushes several at once, a receiver beside archive_command is ahead of it).
    """
    done = _last_archived(server) if server is not None else None
    if done is None:
        return list(gaps)
    found = []
    for gap in gaps:
        if gap.timeline != done.timeline or gap.last <= done:
            found.append(gap)
        elif gap.first <= done:
            found.append(SegmentRange(gap.first, done))
    ends = [item.last for item in ranges if item.timeline == done.timeline]
    if not ends:
        found.append(SegmentRange(done, done))
    elif max(ends) < done:
        found.append(SegmentRange(max(ends).following(), done))
    return found


def _last_archived(server: ServerWal) -> Segment | None:
    try:
        parsed = parse_archive_name(server.archiver.last_archived_wal or "", server.segment_size_bytes)
    except InvalidWalName:
        return None
    return parsed.segment if parsed.kind is ArchiveNameKind.SEGMENT else None


def open_holes(holes: Iterable[Hole], fulls: Collection[BackupStart]) -> tuple[Hole, ...]:
    """The holes behind which no sound full backup begins: nothing after them can be restored to the second."""
    return tuple(
        hole
        for hole in holes
        if not any((full.timeline, full.start_lsn) >= (hole.last.timeline, hole.last.end_lsn) for full in fulls)
    )


def judge(
    server: ServerWal | None,
    holes: Sequence[Hole],
    fulls: Collection[BackupStart] | None,
    known: Collection[str],
    limits: WalHealthSettings,
) -> Verdict:
    """The verdict; without `server` (it cannot be asked) on the archive alone. `known` are holes told of before.

    `fulls` None: it is not known which full backups there are, so none is asked for.
    """
    unbridged = open_holes(holes, fulls) if fulls is not None else ()
    found = [*_judge_holes(holes, unbridged, alarming_holes(holes, fulls, known))]
    if server is not None:
        found += [*_judge_archiver(server, limits), *_judge_slots(server, limits)]
    found.sort(key=lambda item: item.severity is not Severity.ALERT)
    wanted = f"{unbridged[0]}, and no full backup begins behind it" if unbridged else None
    return Verdict(tuple(found), wanted)


def alarming_holes(
    holes: Sequence[Hole], fulls: Collection[BackupStart] | None, known: Collection[str]
) -> tuple[Hole, ...]:
    """The holes that are alerts: what no full backup bridges, and what nobody was told of yet; as for `judge`."""
    unbridged = open_holes(holes, fulls) if fulls is not None else ()
    # Whoever looks each five minutes must hear of every loss once, and of an old one no more than that.
    return tuple(hole for hole in holes if hole in unbridged or hole.key not in known)


def _judge_holes(
    holes: Sequence[Hole], unbridged: Collection[Hole], alarming: Collection[Hole]
) -> Iterator[HealthFinding]:
    for hole in holes:
        advice = "Restores cannot cross it; full backups behind it are not concerned."
        if hole in unbridged:
            advice = "Take a new full backup: nothing behind this can be restored to the second before there is one."
        severity = Severity.ALERT if hole in alarming else Severity.WARNING
        yield HealthFinding(severity, "damaged" if hole.damaged else "gap", f"WAL: {hole}", advice)


def _judge_archiver(server: ServerWal, limits: WalHealthSettings) -> Iterator[HealthFinding]:
    archiver = server.archiver
    if server.in_recovery:
        yield HealthFinding(
            Severity.WARNING,
            "standby",
            "the server is a standby: how its primary archives cannot be seen here",
            "Give the primary's address in `platform.dsn`.",
        )
        return
    if not server.archives:
        yield HealthFinding(
            Severity.ALERT,
            "archiving-off",
            "the server does not archive: archive_mode is off, or there is no archive_command",
            "`lifeboat wal install` prints the statements that turn it on; then take a full backup.",
        )
        return
    failed_at, archived_at = archiver.last_failed_at, archiver.last_archived_at
    fails = failed_at is not None and (archived_at is None or failed_at > archived_at)
    if fails and failed_at is not None:
        since = f"the last success was {ago(server.now, archived_at)}" if archived_at else "none has succeeded yet"
        yield HealthFinding(
            Severity.ALERT,
            "archiver-fails",
            f"archiving {archiver.last_failed_wal} failed {ago(server.now, failed_at)}, "
            f"{archiver.failed_count} failures in all; {since}",
            "The server's log has the reason; until it is mended, WAL piles up on the server's disk.",
        )
    else:
        yield from _judge_lag(server, limits)


def _judge_lag(server: ServerWal, limits: WalHealthSettings) -> Iterator[HealthFinding]:
    behind, oldest = server.segments_behind, server.oldest_waiting_at
    limit = timedelta(seconds=limits.max_lag_seconds)
    if oldest is None and behind:
        # The role may not list the waiting ones: they cannot have waited longer than since the last success.
        oldest = server.archiver.last_archived_at
    if behind and oldest is not None and server.now - oldest > limit:
        yield HealthFinding(
            Severity.ALERT,
            "archiver-stalled",
            f"{behind} finished segments wait to be archived, the oldest one was finished {ago(server.now, oldest)}",
            _STALLED_RECEIVER if server.receives_only else _STALLED_ARCHIVER,
        )
    elif behind is not None and behind > limits.max_lag_segments:
        yield HealthFinding(
            Severity.WARNING,
            "archiver-behind",
            f"{behind} finished segments wait to be archived",
            "Compare the destination's speed with the server's WAL.",
        )


def _judge_slots(server: ServerWal, limits: WalHealthSettings) -> Iterator[HealthFinding]:
    for slot in server.slots:
        name = f"replication slot {slot.name}"
        if slot.wal_status == "lost":
            yield HealthFinding(
                Severity.ALERT,
                "slot-lost",
                f"{name} has lost WAL that its consumer needs",
                f"Drop it (SELECT pg_drop_replication_slot('{slot.name}')) and make its consumer anew.",
            )
        elif slot.wal_status == "unreserved" or _is_nearly_lost(slot, limits):
            left = "" if slot.safe_bytes is None else f": {max(0, slot.safe_bytes):,} bytes are left"
            yield HealthFinding(
                Severity.ALERT,
                "slot-unreserved",
                f"{name} is about to lose WAL that its consumer needs{left}",
                "Start its consumer, or raise max_slot_wal_keep_size.",
            )
        elif not slot.active:
            yield _inactive(server, slot, limits)
        elif (slot.retained_bytes or 0) > limits.max_slot_retained_bytes:
            yield HealthFinding(
                Severity.ALERT,
                "slot-behind",
                f"{name} is active, but its consumer is far behind: it keeps {slot.retained_bytes:,} bytes of WAL on"
                " the server",
                f"Look at its consumer{_unlimited(server)}.",
            )


def _is_nearly_lost(slot: Slot, limits: WalHealthSettings) -> bool:
    return slot.safe_bytes is not None and slot.safe_bytes < limits.min_slot_safe_bytes


def _inactive(server: ServerWal, slot: Slot, limits: WalHealthSettings) -> HealthFinding:
    retained = slot.retained_bytes or 0
    much = retained > limits.max_slot_retained_bytes
    return HealthFinding(
        Severity.ALERT if much else Severity.WARNING,
        "slot-inactive",
        f"replication slot {slot.name} is inactive and keeps {retained:,} bytes of WAL on the server",
        f"Start its consumer, or drop it (SELECT pg_drop_replication_slot('{slot.name}')){_unlimited(server)}.",
    )


def _unlimited(server: ServerWal) -> str:
    return "" if server.slots_are_limited else " and set max_slot_wal_keep_size, else it can fill the server's disk"


def ago(now: datetime, moment: datetime) -> str:
    """How long before `now` that was, in seconds as a text."""
    return f"{max(0.0, (now - moment).total_seconds()):.0f} s ago"
