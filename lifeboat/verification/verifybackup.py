"""PostgreSQL's own check of an unpacked base backup, pg_verifybackup, where that program works.

It is a second opinion beside `integrity`: written by others, and it also reads the backup's WAL with pg_waldump.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lifeboat import commands
from lifeboat.errors import TransientError
from lifeboat.postgres.binaries import BinariesMissing, PgTools

PROGRAM = "pg_verifybackup"
_WAL_READER = "pg_waldump"
_COMPLAINT = 1
_MAX_PROBLEMS = 20
_SAID = re.compile(rf"(?P<program>{PROGRAM}|{_WAL_READER}): (?:(?:error|fatal): )?(?P<text>.*)")
# What it says of a backup, as in pg_verifybackup.c and parse_manifest.c of 15 to 18; all else that ends it with 1 is
# its own trouble: it cannot open or read a file, has no memory, finds no pg_waldump of its version.
_OF_THE_BACKUP = re.compile(
    r'checksum mismatch for file "|file ".*" has checksum of length \d|file ".*" should contain \d+ bytes, but read \d'
    r'|".*" has size \d+ on disk but size \d+ in the manifest|".*" is present on disk but not in the manifest'
    r'|".*" is not a (?:regular )?file or directory|.*manifest system identifier is \d+, but control file has \d'
    r"|.*: (?:CRC is incorrect|unexpected control file version)$|unexpected control file size \d"
    r"|could not parse backup manifest: (?!out of memory)|manifest (?:checksum mismatch|has no checksum|ended unexp)"
    r'|duplicate path name in backup manifest: "|invalid checksum for file "|invalid manifest checksum: "'
    r'|unrecognized checksum algorithm: "|unexpected manifest version'
)
_NOT_THERE = re.compile(r'".*" is present in the manifest but not on disk')
_WAL_BROKEN = re.compile(r"WAL parsing failed for timeline \d")
# The same of pg_waldump, as in pg_waldump.c and xlogreader.c: segments that are not there or hold something else.
_OF_THE_WAL = re.compile(
    r"could not find (?:file|a valid record after)|could not locate WAL file|error in WAL record at"
    r"|invalid WAL segment size|WAL segment size must be|could not read (?:from )?file .*: read \d+ of \d"
    r"|first record is after"
)


class FileCheckFailed(TransientError):
    """PostgreSQL's check could not be made to its end: that says nothing about the backup, good or bad."""


@dataclass(frozen=True)
class VerifyResult:
    """What pg_verifybackup complained about, or why it could not run; neither where the backup is sound."""

    problems: tuple[str, ...] = ()
    reason: str | None = None


def verify_directory(tools: PgTools, data_dir: Path, *, timeout_seconds: float) -> VerifyResult:
    """Run pg_verifybackup, as the server's account, on a plain base backup in which no server was started yet.

    A program that is missing or crashes, as the embedded PostgreSQL's does, is a reason and says nothing about the
    backup. Raises FileCheckFailed where it gives up for reasons of its own, and CommandTimeout.
    """
    reason = _why_not(tools)
    if reason is not None:
        return VerifyResult(reason=reason)
    # Without its companion it would call the WAL broken that it cannot read.
    words = [] if tools.has(_WAL_READER) else ["--no-parse-wal"]
    lines: list[str] = []  # all of them: what kept it comes first, then what it missed for that
    try:
        tools.run(PROGRAM, [*words, data_dir], timeout_seconds=timeout_seconds, on_stderr_line=lines.append)
    except commands.CommandFailed as failure:
        if failure.returncode != _COMPLAINT:
            return VerifyResult(reason=_how_it_ended(failure))
        problems = _problems(lines)
        if not problems:
            raise FileCheckFailed(
                f"{PROGRAM} could not check {data_dir}: {' / '.join(lines[:6]) or 'exit code 1, no message'}",
                hint="It names nothing that is wrong with the backup: see what kept it, and hold the drill again.",
            ) from failure
        return VerifyResult(problems)
    return VerifyResult()


def _problems(lines: Sequence[str]) -> tuple[str, ...]:
    """What of the program's output speaks against the backup."""
    said = [(match["program"], match["text"]) for line in lines if (match := _SAID.match(line))]
    own = [text for program, text in said if program == PROGRAM]
    wal = [text for program, text in said if program == _WAL_READER and _OF_THE_WAL.match(text)]
    # A folder that it could not read makes it miss all that is in there; a pg_waldump that did not run, the WAL.
    sees_all = not any(text.startswith(("could not open", "could not stat", "could not read")) for text in own)
    problems = [
        text
        for text in own
        if _OF_THE_BACKUP.match(text) or (sees_all and _NOT_THERE.match(text)) or (wal and _WAL_BROKEN.match(text))
    ]
    return tuple([*problems, *(f"{_WAL_READER}: {text}" for text in wal)][:_MAX_PROBLEMS])


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
        return f"the program in this installation crashes (signal {-failure.returncode})"
    return failure.message
