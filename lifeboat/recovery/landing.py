"""Where a recovery stopped, read from the server's own log, and whether that is where it was meant to.

Messages: xlogrecovery.c and xlog.c of PostgreSQL 15 to 18, with lc_messages = C and timezone = UTC, as isolated
clusters are started.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from lifeboat.recovery.planning import RestorePlan
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.wal.names import parse_lsn

_TIME = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?)\+00"
_STOP_AT_COMMIT = re.compile(
    rf"recovery stopping (?P<side>before|after) (?P<end>commit|abort) of transaction (?P<xid>\d+), time {_TIME}"
)
_STOP_AT_NAME = re.compile(rf'recovery stopping at restore point "(?P<name>.*)", time {_TIME}')
_STOP_AT_LSN = re.compile(
    r'recovery stopping (?P<side>before|after) WAL location \(LSN\) "(?P<lsn>[0-9A-F]+/[0-9A-F]+)"'
)
_STOP_AT_ONCE = "recovery stopping after reaching consistency"
_REDO_DONE = re.compile(r"redo done at (?P<lsn>[0-9A-F]+/[0-9A-F]+)")
_LAST = re.compile(rf"last completed transaction was at log time {_TIME}")
_TIMELINE = re.compile(r"selected new timeline ID: (?P<timeline>\d+)")
_FATAL = re.compile(r"(?:FATAL|PANIC):\s+(?P<text>.*)")


class StopKind(StrEnum):
    """At what replay stopped."""

    COMMIT = "commit"
    NAME = "restore point"
    LSN = "position"
    CONSISTENCY = "consistency"
    END_OF_WAL = "end of WAL"


@dataclass(frozen=True)
class Landing:
    """What the log says: the last transaction that was replayed, and the first end of one that was not.

    `last_commit_at` is None when no transaction ended between the backup and the stop. `next_commit_at` and `next_xid`
    are there only where replay stopped before a transaction's end.
    """

    stop: StopKind
    last_commit_at: datetime | None = None
    next_commit_at: datetime | None = None
    next_xid: int | None = None
    redo_done_lsn: int | None = None
    new_timeline: int | None = None
    name: str | None = None
    fatal: str | None = None

    def __str__(self) -> str:
        last = f"last commit {time_text(self.last_commit_at)}" if self.last_commit_at else "no commit replayed"
        if self.next_commit_at is not None:
            return f"{last}; the next one, {time_text(self.next_commit_at)} by transaction {self.next_xid}, was not"
        return f"{last}; stopped at {self.stop}"


def read_landing(log: str) -> Landing:
    """What one start of a server in recovery has logged; `log` begins with that start."""
    stop, next_at, next_xid, name = StopKind.END_OF_WAL, None, None, None
    last_at = _moment(found[-1]) if (found := list(_LAST.finditer(log))) else None
    if at_commit := _STOP_AT_COMMIT.search(log):
        stop = StopKind.COMMIT
        if at_commit["side"] == "before":
            next_at, next_xid = _moment(at_commit), int(at_commit["xid"])
    elif at_name := _STOP_AT_NAME.search(log):
        stop, name = StopKind.NAME, at_name["name"]
    elif _STOP_AT_LSN.search(log):
        stop = StopKind.LSN
    elif _STOP_AT_ONCE in log:
        stop = StopKind.CONSISTENCY
    done, timeline, fatal = _REDO_DONE.search(log), _TIMELINE.search(log), _FATAL.search(log)
    return Landing(
        stop,
        last_commit_at=last_at,
        next_commit_at=next_at,
        next_xid=next_xid,
        redo_done_lsn=parse_lsn(done["lsn"]) if done else None,
        new_timeline=int(timeline["timeline"]) if timeline else None,
        name=name,
        fatal=fatal["text"].strip() if fatal else None,
    )


def landing_faults(plan: RestorePlan, landing: Landing) -> list[str]:
    """Why a landing is not the plan's target; nothing when it is proven."""
    if landing.fatal is not None:
        return [f"the server ended recovery with: {landing.fatal}"]
    target = plan.target
    if target.kind is TargetKind.TIME and target.at is not None:
        return _time_faults(plan, landing, target.at)
    if target.kind is TargetKind.LATEST and not _is_late_enough(plan, landing):
        return [f"replay ended before {time_text(plan.not_before)}, the last commit in the archive"]
    return [] if _is_exact(target, landing) else [f"replay stopped at {landing.stop} ({landing}), not at {target}"]


def _is_exact(target: RecoveryTarget, landing: Landing) -> bool:
    if target.kind is TargetKind.NAME:
        return landing.name == target.name
    if target.kind is TargetKind.LSN:
        return landing.stop is StopKind.LSN
    if target.kind is TargetKind.XID:
        return landing.stop is StopKind.COMMIT and (target.inclusive or landing.next_xid == target.xid)
    return True


def _time_faults(plan: RestorePlan, landing: Landing, at: datetime) -> list[str]:
    faults = []
    last, following = landing.last_commit_at, landing.next_commit_at
    if last is not None and (last > at or (last == at and not plan.target.inclusive)):
        faults.append(f"a commit of {time_text(last)} was replayed, after {time_text(at)}")
    if "recovery_target_time" in plan.settings:
        if landing.stop is not StopKind.COMMIT or following is None:
            faults.append(f"replay stopped at {landing.stop}, not before a commit after {time_text(at)}")
        elif following < at or (following == at and plan.target.inclusive):
            faults.append(f"the commit of {time_text(following)} was not replayed, which is not after {time_text(at)}")
    elif plan.at_end and (last or plan.backup.stopped_at) < at:
        faults.append(f"the last commit replayed is of {time_text(last or plan.backup.stopped_at)}")
    return faults


def _is_late_enough(plan: RestorePlan, landing: Landing) -> bool:
    # Where the backup's end is all there is, no commit needs to have been replayed.
    return plan.not_before <= max(landing.last_commit_at or plan.backup.stopped_at, plan.backup.stopped_at)


def _moment(found: re.Match[str]) -> datetime:
    return datetime.fromisoformat(found["at"]).replace(tzinfo=UTC)
