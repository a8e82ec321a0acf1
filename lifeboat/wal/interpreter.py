"""Find a Python that the server's account can execute."""

import re
import sys
from pathlib import Path

from lifeboat import commands
from lifeboat.errors import LifeboatError, PermanentError

OLDEST_PYTHON = (3, 9)
RUN_OPTIONS = ("-X", "utf8", "-I", "-S")
TRY_TIMEOUT_SECONDS = 60.0
_VERSION = re.compile(r"\d+ (\d+)\.(\d+)\n", re.ASCII)
_SYSTEM_FOLDERS = ("/usr/bin", "/usr/local/bin", "/usr/libexec")
_SYSTEM_NAMES = ("python3", "platform-python", *(f"python3.{minor}" for minor in range(20, 8, -1)))


class ArchiveProgramUnusable(PermanentError):
    """No Python runs the archive program as the server's account, or it cannot use the archive."""


def choose_python(program: Path, *, user: str | None, configured: Path | None = None) -> Path:
    """A Python >= 3.9 that runs `program` as `user`: the configured one, or the first that does.

    Each is tried for real. Raises ArchiveProgramUnusable that says why each one does not.
    """
    failures: list[str] = []
    for candidate in [configured] if configured else _candidates():
        reason = _try_python(candidate, program, user)
        if reason is None:
            return candidate
        failures.append(f"{candidate}: {reason}")
    raise ArchiveProgramUnusable(
        f"no Python runs the archive program as {user or 'this account'}: {'; '.join(failures)}",
        hint="Install python3 >= 3.9 where that account can execute it, or set `python` in section [wal].",
    )


def _candidates() -> list[Path]:
    names = [Path(folder, name) for folder in _SYSTEM_FOLDERS for name in _SYSTEM_NAMES]
    # A Python below somebody's home folder works for us and not for the server: the system's come next.
    return [Path(sys.executable).resolve(), *(path for path in names if path.exists())]


def _try_python(python: Path, program: Path, user: str | None) -> str | None:
    """Why this Python cannot run the program; None if it can."""
    call: list[str | Path] = ["sh", "-c", 'exec "$@"', "sh", python, *RUN_OPTIONS, program, "version"]
    try:
        # By a shell, as the server does: setpriv itself still starts programs in folders closed to `user`.
        done = commands.run(call, user=user, timeout_seconds=TRY_TIMEOUT_SECONDS)
    except LifeboatError as error:
        return error.message.replace("\n", " ")
    said = _VERSION.fullmatch(done.stdout)
    if said is None:
        return "it does not run the program"
    version = (int(said[1]), int(said[2]))
    return None if version >= OLDEST_PYTHON else f"it is version {version[0]}.{version[1]}"
