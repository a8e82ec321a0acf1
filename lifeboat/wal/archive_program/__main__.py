"""`push|fetch --config wal.json PATH NAME`: exit codes, and each failure as one line in the server's log."""

from __future__ import annotations  # Python 3.9 cannot evaluate `X | None`

import errno
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from lifeboat.wal.archive_program.fetch import Absent, fetch_with_retries
from lifeboat.wal.archive_program.layout import ArchiveError, load_config, require_owner
from lifeboat.wal.archive_program.push import push, try_to_write

PROGRAM_VERSION = 1
FAILED = 1
FETCH_ABSENT = 1
FETCH_UNCLEAR = 255  # above 125: the server's recovery stops, where 1 would let it end and promote
_USAGE = "push|fetch --config FILE [--absent-code N] PATH NAME; check --config FILE push|fetch; version"


def main(argv: Sequence[str]) -> int:
    """Run `push`, `fetch`, `check` or `version`; every failure is one line on stderr.

    push, check and version: 0 or 1. fetch: 0 delivered, 1 (or `--absent-code`) surely not there, else 255.
    """
    command, words = (argv[0] if argv else ""), list(argv[1:])
    options = {"--absent-code": str(FETCH_ABSENT)}
    while len(words) > 1 and words[0] in {"--config", "--absent-code"}:
        option, value, *words = words
        options[option] = value
    try:
        absent_code = int(options["--absent-code"])
        try:
            _run(command, options.get("--config"), words)
        except Absent:
            return absent_code
    except BaseException as error:  # noqa: BLE001 - Python's own exit code, 1, would tell recovery "not there"
        hint = error.hint if isinstance(error, ArchiveError) else _hint_for(error)
        _say(command, words, str(error) or type(error).__name__, hint)
        return FAILED if command in {"push", "check", "version"} else FETCH_UNCLEAR
    return 0


def _run(command: str, config_path: str | None, words: list[str]) -> None:
    if command == "version":
        os.write(1, f"{PROGRAM_VERSION} {sys.version_info[0]}.{sys.version_info[1]}\n".encode())
        return
    if config_path is None or len(words) != {"push": 2, "fetch": 2, "check": 1}.get(command):
        raise ArchiveError("cannot understand the arguments", f"Usage: {_USAGE}.")
    config = load_config(config_path)
    if command == "fetch":
        fetch_with_retries(config, words[0], words[1], lambda message: _say(command, words, message))
    elif command == "push":
        if remark := push(config, words[0], words[1]):
            _say(command, words, remark)
    else:
        require_owner(config.archive, config.system_identifier, config.segment_size_bytes)
        os.listdir(config.archive)
        if words == ["push"]:
            try_to_write(config)


def _say(command: str, words: list[str], message: str, hint: str | None = None) -> None:
    subject = " ".join(["lifeboat wal", command, *words[-1:]])
    with suppress(OSError, ValueError):  # a closed log must not change the exit code
        sys.stderr.write(" ".join(f"{subject}: {message}{f' HINT: {hint}' if hint else ''}".split()) + "\n")
        sys.stderr.flush()


def _hint_for(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "Free or add space there: until then the server keeps its WAL and its own disk fills up."
    if number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "Give the server's account the right to use it; `lifeboat doctor` tries it as that account."
    return "Check that the destination is mounted and healthy, and look into the kernel's log."


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(f"stopped by signal {number}")


def run_as_program(argv: Sequence[str]) -> int:
    """`main` for a process of its own: a polite signal removes the temporary file before the end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    return main(argv)


if __name__ == "__main__":
    os._exit(run_as_program(sys.argv[1:]))  # what fails while Python shuts down must not change the code
