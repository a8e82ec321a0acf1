"""Progress of long work: a live line on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from console.cli.output import notice, pop_live, push_live
from tasks.figures import size_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_PLAIN_INTERVAL_SECONDS = 10.0


class Follower(Protocol):
    """What long work reports to."""

    def phase(self, name: str) -> None:
        """Something new has begun."""
        ...

    def amount(self, done_bytes: int, total_bytes: int | None) -> None:
        """So much of it is done; the total may be unknown."""
        ...


@contextmanager
def follow(title: str) -> Iterator[Follower]:
    """Show the progress of one piece of work on stderr until the context ends."""
    if not sys.stderr.isatty():
        yield _PlainFollower(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    words, amount = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[amount]}", markup=False)
    columns = (SpinnerColumn(), words, BarColumn(bar_width=24), amount, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as display:
        push_live(lambda text: console.print(text, markup=False, highlight=False))
        try:
            yield _LiveFollower(display, title)
        finally:
            pop_live()


class _LiveFollower:
    def __init__(self, display: "RichProgress", title: str) -> None:
        self._display, self._title = display, title
        self._task = display.add_task(title, total=None, amount="")

    def phase(self, name: str) -> None:
        # A task's total cannot be unset: each phase is a task of its own.
        self._display.remove_task(self._task)
        self._task = self._display.add_task(f"{self._title}: {name}", total=None, amount="")

    def amount(self, done_bytes: int, total_bytes: int | None) -> None:
        text = _amount_text(done_bytes, total_bytes)
        self._display.update(self._task, completed=done_bytes, total=total_bytes, amount=text)


class _PlainFollower:
    def __init__(self, title: str) -> None:
        self._title, self._next = title, time.monotonic() + _PLAIN_INTERVAL_SECONDS

    def phase(self, name: str) -> None:
        notice(f"{self._title}: {name}")

    def amount(self, done_bytes: int, total_bytes: int | None) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PLAIN_INTERVAL_SECONDS
        notice(f"{self._title}: {_amount_text(done_bytes, total_bytes)}")


def _amount_text(done_bytes: int, total_bytes: int | None) -> str:
    return size_text(done_bytes) + (f" of {size_text(total_bytes)}" if total_bytes else "")
