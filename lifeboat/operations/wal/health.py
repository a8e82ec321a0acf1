"""Looks at archiving as a whole, says what is wrong, and asks for a full backup behind a gap."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lifeboat.errors import LifeboatError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.wal.status import WalStatus, ask_server, read_wal_status
from lifeboat.storage.manifest import BackupType
from lifeboat.storage.repository import BackupRepository
from lifeboat.wal.coverage import ArchiveUnreadable, SegmentRange
from lifeboat.wal.health import (
    BackupStart,
    HealthFinding,
    Hole,
    ServerWal,
    Severity,
    Verdict,
    alarming_holes,
    due_gaps,
    holes_of,
    judge,
)
from lifeboat.wal.health_freshness import judge_heartbeat, judge_rpo
from lifeboat.wal.health_memory import HealthMemory, load_memory, store_memory
from lifeboat.wal.names import parse_lsn


@dataclass(frozen=True)
class WalHealthReport:
    """A verdict with the figures behind it; without `status` the archive could not be read, without `server` that.

    `told` is what to remember once somebody was told; None where nothing is to be.
    """

    at: datetime
    status: WalStatus | None
    server: ServerWal | None
    verdict: Verdict
    told: HealthMemory | None = None

    @property
    def healthy(self) -> bool:
        """Whether there is no alert."""
        return self.verdict.healthy


def check_wal_health(installation: Installation) -> WalHealthReport:
    """Judge archiver, archive, slots and heartbeat, and remember what a full backup is wanted for.

    A loss counts as new until `remember_told`: who is interrupted before reporting it reports it again. A server or
    archive that does not answer is a finding, not an error. Raises SettingsError where WAL is not archived.
    """
    now, limits = datetime.now(UTC), installation.settings.wal.health
    try:
        status = read_wal_status(installation)
    except ArchiveUnreadable as error:
        server, why = ask_server(installation)
        own = [HealthFinding(Severity.ALERT, "archive-unreadable", error.message, error.hint or "")]
        own += _about_server(installation, server, why, now, HealthMemory())
        return WalHealthReport(now, None, server, _with(judge(server, (), None, (), limits), own))
    own = []
    memory = _memory(installation, own)
    own += [*_about_server(installation, status.server, status.server_error, now, memory), *_about_record(status)]
    fulls = _fulls(installation, own)
    holes = _holes(status)
    verdict = judge(status.server, holes, fulls, memory.known, limits)
    # Without knowledge of the backups nothing is asked for, and a wish that stands is left alone.
    after = memory
    if fulls is not None:
        after = memory.wishing(verdict.full_wanted, now)
        _remember(installation, memory, after)
        after = after.told([hole.key for hole in holes], now, heartbeat_absent=_awaits_heartbeat(own))
    return WalHealthReport(now, status, status.server, _with(verdict, own), after)


def remember_told(installation: Installation, report: WalHealthReport) -> None:
    """Remember what a report says, once it was reported: known losses that a full backup bridges are warnings then."""
    if report.told is not None:
        _remember(installation, _memory(installation, []), report.told)


def _awaits_heartbeat(findings: list[HealthFinding]) -> bool:
    return any(item.code == "heartbeat-absent" for item in findings)


def _with(verdict: Verdict, more: list[HealthFinding]) -> Verdict:
    findings = sorted((*verdict.findings, *more), key=lambda item: item.severity is not Severity.ALERT)
    return Verdict(tuple(findings), verdict.full_wanted)


def why_full_wanted(installation: Installation, repository: BackupRepository, engine: str) -> str | None:
    """Why the next backup of that engine should be a full one; None once one began after the wish.

    What cannot be read asks for nothing: a backup must not fail over it.
    """
    if not installation.settings.wal.archive:
        return None
    try:
        wish = load_memory(
            installation.destination(installation.settings.wal.destination), installation.settings.platform.cluster
        ).full_wanted
    except LifeboatError as error:
        LOG.warning("whether a full backup is wanted cannot be read: %s", error.message)
        return None
    if wish is None:
        return None
    done = any(
        stored.manifest.engine == engine
        and stored.manifest.type is BackupType.FULL
        and stored.manifest.started_at > wish.since
        and not stored.state.suspect
        for stored in repository.sound_backups(tell_fault)
    )
    return None if done else wish.reason


def gaps_that_matter(installation: Installation, status: WalStatus) -> tuple[SegmentRange, ...]:
    """The missing segments for which there is an alert; not those on their way, nor known ones that a full bridges."""
    ignored = list[HealthFinding]()
    missing = [hole for hole in _holes(status) if not hole.damaged]
    alarming = alarming_holes(missing, _fulls(installation, ignored), _memory(installation, ignored).known)
    return tuple(SegmentRange(hole.first, hole.last) for hole in alarming)


def _holes(status: WalStatus) -> tuple[Hole, ...]:
    return holes_of(due_gaps(status.listing.ranges, status.gaps, status.server), status.damaged)


def _about_server(
    installation: Installation, server: ServerWal | None, why: str | None, now: datetime, memory: HealthMemory
) -> Iterator[HealthFinding]:
    if server is None:
        advice = "Check that the server runs; what it has not archived cannot be told."
        yield HealthFinding(Severity.ALERT, "server-unreachable", why or "no answer", advice)
        return
    wal = installation.settings.wal
    if wal.receive and not any(slot.name == wal.receive_slot and slot.active for slot in server.slots):
        what = f"no receiver is connected to the slot {wal.receive_slot}"
        yield HealthFinding(Severity.ALERT, "receiver-down", what, "Start `lifeboat wal receive`, and look at its log.")
    if wal.archive_timeout_seconds:
        yield from judge_rpo(server, wal.archive_timeout_seconds, wal.health.max_lag_seconds)
    agent = installation.settings.agent
    if server.heartbeat_error is not None:
        if agent.enabled:
            what = f"the heartbeat cannot be read: {server.heartbeat_error}"
            advice = "Grant the role of `platform.dsn` SELECT on lifeboat.heartbeat and USAGE on its schema."
            yield HealthFinding(Severity.WARNING, "heartbeat-unreadable", what, advice)
        return
    absent_since = memory.heartbeat_absent_since
    absent_seconds = (now - absent_since).total_seconds() if absent_since is not None else 0.0
    yield from judge_heartbeat(
        server.heartbeat_age_seconds,
        agent.silence_seconds,
        expected=agent.enabled,
        absent_seconds=absent_seconds,
    )


def _about_record(status: WalStatus) -> Iterator[HealthFinding]:
    if status.record_error is not None:
        advice = "`lifeboat wal verify` begins a new record where this one is damaged."
        yield HealthFinding(Severity.WARNING, "findings-unreadable", status.record_error, advice)
    if status.history_error is not None:
        what = f"nothing can be restored on the current timeline: {status.history_error}"
        advice = "Copy that file from the server's pg_wal into the archive with `lifeboat wal push`."
        yield HealthFinding(Severity.ALERT, "history-missing", what, advice)


def _fulls(installation: Installation, findings: list[HealthFinding]) -> list[BackupStart] | None:
    """Where sound full backups of this cluster begin; None, and a finding, where the backups cannot be listed."""
    try:
        stored = installation.repository().sound_backups(tell_fault)
    except LifeboatError as error:
        findings.append(HealthFinding(Severity.ALERT, "backups-unreadable", error.message, error.hint or ""))
        return None
    return [
        BackupStart(item.manifest.label, item.manifest.timeline, parse_lsn(item.manifest.start_lsn))
        for item in stored
        if item.manifest.type is BackupType.FULL
        and item.manifest.timeline is not None
        and item.manifest.start_lsn is not None
        and not item.state.suspect
    ]


def _memory(installation: Installation, findings: list[HealthFinding]) -> HealthMemory:
    settings = installation.settings
    try:
        return load_memory(installation.destination(settings.wal.destination), settings.platform.cluster)
    except LifeboatError as error:
        findings.append(HealthFinding(Severity.WARNING, "memory-unreadable", error.message, error.hint or ""))
        return HealthMemory()


def _remember(installation: Installation, before: HealthMemory, after: HealthMemory) -> None:
    if after == before:
        return
    settings = installation.settings
    if after.full_wanted is not None and before.full_wanted is None:
        LOG.warning("the next differential or incremental backup will be a full one: %s", after.full_wanted.reason)
    try:
        store_memory(installation.destination(settings.wal.destination), settings.platform.cluster, after)
    except LifeboatError as error:
        LOG.error("the wish for a full backup could not be stored: %s", error.message)
