"""Names for what PostgreSQL's tools print when they fail."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lifeboat.commands import CommandFailed
from lifeboat.engines.engine import EngineFailed, IncrementalImpossible, Watch
from lifeboat.errors import LifeboatError, TransientError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import AuthenticationFailed, ConnectionInfo, SourceUnavailable
from lifeboat.storage.destination import DestinationDenied, DestinationFull


class WalRemoved(TransientError):
    """The server recycled WAL that the backup still needed."""


_NAMED: Sequence[tuple[str, type[LifeboatError], str]] = (
    (
        r"No space left on device|Disk quota exceeded",
        DestinationFull,
        "Free space at the destination, or let retention expire backups (`lifeboat retention plan`).",
    ),
    (
        r"password authentication failed|no password supplied|no pg_hba\.conf entry|Peer authentication failed"
        r"|role \".*\" does not exist|must be (?:superuser|replication)|permission denied to start WAL sender"
        r"|permission denied to create replication slot",
        AuthenticationFailed,
        "Correct `platform.dsn`, or give its role the rights that `lifeboat doctor` lists.",
    ),
    (
        r"WAL summar|summarize_wal|system identifier in backup manifest|manifest system identifier"
        r"|required by (?:the )?(?:manifest|incremental)|not (?:a child|in this server's history)"
        r"|timeline \d+ found in manifest"
        r"|incremental backups? (?:cannot|can't)|manifest was generated|must be restarted.*incremental",
        IncrementalImpossible,
        "A full backup is taken instead; the next incremental one builds on it.",
    ),
    (
        r"requested WAL segment .* has already been removed",
        WalRemoved,
        "Raise `wal_keep_size` or `max_slot_wal_keep_size` on the server: it recycles WAL during the backup.",
    ),
    (
        r"could not connect|Connection refused|connection to server .* failed|server closed the connection"
        r"|the database system is (?:starting up|shutting down|in recovery)|terminating connection|SSL SYSCALL error",
        SourceUnavailable,
        "See whether the server runs and answers: `lifeboat doctor` checks the connection.",
    ),
    (
        r"could not (?:create|open|write).*Permission denied",
        DestinationDenied,
        "The account that PostgreSQL's tools run as needs the right to write there.",
    ),
)
# A full disk of these is not the destination's.
_FULL_HINTS = {
    "tar": "Free space where it is restored to, or restore to another volume.",
    "pg_combinebackup": "Free space where it is restored to, or restore to another volume.",
    "pg_restore": "Free space where the server that it is restored to has its data.",
}


def run_tool(  # noqa: PLR0913
    tools: PgTools,
    program: str,
    words: Sequence[str | Path],
    *,
    doing: str,
    watch: Watch,
    timeout_seconds: float,
    connection: ConnectionInfo | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run one of PostgreSQL's programs under a watch; raises what `name_failure` makes of its failure.

    `on_line` takes the lines of its stderr instead of the watch.
    """
    try:
        tools.run(
            program,
            words,
            connection=connection,
            timeout_seconds=timeout_seconds,
            on_stderr_line=on_line or watch.on_line,
            on_tick=watch.on_tick,
        )
    except CommandFailed as failure:
        raise name_failure(failure, doing) from failure


def name_failure(failure: CommandFailed, doing: str) -> LifeboatError:
    """The error that stands for a tool's failure, with what the tool said; EngineFailed where it is not a known one."""
    said = " / ".join(line for line in failure.stderr_tail.splitlines()[-6:] if "kB (" not in line)
    for pattern, kind, hint in _NAMED:
        if re.search(pattern, failure.stderr_tail):
            where = _FULL_HINTS.get(Path(failure.program).name) if kind is DestinationFull else None
            return kind(f"{doing} failed: {said}", hint=where or hint)
    how = f"{failure.program} was killed by signal {-failure.returncode}" if failure.returncode < 0 else failure.program
    return EngineFailed(
        f"{doing} failed: {how}: {said or f'exit code {failure.returncode}, no message'}",
        hint="The tool's whole output is in the flow run's log.",
    )
