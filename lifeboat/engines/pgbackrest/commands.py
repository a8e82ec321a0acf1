"""Runs pgBackRest: argument lists, UTC, exit codes as errors."""

import re
import shlex
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from lifeboat import commands
from lifeboat.commands import CommandFailed, Completed, ToolMissing
from lifeboat.engines.engine import EngineFailed
from lifeboat.engines.pgbackrest.failures import name_failure

MINIMUM_VERSION = (2, 45)
_QUICK_SECONDS = 60.0
_VERSION = re.compile(r"pgBackRest (\d+)\.(\d+)")
# Labels carry the time of day of the process's time zone.
_ENVIRONMENT = {"TZ": "UTC"}


@dataclass(frozen=True)
class PgBackRest:
    """One stanza, the configuration that names its repository, and the account that runs the program."""

    program: Path
    stanza: str
    config: Path
    user: str | None
    timeout_seconds: float
    secrets: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def base(self) -> list[str]:
        """The words that every command starts with."""
        return [str(self.program), f"--config={self.config}", f"--stanza={self.stanza}"]

    def run(  # noqa: PLR0913 - what to run, how to call it in an error, and the watch's callbacks
        self,
        command: str,
        *words: str | Path,
        doing: str,
        level: str = "info",
        accept: Collection[int] = (0,),
        timeout_seconds: float | None = None,
        stdout_path: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        on_tick: Callable[[], None] | None = None,
    ) -> Completed:
        """Run one command; `level` is that of what it prints to stderr. Raises what `name_failure` makes of it."""
        levels = ["--log-level-console=off", f"--log-level-stderr={level}", "--no-log-timestamp"]
        try:
            return commands.run(
                [*self.base, *levels, command, *words],
                timeout_seconds=timeout_seconds or self.timeout_seconds,
                env={**_ENVIRONMENT, **self.environment},
                user=self.user,
                secrets=self.secrets,
                accept=accept,
                stdout_path=stdout_path,
                on_stderr_line=on_line,
                on_tick=on_tick,
            )
        except CommandFailed as failure:
            raise name_failure(failure, doing, command) from failure

    def version(self) -> tuple[int, int]:
        """Major and minor version; raises EngineFailed for one that is too old or cannot be read."""
        printed = commands.run([self.program, "version"], timeout_seconds=_QUICK_SECONDS, user=self.user).stdout
        found = _VERSION.search(printed)
        if found is None:
            raise EngineFailed(f"{self.program} does not report a version: {printed.strip()!r}")
        version = (int(found[1]), int(found[2]))
        if version < MINIMUM_VERSION:
            raise EngineFailed(
                f"pgBackRest {found[1]}.{found[2]} is too old",
                hint=f"Install {MINIMUM_VERSION[0]}.{MINIMUM_VERSION[1]} or later.",
            )
        return version

    @property
    def archive_command(self) -> str:
        """For postgresql.conf, still to be quoted for it (`postgres.conf.quote_setting`)."""
        return f'{_for_server(self.base)} archive-push "%p"'

    def restore_command(self, ahead: Path | None = None) -> str:
        """For postgresql.conf of a restored cluster, still to be quoted for it.

        `ahead` is an empty folder of the server's account, for this cluster alone, that segments are got to before
        they are asked for. Any doubt ends in 255, which stops recovery: the server takes the exit codes of
        pgBackRest's errors, which are below 126, for "there is no such segment", and would promote with rows missing.
        """
        # %p is relative to the data directory, where the server runs its command.
        words = [*self.base, "--log-level-console=off", "--log-level-stderr=warn"]
        if ahead is not None:
            # Its own locks too: two clusters that recover at the same time would wait for each other.
            words += ["--archive-async", f"--spool-path={ahead}", f"--lock-path={ahead}"]
        words.append("archive-get")
        call = f'{_for_server(words)} --pg1-path="$PWD" %f "%p"'
        return f"{call}; case $? in 0) exit 0;; 1) exit 1;; *) exit 255;; esac"


def find_program(configured: Path | None) -> Path:
    """The program that settings name, or the first in PATH; raises ToolMissing."""
    found = str(configured) if configured else shutil.which("pgbackrest")
    if found is None or shutil.which(found) is None:
        raise ToolMissing(found or "pgbackrest")
    return Path(found)


def _for_server(words: list[str]) -> str:
    return shlex.join(words).replace("%", "%%")
