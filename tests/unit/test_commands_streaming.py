"""Output that is handed on while a program runs: whole, bounded, and ended with everything else."""

import threading
import time
from pathlib import Path

import pytest

from lifeboat import commands
from tests.unit.test_commands import assert_gone


def test_output_is_handed_on_whole_and_not_kept() -> None:
    blocks: list[bytes] = []
    done = commands.run(["seq", "1", "200000"], timeout_seconds=30, on_stdout=blocks.append)
    assert b"".join(blocks) == b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert len(blocks) > 1
    assert done.stdout == ""


def test_a_slow_reader_gets_all_of_it_though_the_program_has_ended() -> None:
    blocks: list[bytes] = []

    def slowly(block: bytes) -> None:
        time.sleep(0.7)
        blocks.append(block)

    commands.run(["sh", "-c", "printf one; sleep 0.1; printf two"], timeout_seconds=30, on_stdout=slowly)
    assert b"".join(blocks) == b"onetwo"


def test_what_the_reader_raises_ends_the_program_and_its_tree(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def refuse(_: bytes) -> None:
        raise ValueError("enough")

    began = time.monotonic()
    with pytest.raises(ValueError, match="enough"):
        commands.run(["sh", "-c", f"sleep 300 & echo $! > {pids}; yes"], timeout_seconds=60, on_stdout=refuse)
    assert time.monotonic() - began < 30
    assert_gone(int(pids.read_text()))


def test_a_failure_after_the_output_is_a_failure() -> None:
    blocks: list[bytes] = []
    with pytest.raises(commands.CommandFailed, match="ended with exit code 3: bad"):
        commands.run(["sh", "-c", "echo out; echo bad >&2; exit 3"], timeout_seconds=10, on_stdout=blocks.append)
    assert blocks == [b"out\n"]


def test_a_time_out_ends_the_tree_and_the_calls() -> None:
    calls: list[float] = []
    with pytest.raises(commands.CommandTimeout):
        commands.run(["sh", "-c", "yes & yes"], timeout_seconds=1, on_stdout=lambda _: calls.append(time.monotonic()))
    count = len(calls)
    assert count > 0
    time.sleep(0.3)
    assert len(calls) == count
    assert "stdout" not in {thread.name for thread in threading.enumerate()}
