"""What a restore aims at, as people write it and as PostgreSQL's recovery settings say it.

Settings: https://www.postgresql.org/docs/current/runtime-config-wal.html, "Recovery Target".
"""

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from lifeboat.errors import SettingsError
from lifeboat.wal.names import InvalidLsn, format_lsn, parse_lsn

_AGO = re.compile(r"(?P<count>\d{1,6})\s*(?P<unit>s|m|min|h|d)(?:\s+ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
# PostgreSQL cuts a name at MAXFNAMELEN - 1 = 63 bytes, and a longer one would never be met.
_NAME_BYTES_MAX = 63
_XID_MAX = (1 << 64) - 1


class TargetKind(StrEnum):
    """What a recovery target is given by."""

    LATEST = "latest"
    TIME = "time"
    NAME = "name"
    LSN = "lsn"
    XID = "xid"
    BACKUP = "backup"


class TargetUnreadable(SettingsError):
    """A recovery target is not a time, position, name, transaction or backup that can be understood."""


@dataclass(frozen=True)
class RecoveryTarget:
    """Where replay stops; `timeline` None means the cluster's current one.

    With `inclusive`, what bears exactly this time, position or transaction is replayed still. A time is replayed up to
    the last commit at or before it.
    """

    kind: TargetKind = TargetKind.LATEST
    at: datetime | None = None
    name: str | None = None
    lsn: int | None = None
    xid: int | None = None
    backup: str | None = None
    timeline: int | None = None
    inclusive: bool = True

    def __post_init__(self) -> None:
        given = {
            TargetKind.TIME: self.at,
            TargetKind.NAME: self.name,
            TargetKind.LSN: self.lsn,
            TargetKind.XID: self.xid,
            TargetKind.BACKUP: self.backup,
        }
        present = {kind for kind, value in given.items() if value is not None}
        if present != ({self.kind} - {TargetKind.LATEST}):
            raise ValueError(f"a target by {self.kind} with values for {sorted(present)}")
        if self.at is not None and self.at.tzinfo is None:
            raise ValueError("a recovery target's time needs a time zone")

    def __str__(self) -> str:
        where = "" if self.timeline is None else f" on timeline {self.timeline}"
        bound = "" if self.inclusive or self.kind in {TargetKind.LATEST, TargetKind.BACKUP} else "just before "
        return f"{bound}{self._what()}{where}"

    def _what(self) -> str:
        if self.at is not None:
            return time_text(self.at)
        if self.lsn is not None:
            return f"position {format_lsn(self.lsn)}"
        if self.name is not None:
            return f"restore point {self.name!r}"
        if self.xid is not None:
            return f"transaction {self.xid}"
        if self.backup is None:
            return "the latest moment"
        return "the end of the latest backup" if self.backup == "latest" else f"the end of backup {self.backup}"

    def settings(self, timeline: int | None) -> dict[str, str]:
        """PostgreSQL's recovery settings for it, on the timeline that the plan has chosen."""
        found: dict[str, str] = {} if timeline is None else {"recovery_target_timeline": str(timeline)}
        if self.kind is TargetKind.LATEST:
            return found
        if self.kind is TargetKind.BACKUP:
            return found | {"recovery_target": "immediate"}
        if self.kind is TargetKind.NAME:
            return found | {"recovery_target_name": str(self.name)}
        found["recovery_target_inclusive"] = "on" if self.inclusive else "off"
        if self.at is not None:
            return found | {"recovery_target_time": self.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")}
        if self.lsn is not None:
            return found | {"recovery_target_lsn": format_lsn(self.lsn)}
        return found | {"recovery_target_xid": str(self.xid)}


def time_text(at: datetime) -> str:
    """A moment as our messages show it: UTC, microseconds only where there are some."""
    moment = at.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}" + (f".{moment.microsecond:06d}" if moment.microsecond else "") + " UTC"


def parse_time(text: str, now: datetime) -> datetime:
    """A moment from `2026-11-22 14:03:22`, with an offset or in UTC, `now`, or `15m ago`; raises TargetUnreadable."""
    wanted = text.strip()
    if wanted.lower() == "now":
        return now
    if ago := _AGO.fullmatch(wanted.lower()):
        return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
    try:
        at = datetime.fromisoformat(wanted.removesuffix(" UTC"))
    except ValueError:
        raise TargetUnreadable(
            f"{text!r} is not a time",
            hint="Write it like `2026-11-22 14:03:22+01:00`; without an offset it is UTC. Or like `15m ago`.",
        ) from None
    try:
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise TargetUnreadable(f"{text!r} is no time that PostgreSQL knows") from None


def parse_target(  # noqa: PLR0913 - one option each; at most one target is given
    *,
    now: datetime,
    at: str | None = None,
    name: str | None = None,
    lsn: str | None = None,
    xid: str | None = None,
    backup: str | None = None,
    timeline: int | None = None,
    inclusive: bool = True,
) -> RecoveryTarget:
    """A target from the words of a command line; raises TargetUnreadable for more than one, or a wrong one."""
    given = {
        word: value
        for word, value in {"--at": at, "--name": name, "--lsn": lsn, "--xid": xid, "--backup": backup}.items()
        if value is not None
    }
    if len(given) > 1:
        raise TargetUnreadable(f"{' and '.join(given)} exclude each other", hint="Give one recovery target.")
    if timeline is not None and timeline < 1:
        raise TargetUnreadable(f"{timeline} is not a timeline", hint="Timelines count from 1.")
    target = _target(now, at, name, lsn, xid, backup)
    if not inclusive and target.kind in {TargetKind.LATEST, TargetKind.BACKUP, TargetKind.NAME}:
        raise TargetUnreadable(
            f"--before says nothing of {target}", hint="It goes with --at, --lsn or --xid: leave it out, or name one."
        )
    return replace(target, timeline=timeline, inclusive=inclusive)


def _target(  # noqa: PLR0913 - see parse_target
    now: datetime, at: str | None, name: str | None, lsn: str | None, xid: str | None, backup: str | None
) -> RecoveryTarget:
    if at is not None:
        return RecoveryTarget(TargetKind.TIME, at=parse_time(at, now))
    if name is not None:
        return RecoveryTarget(TargetKind.NAME, name=_name(name))
    if lsn is not None:
        return RecoveryTarget(TargetKind.LSN, lsn=_lsn(lsn))
    if xid is not None:
        return RecoveryTarget(TargetKind.XID, xid=_xid(xid))
    if backup is not None:
        return RecoveryTarget(TargetKind.BACKUP, backup=backup)
    return RecoveryTarget()


def _name(name: str) -> str:
    if not name or len(name.encode()) > _NAME_BYTES_MAX or "\0" in name:
        raise TargetUnreadable(
            f"{name!r} cannot be a restore point's name", hint=f"Names have 1 to {_NAME_BYTES_MAX} bytes."
        )
    return name


def _lsn(text: str) -> int:
    try:
        return parse_lsn(text)
    except InvalidLsn as error:
        raise TargetUnreadable(error.message, hint=error.hint) from None


def _xid(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 3 <= int(text) <= _XID_MAX:
        raise TargetUnreadable(f"{text!r} is not a transaction", hint="Give its number, such as 748.")
    return int(text)
