"""Carries the domain's log lines, which know no Prefect, to the page of the run that they belong to."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.logging import get_run_logger

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]

_DOMAIN = logging.getLogger("lifeboat")
_current: ContextVar[RunLogger | None] = ContextVar("lifeboat_run_log", default=None)
_open: list[RunLogger] = []
_lock = threading.Lock()


class _Forwarder(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Threads that the domain starts have no context: their lines go to the task that began last.
        target = _current.get() or next(iter(_open[-1:]), None)
        if target is not None:
            target.log(record.levelno, "%s", record.getMessage())


@contextmanager
def run_log() -> Iterator[None]:
    """Show what the domain logs, from INFO on, in the log of the present flow or task run."""
    target = get_run_logger()
    token = _current.set(target)
    with _lock:
        _open.append(target)
        if not any(isinstance(handler, _Forwarder) for handler in _DOMAIN.handlers):
            _DOMAIN.addHandler(_Forwarder())
            _DOMAIN.setLevel(min(_DOMAIN.level or logging.INFO, logging.INFO))
            _DOMAIN.propagate = False
    try:
        yield
    finally:
        with _lock:
            _open.remove(target)
        _current.reset(token)
