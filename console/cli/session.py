"""What every command starts from: the settings file that was named, and how much is told."""

import logging
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.output import LogLines

if TYPE_CHECKING:
    from lifeboat.operations.installation import Installation


@dataclass
class Session:
    """The options that go with every command."""

    config: Path | None = None
    verbose: bool = False

    @cached_property
    def installation(self) -> "Installation":
        """The installation that the settings describe; raises SettingsError."""
        from lifeboat.operations.installation import Installation

        return Installation.load(self.config)


def start_session(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option("--config", metavar="PATH", help="The settings file.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell every step; show tracebacks.")] = False,
) -> None:
    """Backup and disaster recovery for a platform."""
    context.obj = Session(config, verbose)
    log = logging.getLogger("lifeboat")
    context.call_on_close(partial(_set_up, log, log.level, log.propagate, log.handlers))
    _set_up(log, logging.DEBUG if verbose else logging.WARNING, False, [LogLines()])


def _set_up(log: logging.Logger, level: int, propagate: bool, handlers: list[logging.Handler]) -> None:
    log.setLevel(level)
    log.propagate = propagate
    log.handlers = handlers


def session_of(context: typer.Context) -> Session:
    """The session of the command line that `context` belongs to."""
    session = context.find_object(Session)
    if session is None:
        raise RuntimeError("the application's callback makes the session before any command runs")
    return session


def installation_of(context: typer.Context) -> "Installation":
    """The installation that a command works on; raises SettingsError."""
    return session_of(context).installation


def with_source(context: typer.Context) -> "Installation":
    """The installation, for a command that asks the platform's server; raises TransientError when that is not up."""
    from lifeboat.errors import TransientError

    installation = installation_of(context)
    if installation.settings.platform.embedded and not installation.embedded.is_running():
        hint = "Start it in another terminal: `lifeboat up`."
        raise TransientError("the embedded PostgreSQL does not run", hint=hint)
    return installation
