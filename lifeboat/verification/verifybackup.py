"""PostgreSQL's own check of an unpacked base backup, pg_verifybackup, where that program works.

It is a second opinion beside `integrity`: written by others, and it also reads the backup's WAL with pg_waldump.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lifeboat import commands
from lifeboat.postgres.binaries import BinariesMissing, PgTools

PROGRAM = "pg_verifybackup"
_WAL_READER = "pg_waldump"
_COMPLAINT = 1
_MAX_PROBLEMS = 20


@dataclass(frozen=True)
class VerifyResult:
    """What pg_verifybackup complained about, or why it could not run; neither where the backup is sound."""

    problems: tuple[str, ...] = ()
    reason: str | None = None


def verify_directory(
    tools: PgTools, data_dir: Path, *, timeout_seconds: float, on_tick: Callable[[], None] | None = None
) -> VerifyResult:
    """Run pg_verifybackup, as the server's account, on a plain base backup in which no server was started yet.

    A program that is missing or crashes, as the embedded PostgreSQL's does, is a reason and says nothing about the
    backup. Raises CommandTimeout.
    """
    reason = _why_not(tools)
    if reason is not None:
        return VerifyResult(reason=reason)
    # Without its companion it would call the WAL broken that it cannot read.
    words = [] if tools.has(_WAL_READER) else ["--no-parse-wal"]
    try:
        tools.run(PROGRAM, [*words, data_dir], timeout_seconds=timeout_seconds, on_tick=on_tick)
    except commands.CommandFailed as failure:
        if failure.returncode != _COMPLAINT:
            return VerifyResult(reason=_how_it_ended(failure))
        said = [line.removeprefix(f"{PROGRAM}: ").removeprefix("error: ") for line in failure.stderr_tail.splitlines()]
        return VerifyResult(tuple(said[:_MAX_PROBLEMS]) or ("it found a problem and did not name it",))
    return VerifyResult()


def _why_not(tools: PgTools) -> str | None:
    if not tools.has(PROGRAM):
        return f"there is no {PROGRAM} in {tools.bin_dir}"
    path = tools.path(PROGRAM)
    return _why_it_does_not_start(tools, path.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _why_it_does_not_start(tools: PgTools, _mtime_ns: int) -> str | None:
    try:
        tools.version(PROGRAM)
    except commands.CommandFailed as failure:
        return _how_it_ended(failure)
    except BinariesMissing as error:
        return error.message
    return None


def _how_it_ended(failure: commands.CommandFailed) -> str:
    if failure.returncode < 0:
        return f"it crashes (signal {-failure.returncode})"
    return failure.message
