"""What an interrupted check needs to go on: how far it came, what it counted, and every finding so far."""

import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from lifeboat.assets.findings import Finding
from lifeboat.errors import TransientError
from lifeboat.storage.durable import make_directories, write_durably

_FORMAT_VERSION = 1
_MODE = 0o600


class CheckRunning(TransientError):
    """Another process runs the same check."""


@dataclass(frozen=True)
class CheckState:
    """How far a check came: every record up to the id `position`, in the records' order, is done.

    `journal_bytes` is the length of the findings journal that belongs to this state.
    """

    scope: str
    token: str
    started_at: datetime
    position: str | None = None
    checked: int = 0
    bytes_checked: int = 0
    without_checksum: int = 0
    missing: int = 0
    corrupt: int = 0
    unreadable: int = 0
    elapsed_seconds: float = 0.0
    journal_bytes: int = 0

    @classmethod
    def new(cls, scope: str) -> Self:
        """The state of a check that has not begun; each has its own `token`, and so draws its own sample."""
        return cls(scope=scope, token=uuid.uuid4().hex, started_at=datetime.now(UTC))


class ResumeFile:
    """The state of one check in `path`, and its findings in a journal beside it; locked while it is open.

    The journal is written before the state that counts it, so a kill at any moment loses no finding: what the
    state does not count is cut off, and checked again. Use it as a context manager.
    """

    def __init__(self, path: Path, *, scope: str = "", max_age: timedelta = timedelta(days=1)) -> None:
        """`scope` says what is checked: a state of another scope, or an older one, is not used.

        Raises CheckRunning when another process has it open, and OSError.
        """
        self.path = path
        self.journal_path = path.with_name(f"{path.name}.findings")
        make_directories(path.parent)
        self._journal = os.open(self.journal_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            self._lock()
            found = self._load()
            fresh = datetime.now(UTC) - max_age
            usable = found is not None and found.scope == scope and found.started_at > fresh
            self.state = found if found is not None and usable else CheckState.new(scope)
            os.ftruncate(self._journal, self.state.journal_bytes)
        except BaseException:
            os.close(self._journal)
            raise
        self.resumed = self.state.position is not None

    @property
    def position(self) -> str | None:
        """The id of the last record that is done; records have to come from behind it."""
        return self.state.position

    def findings(self) -> Iterator[Finding]:
        """The findings so far, in the records' order."""
        with self.journal_path.open(encoding="utf-8") as journal:
            for line in journal:
                yield Finding.from_json(json.loads(line))

    def save(self, state: CheckState, findings: Sequence[Finding]) -> CheckState:
        """Make a state and the findings that are new in it durable; returns it with the journal's length."""
        journal_bytes = self.state.journal_bytes
        if findings:
            text = "".join(json.dumps(finding.as_json()) + "\n" for finding in findings).encode()
            written = 0
            while written < len(text):
                written += os.pwrite(self._journal, text[written:], journal_bytes + written)
            os.fsync(self._journal)
            journal_bytes += len(text)
        self.state = replace(state, journal_bytes=journal_bytes)
        values = {"format_version": _FORMAT_VERSION, **asdict(self.state)}
        write_durably(self.path, json.dumps(values, default=datetime.isoformat).encode(), mode=_MODE)
        return self.state

    def discard(self) -> None:
        """Forget the check: it is complete."""
        self.path.unlink(missing_ok=True)
        os.ftruncate(self._journal, 0)

    def close(self) -> None:
        """Let go of the lock; what is saved stays."""
        os.close(self._journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckRunning(
                f"another asset check has {self.path} open", hint="Wait until it ends, or cancel it."
            ) from None

    def _load(self) -> CheckState | None:
        # A state that cannot be read costs a fresh start, never a finding.
        try:
            values: dict[str, Any] = json.loads(self.path.read_bytes())
            if values.pop("format_version") != _FORMAT_VERSION:
                return None
            state = CheckState(**{**values, "started_at": datetime.fromisoformat(values["started_at"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return state if state.journal_bytes <= os.fstat(self._journal).st_size else None
