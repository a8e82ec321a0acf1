"""What starts a server that is not ours to supervise, for people to paste."""

import shlex
from pathlib import Path

from lifeboat.operations.installation import Installation
from lifeboat.settings.own_command import own_command

_LOG = "start.log"


def start_command(installation: Installation, data_dir: Path) -> str:
    """What starts the platform's own server."""
    if installation.settings.platform.embedded:
        return own_command(installation.settings_file, "up")
    return pg_ctl_start(installation, data_dir)


def pg_ctl_start(installation: Installation, data_dir: Path, *options: str) -> str:
    """pg_ctl's command line for a data directory, with options of its own."""
    # The log is in the data directory: the folder around that is often root's, and closed to the server's account.
    words = [str(installation.tools.path("pg_ctl")), "-D", str(data_dir), "-l", str(data_dir / _LOG)]
    return shlex.join([*as_account(installation), *words, *options, "start"])


def as_account(installation: Installation) -> list[str]:
    """The words that run what follows as the account of PostgreSQL's programs."""
    return ["runuser", "-u", installation.run_as, "--"] if installation.run_as else []
