"""What a foreground program does when it is asked to end."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def at_stop_signals(call: Callable[[], None]) -> Iterator[None]:
    """Call it at each SIGINT, SIGTERM or SIGHUP meanwhile; from the main thread only (`signal.signal`)."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        call()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """An event that these signals set."""
    stopping = threading.Event()
    with at_stop_signals(stopping.set):
        yield stopping
