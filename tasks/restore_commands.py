"""A backup's restore commands as text to paste into a shell, with a value or a blank for each variable."""

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line loads this module at its start
    from lifeboat.storage.manifest import Manifest

_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z0-9_]*)\b")
_STARTS_A_SERVER = re.compile(r"\bpg_ctl\b")
# A blank that a command refuses or passes over stays empty; TARGET may not, since commands write below it.
_VALUES = {
    "TARGET": "…   # choose: a new folder for what is restored",
    "SOCKET": '"$(mktemp -d)"   # where the server listens: psql -h "$SOCKET"',
    "TABLESPACES": '"$TARGET.tablespaces"   # or another new folder',
    "DATABASE": "   # the connection string of the platform's database",
}


def restore_lines(manifest: "Manifest", location: str) -> list[str]:
    """Who runs the commands, an assignment for every variable in them, and the commands, step by step.

    `location` is the backup's own folder.
    """
    commands = [command for step in manifest.restore for command in step.commands]
    known = {"BACKUP": location, "REPOSITORY": location.rpartition("/")[0]}
    lines = _account(manifest) if any(map(_STARTS_A_SERVER.search, commands)) else []
    for name in _used(commands):
        lines.append(f"export {name}={shlex.quote(known[name]) if name in known else _blank(name)}")
    for step in manifest.restore:
        lines += ["", f"# {step.title}", *step.commands]
    return lines


def _used(commands: list[str]) -> list[str]:
    used = dict.fromkeys(name for command in commands for name in _VARIABLE.findall(command))
    # The value of TABLESPACES has TARGET in it.
    return sorted(used, key=lambda name: name == "TABLESPACES")


def _blank(name: str) -> str:
    if name.endswith("_DIR"):
        return "   # the folder to copy to; empty: not copied"
    return _VALUES.get(name, "   # fill in")


def _account(manifest: "Manifest") -> list[str]:
    major = (manifest.pg_version or "").partition(".")[0] or "VERSION"
    return [
        "# Run all of this as the account that will own the server, never as root: su -s /bin/sh postgres",
        f"# PostgreSQL's programs have to be on the PATH; on Debian they are in /usr/lib/postgresql/{major}/bin.",
    ]
