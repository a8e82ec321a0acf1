"""Command lines of ours, for people to paste."""

import shlex
import sysconfig
from pathlib import Path

from lifeboat.settings.loading import is_found_without_name


def own_command(settings_file: Path | None, *words: str) -> str:
    """A command line of ours that does the same in any shell: it names the program and the settings file.

    The file is left out where every command finds it by itself.
    """
    named: list[str] = []
    if settings_file is not None and not is_found_without_name(settings_file):
        named = ["--config", str(settings_file.absolute())]
    return shlex.join([_program(), *named, *words])


def _program() -> str:
    # PATH does not tell: a flow run has our folder in its own, and the shell of who reads its report may not.
    installed = Path(sysconfig.get_path("scripts")) / "lifeboat"
    return str(installed) if installed.is_file() else "lifeboat"
