"""`lifeboat` on a real platform: command lines run in this process, with settings of their own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from console.cli.main import main
from lifeboat.operations.installation import Installation
from lifeboat.settings.loading import CONFIG_VARIABLE


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """What it wrote with --json."""
        return json.loads(self.out)


Run = Callable[..., Ended]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """What runs a command line in this process and returns how it ended; no traceback is ever shown."""

    def run(*words: str, typed: str = "") -> Ended:
        capsys.readouterr()
        monkeypatch.setattr("sys.stdin", StringIO(typed))
        code = main(words)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Ended(code, shown.out, shown.err)

    return run


@pytest.fixture
def settings_file(installation: Installation, reachable_tmp: Path) -> Path:
    """The settings of `installation` as a file."""
    path = reachable_tmp / "lifeboat.toml"
    given = installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    path.write_text(tomlkit.dumps({**given, "retention": {"keep_last": 1, "keep_days": 0}, "prefect": {"port": 1024}}))
    return path


@pytest.fixture
def lifeboat(settings_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, with what somebody types."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(settings_file))
    return runner(monkeypatch, capsys)
