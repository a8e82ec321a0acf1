"""Processes: their output, their end, and what they leave behind."""

import os
import pickle
import time
from pathlib import Path

import psutil
import pytest

from lifeboat import commands


def assert_gone(pid: int) -> None:
    """The process ends; whoever inherited it may take a moment to reap it."""
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


def test_output_and_errors_are_kept_apart() -> None:
    done = commands.run(["sh", "-c", "echo out; echo err >&2"], timeout_seconds=10)
    assert (done.stdout, done.stderr_tail, done.returncode) == ("out\n", "err", 0)


def test_a_failure_carries_program_code_and_words() -> None:
    with pytest.raises(commands.CommandFailed, match="sh ended with exit code 3: too bad") as caught:
        commands.run(["sh", "-c", "echo too bad >&2; exit 3"], timeout_seconds=10)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.program, copy.returncode, str(copy)) == ("sh", 3, str(caught.value))


def test_accepted_codes_are_no_failure() -> None:
    assert commands.run(["sh", "-c", "exit 1"], timeout_seconds=10, accept=(0, 1)).returncode == 1


def test_a_missing_program_is_named() -> None:
    with pytest.raises(commands.ToolMissing, match="no-such-program"):
        commands.run(["no-such-program"], timeout_seconds=10)


def test_secrets_are_redacted_in_lines_and_errors() -> None:
    lines: list[str] = []
    with pytest.raises(commands.CommandFailed) as caught:
        commands.run(
            ["sh", "-c", "echo password=hunter2 >&2; exit 1"],
            timeout_seconds=10,
            secrets=["hunter2"],
            on_stderr_line=lines.append,
        )
    assert lines == ["password=***"]
    assert "hunter2" not in str(caught.value)


def test_a_time_out_ends_the_whole_tree(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 300 & echo $! > {pids}; sleep 300"
    with pytest.raises(commands.CommandTimeout, match="did not end within 1 s"):
        commands.run(["sh", "-c", script], timeout_seconds=1)
    assert_gone(int(pids.read_text()))


def test_orphans_of_a_killed_tool_are_ended(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(commands.CommandFailed, match="killed by signal 9"):
        commands.run(["sh", "-c", f"setsid sleep 300 & echo $! > {pids}; kill -9 $$"], timeout_seconds=30)
    assert_gone(int(pids.read_text()))


def test_what_a_tick_raises_stops_the_program() -> None:
    def full() -> None:
        raise OSError("disk full")

    began = time.monotonic()
    with pytest.raises(OSError, match="disk full"):
        commands.run(["sleep", "300"], timeout_seconds=None, on_tick=full)
    assert time.monotonic() - began < 60


def test_what_a_line_raises_stops_the_program() -> None:
    def refuse(line: str) -> None:
        raise ValueError(line)

    with pytest.raises(ValueError, match="boom"):
        commands.run(["sh", "-c", "echo boom >&2; sleep 300"], timeout_seconds=None, on_stderr_line=refuse)


def test_input_is_fed_and_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 3_000_000)
    assert commands.run(["wc", "-c"], timeout_seconds=10, stdin=b"12345").stdout.strip() == "5"
    with big.open("rb") as stream:
        assert commands.run(["wc", "-c"], timeout_seconds=10, stdin=stream).stdout.strip() == "3000000"
    assert commands.run(["true"], timeout_seconds=10, stdin=b"x" * 3_000_000).returncode == 0


def test_the_environment_is_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "from outside")
    done = commands.run(["env"], timeout_seconds=10, env={"ONLY": "this"})
    assert "ONLY=this" in done.stdout
    assert "from outside" not in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the account")
def test_root_runs_programs_as_the_account_named() -> None:
    assert commands.run(["id", "-un"], timeout_seconds=10, user="nobody").stdout.strip() == "nobody"


class BrokenInput:
    """A stream on a disk that fails."""

    def __init__(self) -> None:
        self.blocks = [b"x" * 100_000]

    def read(self, size: int = -1, /) -> bytes:
        """A block, then an error."""
        if self.blocks:
            return self.blocks.pop()
        raise OSError(5, "Input/output error")


def test_an_input_that_fails_ends_the_program_and_is_raised() -> None:
    with pytest.raises(OSError, match="Input/output error"):
        commands.run(["cat"], timeout_seconds=60, stdin=BrokenInput())
