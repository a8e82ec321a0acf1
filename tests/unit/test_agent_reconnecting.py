"""Work that goes on for ever: which errors it outlives, and how long it pauses."""

import logging
import re
import threading
from collections.abc import Callable

import psycopg
import pytest

from lifeboat.agent.notifying import notify_systemd
from lifeboat.agent.reconnecting import LONGEST_PAUSE_SECONDS, keep_working
from lifeboat.errors import PermanentError, TransientError


class Pauses(threading.Event):
    """An event that is not waited for, and remembers how long it would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return self.is_set()


def test_pauses_double_up_to_a_limit_and_begin_anew_after_success(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lifeboat")
    stopping, calls = Pauses(), 0

    def work(succeeded: Callable[[], None]) -> None:
        nonlocal calls
        calls += 1
        if calls == 8:
            succeeded()
            raise OSError("the network is down")
        if calls == 9:
            stopping.set()
            raise TransientError("not told: we are to stop")
        raise (TransientError("the server is away", hint="Start it."), psycopg.OperationalError("a\nb"))[calls % 2]

    keep_working("heartbeat", work, stopping)
    assert stopping.waited == [1, 2, 4, 8, 16, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, 1]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "heartbeat: a b; trying again in 1 s"
    assert said[1] == "heartbeat: the server is away (Start it.); trying again in 2 s"
    assert re.fullmatch(r"heartbeat: works again after \d+ s", said[7])
    assert said[8] == "heartbeat: the network is down; trying again in 1 s"
    assert len(said) == 9


def test_what_nobody_foresaw_is_raised() -> None:
    def work(succeeded: Callable[[], None]) -> None:
        succeeded()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        keep_working("heartbeat", work, Pauses())


def test_permanent_errors_are_tried_again_too() -> None:
    """An administrator may set right what is wrong while we run: a role, a right, a pg_hba.conf."""
    stopping, calls = Pauses(), 0

    def work(succeeded: Callable[[], None]) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise PermanentError("the role may not do this")
        succeeded()
        stopping.set()

    keep_working("heartbeat", work, stopping)
    assert calls == 3


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/at/all")
    assert not notify_systemd("READY=1")
