"""Work that goes on for ever: what fails is told and tried again, each time after a longer pause."""

import logging
import threading
import time
from collections.abc import Callable

import psycopg

from lifeboat.errors import LifeboatError

LOG = logging.getLogger("lifeboat")
LONGEST_PAUSE_SECONDS = 30.0

Work = Callable[[Callable[[], None]], None]


def keep_working(name: str, work: Work, stopping: threading.Event, *, first_pause_seconds: float = 1.0) -> None:
    """Call `work` until `stopping` is set; errors of servers, networks and settings never end it.

    `work` runs until `stopping` is set or something fails, and calls its argument each time that it succeeded.
    """
    failing_since: float | None = None
    pause_seconds = first_pause_seconds

    def succeeded() -> None:
        nonlocal failing_since, pause_seconds
        if failing_since is not None:
            LOG.info("%s: works again after %.0f s", name, time.monotonic() - failing_since)
        failing_since, pause_seconds = None, first_pause_seconds

    while not stopping.is_set():
        try:
            work(succeeded)
        except (LifeboatError, psycopg.Error, OSError) as error:
            if stopping.is_set():
                return
            if failing_since is None:
                failing_since = time.monotonic()
            LOG.warning("%s: %s; trying again in %.0f s", name, _in_one_line(error), pause_seconds)
            stopping.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, LifeboatError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return " ".join(str(error).split()) or type(error).__name__
