"""Doctor's checks of WAL archiving: the server calls our program, which runs as the server's account and succeeds."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lifeboat.operations.doctor.results import CheckResult, failed, ok, skipped, warning
from lifeboat.operations.doctor.source import Archiver, SourceFacts, age_seconds
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archive_setup import RELOAD, NotTheServersMachine, account_to_try
from lifeboat.wal.archive_program.layout import ArchiveError, archive_folder, load_config
from lifeboat.wal.install import PROGRAM_NAME, InstalledProgram, check_archive
from lifeboat.wal.interpreter import choose_python
from lifeboat.wal.names import parse_archive_name

_BEHIND_SEGMENTS = 3
_NO_COMMAND = {"", "(disabled)"}


@dataclass(frozen=True)
class Call:
    """The parts of an archive_command that calls our program."""

    python: Path
    program: Path
    config: Path


def check_archiving(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """Does WAL reach the archive?"""
    if not installation.settings.wal.archive:
        yield skipped("archiving", "`wal.archive` is false: there is no point-in-time recovery, by decision")
        return
    command = facts.settings.get("archive_command", "")
    call = parse_call(command)
    reasons = []
    if facts.settings.get("archive_library"):
        reasons.append(f"archive_library is {facts.settings['archive_library']!r}, so archive_command is not called")
    if not facts.is_on("archive_mode"):
        reasons.append("archive_mode is off")
    if call is None:
        known = command not in _NO_COMMAND
        reasons.append(
            f"archive_command is {command!r}, which is not Lifeboat's" if known else "there is no archive_command"
        )
    if installation.settings.wal.receive and not _calls_anything(facts):
        yield ok("archiving", "`lifeboat wal receive` brings WAL to the archive; `lifeboat wal health` watches it")
        yield from check_archive_timeout(installation, facts)
        return
    if reasons or call is None:
        yield failed("archiving", "; ".join(reasons), _set_up_fix(installation, facts))
        return
    yield from _check_call(installation, facts, call)
    yield from check_archive_timeout(installation, facts)
    yield from check_archiver(facts.archiver, facts.segment_size_bytes)


def _calls_anything(facts: SourceFacts) -> bool:
    if not facts.is_on("archive_mode"):
        return False
    return bool(facts.settings.get("archive_library")) or facts.settings.get("archive_command") not in _NO_COMMAND


def check_archive_timeout(installation: Installation, facts: SourceFacts) -> Iterator[CheckResult]:
    """The server ends a segment after that long, with archive_mode off too: a receiver needs it as well."""
    seconds, found_seconds = installation.settings.wal.archive_timeout_seconds, int(facts.settings["archive_timeout"])
    if seconds and not 0 < found_seconds <= seconds:
        longest = f"{found_seconds} s, and `wal.archive_timeout_seconds` wants {seconds}" if found_seconds else "hours"
        yield warning(
            "archive_timeout",
            f"it is {found_seconds}: on a quiet server the last commits stay unarchived for {longest}",
            f"ALTER SYSTEM SET archive_timeout = '{seconds}s';\n{RELOAD}",
        )


def parse_call(command: str) -> Call | None:
    """Take an archive_command of ours apart; None for any other."""
    try:
        words = shlex.split(command.replace("%%", "%"))
    except ValueError:
        return None
    first = next((index for index, word in enumerate(words) if Path(word).name == PROGRAM_NAME), None)
    if first is None or words[first + 1 : first + 3] != ["push", "--config"] or len(words) <= first + 3:
        return None
    return Call(Path(words[0]), Path(words[first]), Path(words[first + 3]))


def check_archiver(archiver: Archiver, segment_size_bytes: int) -> Iterator[CheckResult]:
    """What the server itself says of its last attempts."""
    failed_at, archived_at = archiver.last_failed_at, archiver.last_archived_at
    if failed_at is not None and (archived_at is None or failed_at > archived_at):
        success = (
            f"the last success was {age_seconds(archived_at):.0f} s ago" if archived_at else "none has succeeded yet"
        )
        yield failed(
            "archiver",
            f"archiving {archiver.last_failed_wal} failed {age_seconds(failed_at):.0f} s ago "
            f"({archiver.failed_count} failures in all); {success}",
            "The server's log has the reason, in a line that starts with `lifeboat wal push`.",
        )
        return
    if archiver.last_archived_wal is None or archived_at is None:
        yield warning("archiver", "nothing was archived yet", "SELECT pg_switch_wal();   -- then run doctor again")
        return
    behind = segments_behind(archiver, segment_size_bytes)
    told = f"last archived {archiver.last_archived_wal}, {age_seconds(archived_at):.0f} s ago"
    if behind is not None and behind > _BEHIND_SEGMENTS:
        yield warning(
            "archiver",
            f"{behind} segments wait to be archived; {told}",
            "Compare the destination's speed with the server's WAL; `lifeboat wal status` shows what arrived.",
        )
    else:
        yield ok("archiver", told)


def segments_behind(archiver: Archiver, segment_size_bytes: int) -> int | None:
    """How many finished segments wait; None on another timeline or before the first archived segment."""
    if archiver.last_archived_wal is None or archiver.current_segment is None:
        return None
    done = parse_archive_name(archiver.last_archived_wal, segment_size_bytes).segment
    now = parse_archive_name(archiver.current_segment, segment_size_bytes).segment
    # The segment that is written now is not due.
    return now.number - done.number - 1 if done and now and done.timeline == now.timeline else None


def _check_call(installation: Installation, facts: SourceFacts, call: Call) -> Iterator[CheckResult]:
    wanted = archive_folder(
        str(installation.destination(installation.settings.wal.destination).path),
        installation.settings.platform.cluster,
    )
    if not facts.local:
        yield skipped("archiving", f"archive_command calls {call.program}, on another machine than this one")
        return
    try:
        config = load_config(str(call.config))
    except ArchiveError as error:
        yield failed("archiving", str(error), _set_up_fix(installation, facts))
        return
    if config.archive != wanted:
        detail = f"the server archives to {config.archive}, and settings say {wanted}"
        yield failed("archiving", detail, _set_up_fix(installation, facts))
        return
    try:
        user = account_to_try(installation, facts)
    except NotTheServersMachine as error:
        yield warning("archiving", error.message, error.hint or "")
        return
    choose_python(call.program, user=user, configured=call.python)
    check_archive(InstalledProgram(call.program, call.config, call.python, user))
    yield ok("archiving", f"archive_command works{f' as {user}' if user else ''} and archives to {config.archive}")


def _set_up_fix(installation: Installation, facts: SourceFacts) -> str:
    if installation.settings.platform.embedded:
        return "Stop `lifeboat up` and start it again: it sets up the embedded server."
    library = f"ALTER SYSTEM RESET archive_library;\n{RELOAD}\n" if facts.settings.get("archive_library") else ""
    return f"{library}lifeboat wal install   # on the server's machine; it prints the statements for the server"
