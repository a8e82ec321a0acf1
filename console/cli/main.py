"""The console script `lifeboat`: it finds the one module that a command line needs and imports nothing else.

`lifeboat wal push` and `wal fetch` run on the standard library alone, help needs no Typer, and Prefect is imported by
the commands that use it: a server calls the first of these for each WAL segment.
"""

import os
import signal
import sys
from collections.abc import Iterable, Sequence

# Importing `typing` would take a tenth of the time that help has.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    import typer

# Top-level words: the module below console.cli that has it as `app` (a group) or `command`, and its help.
COMMANDS = {
    "init": ("initialise", "Write a commented lifeboat.toml to start from, and the signing key."),
    "doctor": ("doctor", "Check settings, tools, connections, rights and space; print a fix for each fault."),
    "demo": ("showcase", "Play the whole loop on a small studio: backups, drill, an accident, and the way back."),
    "up": ("services", "Start embedded PostgreSQL, Prefect server, agent, worker and deployments, until Ctrl-C."),
    "agent": ("agent", "Write the heartbeat and observe relation names, until Ctrl-C."),
    "backup": ("backup", "Take backups, list them, prove them, pin them."),
    "restore": ("restore", "Restore to a moment; the moments that can be had; what was happening then."),
    "explore": ("explore", "Serve the cluster as of a moment, isolated and read-only."),
    "rescue": ("rescue", "Bring one table's rows as of a moment beside the live ones."),
    "note": ("note", "Notes on moments, shown among the restore points."),
    "config": ("configuration", "Export, list, compare and apply configuration archives."),
    "assets": ("assets", "Check the files that the database refers to."),
    "retention": ("retention", "Preview and apply what expires."),
    "wal": ("wal", "The WAL archive: what it holds; push and fetch for the server."),
    "pgbackrest": ("pgbackrest", "pgBackRest's configuration, stanza and repository, where that engine is used."),
    "storage": ("storage", "Free space and what backups take, by destination."),
    "catalog": ("catalog", "Create, migrate and repair the catalog."),
    "schedule": ("schedule", "The backup schedules."),
}
OPTIONS = {
    "--config PATH": "The settings file; else $LIFEBOAT_CONFIG, ./lifeboat.toml, /etc/lifeboat/lifeboat.toml.",
    "--verbose": "Tell every step, and show the traceback of an error.",
    "--version": "Show the version.",
    "--help": "Show this text; `lifeboat COMMAND --help` shows a command's own.",
}
EXIT_CODES = "Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 done, and it found something wrong."
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code (DESIGN 8)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["wal"]:
        from lifeboat.wal import command_line

        if command_line.claims(["lifeboat", *words]):
            return _leave(command_line.main(["lifeboat", *words]), at_once=argv is None)
    words = to_the_front(words)
    if not words or words[0] in {"--help", "-h", "help"}:
        return _finish(0, help_text())
    if words == ["--version"]:
        from importlib.metadata import version

        return _finish(0, f"lifeboat {version('lifeboat')}\n")
    try:
        return _finish(_run(words))
    except KeyboardInterrupt:
        return _say_interrupted()
    except Exception as error:
        return explain(error, verbose="--verbose" in words)


def to_the_front(words: Sequence[str]) -> list[str]:
    """The same command line with the options that go with every command before the command."""
    ours: list[str] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--":
            rest += [word, *remaining]
        elif word == "--verbose" or word.startswith("--config="):
            ours.append(word)
        elif word == "--config":
            ours += [word, *[value for value in [next(remaining, None)] if value is not None]]
        else:
            rest.append(word)
    return [*ours, *rest]


def help_text() -> str:
    """What `lifeboat --help` shows."""
    width = max(map(len, [*COMMANDS, *OPTIONS]))
    lines = ["Usage: lifeboat [OPTIONS] COMMAND [ARGS]...", "", "Backup and disaster recovery for a platform.", ""]
    lines += ["Commands:", *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()), ""]
    lines += [
        "Options, before or after the command:",
        *(f"  {name:<{width}}  {text}" for name, text in OPTIONS.items()),
    ]
    return "\n".join([*lines, "", EXIT_CODES]) + "\n"


def build_app(names: Iterable[str] = tuple(COMMANDS)) -> "typer.Typer":
    """The Typer application with these top-level commands: importing one command's module is enough to run it."""
    from importlib import import_module

    import typer

    from console.cli.session import start_session

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EXIT_CODES)
    app.callback()(start_session)
    for name in names:
        module_name, text = COMMANDS[name]
        module = import_module(f"console.cli.{module_name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=text)
        else:
            app.command(name)(module.command)
    return app


def explain(error: Exception, *, verbose: bool) -> int:
    """Write what went wrong and what to do next to stderr; returns the exit code."""
    from lifeboat.errors import FoundProblems, LifeboatError, SettingsError

    if verbose:
        import traceback

        sys.stderr.write("".join(traceback.format_exception(error)))
    if isinstance(error, LifeboatError):
        message, hint = error.message, error.hint
    else:
        message = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
        hint = None if verbose else "Run the command again with --verbose: the traceback belongs into a bug report."
    sys.stderr.write(f"lifeboat: {message}\n" + (f"HINT: {hint}\n" if hint else ""))
    if isinstance(error, FoundProblems):
        return 3
    return 2 if isinstance(error, SettingsError) else 1


def _run(words: list[str]) -> int:
    wanted = next((word for word in _without_options(words) if word in COMMANDS), None)
    # An unknown word gets the whole application, which knows what it could have meant.
    app = build_app([wanted] if wanted else COMMANDS)
    # Without a handler Python would end at once, and leave a scratch cluster or half a backup behind.
    before = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        app(args=words, prog_name="lifeboat")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return _say_interrupted() if code == _INTERRUPTED else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _without_options(words: Iterable[str]) -> list[str]:
    remaining = iter(words)
    found = []
    for word in remaining:
        if word == "--config":
            next(remaining, None)
        elif not word.startswith("-"):
            found.append(word)
    return found[:1]


def _say_interrupted() -> int:
    sys.stderr.write("lifeboat: interrupted\n")
    return _INTERRUPTED


def _stop(number: int, _frame: object) -> "NoReturn":
    raise SystemExit(128 + number)


def _finish(code: int, last_words: str = "") -> int:
    """Write out what stdout still holds; a reader that went away (`| head`) changes no exit code."""
    try:
        sys.stdout.write(last_words)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain on stderr.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return code


def _leave(code: int, *, at_once: bool) -> int:
    if at_once:
        # Python's own end can change the code (a closed stdout makes it 120), and recovery would misread that.
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
