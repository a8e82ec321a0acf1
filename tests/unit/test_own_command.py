"""Printed command lines: they find their program and their settings in any shell."""

import shlex
import sysconfig
from datetime import UTC, datetime
from pathlib import Path

import pytest

from console.cli.doctor import _show
from console.cli.restore_run import losses
from console.cli.restore_words import preview_command, tell_next
from lifeboat.operations.doctor.results import failed
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.starting import start_command
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings import loading
from lifeboat.settings.own_command import own_command
from lifeboat.settings.root import Settings

AT = datetime(2026, 11, 22, 14, 3, 22, 500, tzinfo=UTC)
FILE = Path("/srv/the studio's/lifeboat.toml")


@pytest.fixture
def installation() -> Installation:
    """Settings of an embedded platform, from FILE."""
    platform = {"cluster": "studio", "embedded": True}
    given = {"state_dir": "/srv/state", "platform": platform, "destinations": {"primary": {"path": "/srv/store"}}}
    return Installation(Settings.model_validate(given), FILE)


def test_a_command_names_its_program_and_its_settings() -> None:
    program, *words = shlex.split(own_command(FILE, "note", "add", "it's done"))
    assert words == ["--config", str(FILE), "note", "add", "it's done"]
    installed = Path(sysconfig.get_path("scripts")) / "lifeboat"
    assert program == (str(installed) if installed.is_file() else "lifeboat")


def test_settings_are_left_out_only_where_every_command_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc" / "lifeboat.toml"
    monkeypatch.setattr(loading, "_SYSTEM_FILE", system)
    monkeypatch.delenv(loading.CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)

    def words(path: Path | None) -> list[str]:
        return shlex.split(own_command(path, "up"))[1:]

    assert words(None) == words(system) == ["up"]
    (tmp_path / "lifeboat.toml").touch()
    assert words(system) == ["--config", str(system), "up"]
    assert words(Path("lifeboat.toml")) == ["--config", str(tmp_path / "lifeboat.toml"), "up"]
    (tmp_path / "lifeboat.toml").unlink()
    monkeypatch.setenv(loading.CONFIG_VARIABLE, str(FILE))
    assert words(system) == ["--config", str(system), "up"]


def test_the_next_commands_go_on_with_what_was_said(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    target = RecoveryTarget(TargetKind.TIME, at=AT, timeline=1)
    common = ["--at", "2026-11-22 14:03:22.000500 UTC", "--timeline", "1", "--destination", "second"]
    start = ["--config", str(FILE)]

    def told(**options: bool) -> list[list[str]]:
        tell_next(installation, target, "second", ["--to", "new:/srv/x"], **options)
        return [shlex.split(line.partition(": ")[2])[1:] for line in capsys.readouterr().err.splitlines()[1:]]

    restore = [*start, "restore", "run", *common, "--to", "new:/srv/x"]
    assert told() == [[*start, "explore", *common], restore]
    # A dump, which cannot be explored.
    assert told(of_cluster=False) == [restore]
    for inclusive in (True, False):
        of_time = RecoveryTarget(TargetKind.TIME, at=AT, timeline=1, inclusive=inclusive)
        preview = preview_command(installation, of_time, "second")
        assert shlex.split(preview or "")[1:] == [*start, "restore", "preview", *common]
    assert preview_command(installation, RecoveryTarget()) is None


def test_what_starts_the_embedded_server_is_a_command_of_ours(installation: Installation) -> None:
    assert start_command(installation, Path("/srv/data")) == own_command(FILE, "up")


def test_what_doctor_tells_to_run_runs_as_it_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _show(failed("catalog", "it is not there", "lifeboat catalog migrate\nAs the owner."), FILE)
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"          fix: {own_command(FILE, 'catalog', 'migrate')}",
        "               As the owner.",
    ]


def test_a_restore_to_another_timeline_loses_the_current_one() -> None:
    latest, of_time = RecoveryTarget(), RecoveryTarget(TargetKind.TIME, at=AT)
    since = "everything that was committed after 2026-11-22 14:03:22.000500 UTC"
    assert losses(latest, 2, 2) == []
    assert losses(of_time, 2, 2) == [since]
    assert losses(latest, 1, 2) == ["everything that only the current timeline, 2, has"]
    assert losses(of_time, 1, 2) == [since, "everything that only the current timeline, 2, has"]
