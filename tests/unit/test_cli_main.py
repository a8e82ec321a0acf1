"""The console script: which module it loads, where its options may stand, and what an error becomes."""

import logging
import signal
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from console.cli.main import COMMANDS, build_app, explain, help_text, main, to_the_front
from lifeboat.commands import CommandFailed
from lifeboat.errors import FoundProblems, LifeboatError, PermanentError, SettingsError, TransientError
from lifeboat.settings.loading import CONFIG_VARIABLE


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "absent.toml"))


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command_and_the_exit_codes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0

    shown = capsys.readouterr().out
    assert shown == help_text()
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert "3 done, and it found something wrong" in shown


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert main([name, "--help"]) == 0
        assert f"lifeboat {name}" in capsys.readouterr().out


def test_no_summary_is_cut_on_a_terminal_of_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = typer.main.get_command(build_app())
    groups = [name for name, command in root.commands.items() if hasattr(command, "commands")]  # type: ignore[attr-defined]
    assert groups
    for name in groups:
        assert main([name, "--help"]) == 0
        listed = capsys.readouterr().out.partition("Commands:")[2]
        assert listed
        assert "..." not in listed, name


def test_every_reading_command_writes_json() -> None:
    reading: dict[str, list[str | None]] = {
        "doctor": [None],
        "backup": ["list", "show", "verify", "run"],
        "config": ["list", "diff", "apply", "export"],
        "assets": ["verify"],
        "retention": ["plan", "apply"],
        "wal": ["status", "health", "verify"],
        "storage": ["status"],
        "catalog": ["migrate", "reconcile"],
        "schedule": ["list"],
        "restore": ["points"],
        "note": ["add", "list", "remove"],
    }
    root = typer.main.get_command(build_app())
    for name, subcommands in reading.items():
        group = root.commands[name]  # type: ignore[attr-defined]
        for subcommand in subcommands:
            command = group.commands[subcommand] if subcommand else group
            assert "--json" in [option for parameter in command.params for option in parameter.opts], (name, subcommand)


@pytest.mark.parametrize(
    ("words", "moved"),
    [
        (["backup", "list", "--verbose"], ["--verbose", "backup", "list"]),
        (["backup", "--config", "/x", "list"], ["--config", "/x", "backup", "list"]),
        (["backup", "list", "--config=/x", "--json"], ["--config=/x", "backup", "list", "--json"]),
        (["config", "diff", "--", "--verbose", "b"], ["config", "diff", "--", "--verbose", "b"]),
        (["doctor", "--config"], ["--config", "doctor"]),
    ],
)
def test_options_of_every_command_may_stand_anywhere(words: list[str], moved: list[str]) -> None:
    assert to_the_front(words) == moved


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["backup", "nonsense"],
        ["backup", "run"],
        ["backup", "run", "--type", "partial"],
        ["backup", "run", "--type", "logical", "--engine", "basebackup"],
        ["backup", "run", "--type", "incremental", "--engine", "pg_dump"],
        ["backup", "list", "--nonsense"],
        ["backup", "show"],
        ["init"],
        ["init", "--embedded", "--dsn", "host=x"],
        ["doctor", "--config"],
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err


def test_a_misspelt_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retentoin"]) == 2
    assert "retention" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["backup", "list"], ["retention", "plan"], ["storage", "status"], ["up"]])
def test_absent_settings_end_with_2_and_a_hint(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2

    shown = capsys.readouterr().err
    assert "lifeboat: there is no settings file" in shown
    assert "HINT: Name it with --config" in shown
    assert "Traceback" not in shown


def test_verbose_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "list", "--verbose"]) == 2
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), 2),
        (FoundProblems("x"), 3),
        (PermanentError("x"), 1),
        (TransientError("x"), 1),
        (CommandFailed("pg_dump", 1, "x"), 1),
        (LifeboatError("x"), 1),
        (ZeroDivisionError("x"), 1),
    ],
)
def test_an_error_becomes_an_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(error, verbose=False) == code

    shown = capsys.readouterr().err
    assert shown.startswith("lifeboat: ")
    assert "Traceback" not in shown


def test_message_and_hint_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    explain(PermanentError("the disk is full", hint="Free space."), verbose=False)

    assert capsys.readouterr().err == "lifeboat: the disk is full\nHINT: Free space.\n"


def test_an_unexpected_error_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    explain(KeyError("lost"), verbose=False)

    shown = capsys.readouterr().err
    assert "unexpected KeyError: 'lost'" in shown
    assert "--verbose" in shown


def test_wal_commands_take_their_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wal", "push", "--help"]) == 0
    assert "Exit codes: push 0 archived durably" in capsys.readouterr().out
    assert main(["wal", "fetch", "nowhere", "nothing"]) == 255
    assert main(["--verbose", "wal", "fetch", "nowhere", "nothing"]) == 255


def test_a_command_leaves_signals_and_logging_as_they_were() -> None:
    log = logging.getLogger("lifeboat")
    before = (signal.getsignal(signal.SIGTERM), log.level, log.propagate, list(log.handlers))
    main(["backup", "list"])

    assert (signal.getsignal(signal.SIGTERM), log.level, log.propagate, list(log.handlers)) == before


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lifeboat {version('lifeboat')}\n"
