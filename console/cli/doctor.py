"""`lifeboat doctor`."""

from collections import Counter
from typing import TYPE_CHECKING

import typer

from console.cli.options import AsJson
from console.cli.output import mark, say, say_json
from console.cli.session import Session, session_of

if TYPE_CHECKING:
    from pathlib import Path

    from lifeboat.errors import SettingsError
    from lifeboat.operations.doctor.results import CheckResult
    from lifeboat.operations.installation import Installation

_ORDER = ("ok", "warning", "failed", "skipped")
_INDENT = " " * 10


def command(context: typer.Context, as_json: AsJson = False) -> None:
    """Check settings, tools, connections, rights, archiving, clock and space, and print a fix for each fault.

    Exit code 3 when a check failed, 2 when the settings do not load; warnings alone are no fault.
    """
    from lifeboat.operations.doctor.run import run_checks
    from lifeboat.operations.installation import Installation

    start = _load(session_of(context))
    settings_file = start.settings_file if isinstance(start, Installation) else None
    results = []
    for result in run_checks(start):
        results.append(result)
        if not as_json:
            _show(result, settings_file)
    counts = Counter(result.status.value for result in results)
    if as_json:
        say_json({"checks": results, "counts": counts})
    else:
        say("\n" + ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status]))
    if not isinstance(start, Installation):
        raise typer.Exit(2)
    if counts["failed"]:
        raise typer.Exit(3)


def _load(session: Session) -> "Installation | SettingsError":
    from lifeboat.errors import SettingsError

    try:
        return session.installation
    except SettingsError as error:
        return error


def _show(result: "CheckResult", settings_file: "Path | None") -> None:
    from lifeboat.settings.own_command import own_command

    say(f"{mark(result.status.value, len(_INDENT))}{result.name}: {result.detail}")
    for number, line in enumerate(result.fix.splitlines() if result.fix else []):
        is_ours = line.startswith("lifeboat ")
        shown = f"{own_command(settings_file)} {line.removeprefix('lifeboat ')}" if is_ours else line
        say(f"{_INDENT}{'fix: ' if number == 0 else '     '}{shown}")
