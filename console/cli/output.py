"""How commands show what they found: tables for people, plain aligned lines for pipes, JSON for programs."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

_GAP = "  "
# Where a progress display is on the terminal, lines have to go through it.
_live: list[Callable[[str], None]] = []


def say(text: str = "") -> None:
    """Write a line of the command's result to stdout."""
    sys.stdout.write(f"{text}\n")


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
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
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


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, row, widths, strict=True)
        ]
        say(_GAP.join(cells).rstrip())


def size_text(size_bytes: int | None) -> str:
    """A size as people read it: `1.5 GB` (decimal units), `?` for an unknown one."""
    if size_bytes is None:
        return "?"
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.95 else f"{size:.1f} {unit}"


def time_text(moment: datetime | None) -> str:
    """A moment in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""


def duration_text(seconds: float | None) -> str:
    """A duration as people read it: `4.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class LogLines(logging.Handler):
    """Shows the domain's log lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a warning says that it is one."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        notice(f"{prefix}{record.getMessage()}")
