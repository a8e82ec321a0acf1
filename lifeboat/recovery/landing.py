"""Where a recovery stopped, read from the server's own log, and whether that is where it was meant to.

Messages: xlogrecovery.c and xlog.c of PostgreSQL 15 to 18, with lc_messages = C and timezone = UTC, as isolated
clusters are started.
"""

import re
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from lifeboat.recovery.planning import RestorePlan
from lifeboat.recovery.targets import TargetKind, time_text
from lifeboat.wal.names import format_lsn, parse_lsn, parse_segment

_TIME = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?)\+00"
_STOP_AT_COMMIT = re.compile(
    rf"recovery stopping (?P<side>before|after) (?P<end>commit|abort) of transaction (?P<xid>\d+), time {_TIME}"
)
_STOP_AT_LSN = re.compile(
    r'recovery stopping (?P<side>before|after) WAL location \(LSN\) "(?P<lsn>[0-9A-F]+/[0-9A-F]+)"'
)
_STOP_AT_ONCE = "recovery stopping after reaching consistency"
_REDO_DONE = re.compile(r"redo done at (?P<lsn>[0-9A-F]+/[0-9A-F]+)")
_LAST = re.compile(rf"last completed transaction was at log time {_TIME}")
_TIMELINE = re.compile(r"selected new timeline ID: (?P<timeline>\d+)")
_RESTORED = re.compile(r'restored log file "(?P<name>[0-9A-F]{24})" from archive')
# With log_line_prefix LOG_LINE_PREFIX. What a client was refused does not end recovery; a PANIC does, whoever has it.
_FATAL = re.compile(
    r"^(?:.*?\[\d+\](?: (?P<who>[a-z][a-z -]*):)? +)?(?P<severity>FATAL|PANIC):\s+(?P<text>.*)", re.MULTILINE
)
_RECOVERING = frozenset({None, "startup", "postmaster", "not initialized"})
LOG_LINE_PREFIX = "%m [%p] %b: "
_NEWEST_SEGMENTS = 16  # it reads a few segments ahead
_XID_MASK = (1 << 32) - 1  # the log leaves out the epoch


class StopKind(StrEnum):
    """At what replay stopped."""

    TRANSACTION = "end of a transaction"
    LSN = "position"
    CONSISTENCY = "consistency"
    END_OF_WAL = "end of WAL"


@dataclass(frozen=True)
class Landing:
    """What the log says: the last end of a transaction that was replayed, and the first one that was not.

    The log tells no commit from a rollback in `last_ended_at`, and where replay stopped behind a position, it leaves
    out a transaction that ended with that record: `last_commit_at` is what WAL says, None where it has no commit, or
    cannot be read (`unread`). `next_ended_at` and `next_xid` are there only where replay stopped before a transaction's
    end, `last_xid` where it stopped behind one, and `rolled_back` says that this one was no commit; `next_commit_at`
    is then for WAL to say. `stop_lsn` is there where replay stopped behind a record by its position: `name` says that
    this is a named restore point, which the log does not know. `segments` are the newest that were got from the
    archive, in order.
    """

    stop: StopKind
    last_ended_at: datetime | None = None
    last_commit_at: datetime | None = None
    unread: bool = False
    next_ended_at: datetime | None = None
    next_commit_at: datetime | None = None
    next_xid: int | None = None
    last_xid: int | None = None
    rolled_back: bool = False
    redo_done_lsn: int | None = None
    stop_lsn: int | None = None
    new_timeline: int | None = None
    name: str | None = None
    fatal: str | None = None
    segments: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.last_commit_at is not None:
            return f"last commit {time_text(self.last_commit_at)}; {self._stop_text('one')}"
        if self.last_ended_at is not None:
            return f"replayed at least up to {time_text(self.last_ended_at)}; {self._stop_text('commit')}"
        return f"{'last commit not known' if self.unread else 'no commit replayed'}; {self._stop_text('commit')}"

    def _stop_text(self, following: str) -> str:
        if self.rolled_back:
            side, xid = ("after", self.last_xid) if self.next_xid is None else ("before", self.next_xid)
            return f"stopped {side} the rollback of transaction {xid}"
        if self.next_commit_at is not None:
            return f"the next {following}, {time_text(self.next_commit_at)} by transaction {self.next_xid}, was not"
        if self.last_xid is not None:
            return f"stopped after the commit of transaction {self.last_xid}"
        return f"stopped at {self.stop if self.name is None else f'restore point {self.name}'}"


def read_landing(log: str) -> Landing:
    """What one start of a server in recovery has logged; `log` begins with that start."""
    stop, next_at, next_xid, last_xid, stop_lsn = StopKind.END_OF_WAL, None, None, None, None
    rolled_back = False
    last_at = _moment(found[-1]) if (found := list(_LAST.finditer(log))) else None
    if at_commit := _STOP_AT_COMMIT.search(log):
        stop, rolled_back = StopKind.TRANSACTION, at_commit["end"] == "abort"
        if at_commit["side"] == "before":
            next_at, next_xid = _moment(at_commit), int(at_commit["xid"])
        else:
            last_xid = int(at_commit["xid"])
    elif at_lsn := _STOP_AT_LSN.search(log):
        stop = StopKind.LSN
        stop_lsn = parse_lsn(at_lsn["lsn"]) if at_lsn["side"] == "after" else None
    elif _STOP_AT_ONCE in log:
        stop = StopKind.CONSISTENCY
    done, timeline = _REDO_DONE.search(log), _TIMELINE.search(log)
    return Landing(
        stop,
        last_ended_at=last_at,
        next_ended_at=next_at,
        next_commit_at=None if rolled_back else next_at,
        next_xid=next_xid,
        last_xid=last_xid,
        rolled_back=rolled_back,
        redo_done_lsn=parse_lsn(done["lsn"]) if done else None,
        stop_lsn=stop_lsn,
        new_timeline=int(timeline["timeline"]) if timeline else None,
        fatal=_fatal(log),
        segments=tuple(deque((found["name"] for found in _RESTORED.finditer(log)), _NEWEST_SEGMENTS)),
    )


def _fatal(log: str) -> str | None:
    for found in _FATAL.finditer(log):
        if found["severity"] == "PANIC" or found["who"] in _RECOVERING:
            return found["text"].strip()
    return None


def landing_faults(plan: RestorePlan, landing: Landing) -> list[str]:
    """Why a landing is not the plan's target; nothing when it is proven."""
    if landing.fatal is not None:
        return [f"the server ended recovery with: {landing.fatal}"]
    if (strange := _segment_behind_switch(plan, landing)) is not None:
        return [f"replay went on along a timeline that was left, into the WAL segment {strange}"]
    target = plan.target
    if plan.last is not None and not _is_behind(plan.last.lsn, landing):
        return [f"replay stopped at {landing.stop} ({landing}), not behind the record {format_lsn(plan.last.lsn)}"]
    if target.kind is TargetKind.TIME and target.at is not None:
        return _time_faults(plan, landing, target.at)
    if target.kind is TargetKind.LATEST and plan.last is None and not _is_late_enough(plan, landing):
        return [f"replay ended before {time_text(plan.not_before)}, the last commit in the archive"]
    return [] if _is_exact(plan, landing) else [f"replay stopped at {landing.stop} ({landing}), not at {target}"]


def _is_behind(lsn: int, landing: Landing) -> bool:
    # A server that is paused at its target has yet to say where redo is done.
    done = landing.redo_done_lsn
    return landing.stop is StopKind.LSN and landing.stop_lsn == lsn and done in {None, lsn}


def _is_exact(plan: RestorePlan, landing: Landing) -> bool:
    target = plan.target
    if target.kind is TargetKind.NAME:
        return plan.point is not None and _is_behind(plan.point.lsn, landing)
    if target.lsn is not None:
        # The first record at or behind a position, which may lie amidst one.
        is_behind = landing.stop_lsn is not None and landing.stop_lsn >= target.lsn
        return landing.stop is StopKind.LSN and is_behind == target.inclusive
    if target.xid is not None:
        at_xid = landing.last_xid if target.inclusive else landing.next_xid
        return landing.stop is StopKind.TRANSACTION and at_xid == target.xid & _XID_MASK
    return "recovery_target" not in plan.settings or landing.stop is StopKind.CONSISTENCY


def _segment_behind_switch(plan: RestorePlan, landing: Landing) -> str | None:
    """The segment that replay ended in, where that is of an older timeline and behind the switch away from it."""
    done, size_bytes = landing.redo_done_lsn, plan.span.missing.size_bytes
    if done is None:
        return None
    read = [parse_segment(name, size_bytes) for name in landing.segments]
    ended_in = next((each for each in reversed(read) if each.number == done // size_bytes), None)
    stretch = plan.span.path.stretch(ended_in.timeline) if ended_in is not None else None
    if ended_in is None or (stretch is not None and (stretch.end_lsn is None or done < stretch.end_lsn)):
        return None
    return ended_in.name


def _time_faults(plan: RestorePlan, landing: Landing, at: datetime) -> list[str]:
    faults = []
    last, following = landing.last_ended_at, landing.next_ended_at
    if last is not None and (last > at or (last == at and not plan.target.inclusive)):
        faults.append(f"a transaction's end of {time_text(last)} was replayed, after {time_text(at)}")
    if "recovery_target_time" in plan.settings:
        if landing.stop is not StopKind.TRANSACTION or following is None:
            faults.append(f"replay stopped at {landing.stop}, not before the end of one after {time_text(at)}")
        elif following < at or (following == at and plan.target.inclusive):
            said = f"the transaction's end of {time_text(following)} was not replayed"
            faults.append(f"{said}, which is not after {time_text(at)}")
    return faults


def _is_late_enough(plan: RestorePlan, landing: Landing) -> bool:
    # Where the backup's end is all there is, no commit needs to have been replayed.
    return plan.not_before <= max(landing.last_ended_at or plan.backup.stopped_at, plan.backup.stopped_at)


def _moment(found: re.Match[str]) -> datetime:
    return datetime.fromisoformat(found["at"]).replace(tzinfo=UTC)
