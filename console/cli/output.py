"""How commands show what they found: tables for people, plain aligned lines for pipes, JSON for programs."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

_GAP = "  "
# Where a progress display is on the terminal, lines have to go through it.
_live: list[Callable[[str], None]] = []


def say(text: str = "") -> None:
    """Write a line of the command's result to stdout."""
    sys.stdout.write(f"{text}\n")


def say_now(text: str) -> None:
    """Write a line to stdout at once, for what runs long and is watched through a pipe."""
    say(text)
    sys.stdout.flush()


def notice(text: str) -> None:
    """Write a line that is not the result to stderr, above a progress display if one is shown."""
    if _live:
        _live[-1](text)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def push_live(write: Callable[[str], None]) -> None:
    """Have `notice` write through a progress display, until `pop_live`."""
    _live.append(write)


def pop_live() -> None:
    """End what `push_live` began."""
    _live.pop()


def say_json(value: Any) -> None:  # noqa: ANN401 - whatever a command found
    """Write a value (models, dataclasses and the usual types) as JSON to stdout."""
    from pydantic_core import to_jsonable_python

    say(json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False))


def say_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Write a table; the columns named in `right` hold numbers. Only a terminal gets lines and colours."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, texts, right)
    else:
        _plain_table(columns, texts, right)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for number, column in enumerate(columns):
        # The first column has what people copy.
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


_STYLES = {
    "ok": "green",
    "completed": "green",
    "warning": "yellow",
    "skipped": "dim",
    "failed": "bold red",
    "crashed": "red",
    "damaged": "bold red",
}
_ANSI = {"green": 32, "yellow": 33, "dim": 2, "red": 31}


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        say(_GAP.join(cells).rstrip())


def mark(status: str, width: int = 0) -> str:
    """A status word, in its colour on a terminal, padded to `width`."""
    colour = _ANSI.get(_STYLES.get(status, "").rpartition(" ")[2]) if sys.stdout.isatty() else None
    padded = status.ljust(width)
    return f"\x1b[{colour}m{padded}\x1b[0m" if colour else padded


class LogLines(logging.Handler):
    """Shows the domain's log lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a warning says that it is one."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        notice(f"{prefix}{record.getMessage()}")
