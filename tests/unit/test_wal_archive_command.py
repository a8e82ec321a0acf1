"""Arguments, settings and exit codes of the archive program: what the server's recovery acts on."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.wal import command_line
from lifeboat.wal.archive_program import layout
from lifeboat.wal.archive_program.__main__ import main
from lifeboat.wal.archive_program.layout import ArchiveError
from lifeboat.wal.archive_program.push import push
from tests.support.wal import ArchiveForTest, make_archive, make_segment

NAME = "000000010000000000000007"
OTHER = "000000010000000000000008"


@pytest.fixture
def archive(tmp_path: Path) -> ArchiveForTest:
    return make_archive(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "exactly the keys"),
        ({"format": 2}, "format 2 is not 1"),
        ({"retries": "3"}, "retries must be of type int"),
        ({"compression_level": True}, "compression_level must be of type int"),
    ],
)
def test_config_that_is_not_understood_is_refused(
    archive: ArchiveForTest, change: dict[str, object], message: str
) -> None:
    path = archive.work / "wal.json"
    path.write_text(json.dumps(archive.config.model_dump() | change))
    with pytest.raises(ArchiveError, match=message):
        layout.load_config(str(path))


@pytest.fixture
def config_path(archive: ArchiveForTest) -> str:
    path = archive.work / "wal.json"
    path.write_text(archive.config.model_dump_json())
    return str(path)


def test_exit_codes_of_a_push(archive: ArchiveForTest, config_path: str, capfd: pytest.CaptureFixture[str]) -> None:
    source = archive.source(NAME, make_segment(NAME))
    push_it = ["push", "--config", config_path, source, NAME]
    assert main(push_it) == main(push_it) == 0
    assert capfd.readouterr().err == ""
    for arguments in (
        ["push", "--config", config_path, archive.source("x", make_segment(NAME, filling=5)), NAME],
        ["push", "--config", "/nowhere/wal.json", source, NAME],
        ["push", "--config", config_path, source],
        ["push", source, NAME],
        ["push", "--config"],
        ["push"],
        ["push", "--config", config_path, str(archive.work / "line\nbreak"), NAME],
        ["push", "--config", config_path, "nul\0byte", OTHER],
    ):
        assert main(arguments) == 1
        said = capfd.readouterr().err
        assert said.startswith("lifeboat wal push")
        assert said.count("\n") == 1
        assert " HINT: " in said


def test_exit_codes_of_a_fetch(archive: ArchiveForTest, config_path: str, capfd: pytest.CaptureFixture[str]) -> None:
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    target = str(archive.work / "out")
    assert main(["fetch", "--config", config_path, target, NAME]) == 0
    for absent in (OTHER, "00000002.history", f"{NAME}.partial", "000000090000000900000009"):
        assert main(["fetch", "--config", config_path, target, absent]) == 1
        assert main(["fetch", "--config", config_path, "--absent-code", "44", target, absent]) == 44
    assert capfd.readouterr().err == ""
    for arguments in (
        ["fetch", "--config", config_path, target, "RECOVERYXLOG"],
        ["fetch", "--config", config_path, "/nowhere/out", NAME],
        ["fetch", "--config", "/nowhere/wal.json", target, NAME],
        ["fetch", "--config", config_path, target],
        ["fetch", "--config", config_path, "--absent-code", "x", target, OTHER],
        ["fetch"],
        ["unknown"],
        [],
    ):
        assert main(arguments) == 255
        assert capfd.readouterr().err.startswith("lifeboat wal ")


def test_fetch_tries_again_before_it_gives_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = make_archive(tmp_path, retries=10, retry_delay_seconds=0.001)
    push(archive.program_config, archive.source(NAME, make_segment(NAME)), NAME)
    path = archive.work / "wal.json"
    path.write_text(archive.config.model_dump_json())
    away = archive.work / "away"
    archive.folder.rename(away)
    mounted_again = threading.Timer(0.05, away.rename, [archive.folder])
    mounted_again.start()
    assert main(["fetch", "--config", str(path), str(archive.work / "out"), NAME]) == 0
    mounted_again.join()
    assert "trying again" in capfd.readouterr().err


@pytest.fixture
def signal_handlers() -> Iterator[None]:
    """The fast path takes over signals, as a process of its own may."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signal_handlers")
def test_fast_path_claims_push_and_fetch_only(
    archive: ArchiveForTest, config_path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.claims(["lifeboat", "wal", "push", "x"])
    assert command_line.claims(["lifeboat", "wal", "fetch"])
    assert not command_line.claims(["lifeboat", "wal", "status"])
    assert not command_line.claims(["lifeboat"])
    source = archive.source(NAME, make_segment(NAME))
    assert command_line.main(["lifeboat", "wal", "push", source, NAME]) == 1
    monkeypatch.setenv(command_line.CONFIG_VARIABLE, config_path)
    assert command_line.main(["lifeboat", "wal", "push", source, NAME]) == 0
    assert command_line.main(["lifeboat", "wal", "fetch", "--help"]) == 0
    assert "Exit codes" in capsys.readouterr().out
