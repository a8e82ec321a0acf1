"""What a restore is asked for, and what it returns."""

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

from lifeboat.catalog.values import RestoreTarget
from lifeboat.errors import SettingsError
from lifeboat.recovery.targets import RecoveryTarget


def account_name() -> str:
    """Who runs this process; in a container it may be an account that has a number only."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


@dataclass(frozen=True)
class RestoreTo:
    """Where a restore goes: a new data directory, the platform's own, or a new database of the platform's server."""

    kind: RestoreTarget
    directory: Path | None = None
    database: str | None = None

    def __str__(self) -> str:
        if self.directory is not None and self.kind is RestoreTarget.DIRECTORY:
            return f"new:{self.directory}"
        return f"database:{self.database}" if self.database is not None else str(self.kind)

    @classmethod
    def parse(cls, text: str) -> "RestoreTo":
        """Read `new:DIR`, `in-place` or `database:NAME`; raises SettingsError."""
        kind, colon, rest = text.partition(":")
        if text == RestoreTarget.IN_PLACE:
            return cls(RestoreTarget.IN_PLACE)
        if kind == "new" and colon and rest:
            return cls(RestoreTarget.DIRECTORY, directory=Path(os.path.abspath(Path(rest).expanduser())))
        if kind == "database" and colon and rest and "\0" not in rest:
            return cls(RestoreTarget.DATABASE, database=rest)
        raise SettingsError(
            f"{text!r} is no place to restore to", hint="Write `new:DIRECTORY`, `in-place` or `database:NAME`."
        )


@dataclass(frozen=True)
class RestoreOrder:
    """What to restore and where to. `tablespaces` maps the original's folders to new ones.

    The rest is for a restore in place: `data_dir` where the server cannot be asked for it, and what is done although it
    is dangerous (`patroni`, `standbys`, `slots`).
    """

    target: RecoveryTarget
    to: RestoreTo
    destination: str | None = None
    tablespaces: Mapping[Path, Path] = field(default_factory=dict)
    full_read: bool = True
    data_dir: Path | None = None
    stop_server: bool = False
    discard_old: bool = False
    acknowledged: frozenset[str] = frozenset()
    actor: str = field(default_factory=account_name)
    flow_run_id: UUID | None = None
    id: UUID = field(default_factory=uuid4)

    @property
    def key(self) -> str:
        """The same for orders that make the same: an interrupted one is finished by its like only."""
        spaces = "".join(f", {old} to {new}" for old, new in sorted(self.tablespaces.items()))
        return f"{self.target.kind}: {self.target} to {self.to}{spaces}"


@dataclass(frozen=True)
class RestoreReport:
    """A restore that was proven to be what was asked for.

    `phases` are seconds. `landing` says where replay stopped; `heartbeat_at` is the newest heartbeat recovered.
    `kept` is the old data directory of a restore in place, `replayed_bytes` the WAL replayed, in whole segments.
    `next_steps` are commands and advice, in order.
    """

    id: UUID
    target: str
    to: str
    label: str
    chain: list[str]
    started_at: datetime
    completed_at: datetime
    phases: dict[str, float]
    place: str
    timeline: int | None = None
    new_timeline: int | None = None
    landing: str | None = None
    last_commit_at: datetime | None = None
    next_commit_at: datetime | None = None
    heartbeat_at: datetime | None = None
    kept: str | None = None
    replayed_bytes: int = 0
    notes: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
