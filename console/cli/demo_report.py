"""What the demo shows at its end."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.settings.own_command import own_command

_WIDTH_WITHOUT_TERMINAL = 150
_UNITS = ("B", "kB", "MB", "GB")


class DemoFailed(LifeboatError):
    """A step of the demo did not do what it should."""


@dataclass
class Step:
    """One step: what it did, how long it took, and how that was checked."""

    name: str
    seconds: float = 0.0
    size_bytes: int = 0
    evidence: str = ""
    passed: bool = False
    url: str = ""

    def fail(self, why: str) -> None:
        """Mark the step failed, for a reason."""
        self.passed, self.evidence = False, why


def print_report(
    steps: list[Step], total_seconds: float, settings: Path, installation: Installation, looks: Sequence[str] = ()
) -> None:
    """The table of steps and where to look next; `looks` are lines on what the demo left behind."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, title="Lifeboat demo", title_justify="left")
    for name, justify in (("step", "left"), ("", "left"), ("time", "right"), ("size", "right"), ("evidence", "left")):
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in {"step", "time", "size"})  # type: ignore[arg-type]
    for step in steps:
        mark = Text("ok", "green") if step.passed else Text("FAILED", "bold red")
        size = size_text(step.size_bytes) if step.size_bytes else ""
        table.add_row(step.name, mark, f"{step.seconds:.1f} s", size, Text(step.evidence))
    console.print(table)
    passed = all(step.passed for step in steps)
    console.print(f"{'All steps did what they should' if passed else 'The demo FAILED'}, in {total_seconds:.0f} s.")
    look = own_command(settings, "up")
    console.print(Text(f"\nThe demo has stopped its services. To look around: {look}"), soft_wrap=True)
    for step in steps:
        if step.url:
            console.print(f"  {step.name}: {step.url}", soft_wrap=True)
    console.print(f"  all runs and artifacts: {installation.settings.prefect.ui_url}/runs", soft_wrap=True)
    console.print(
        f"  backups: {installation.destination().describe()}/{installation.settings.platform.cluster}", soft_wrap=True
    )
    for line in looks:
        console.print(Text(f"  {line}"), soft_wrap=True)


def size_text(size_bytes: int) -> str:
    """A size in decimal units, as disks are sold."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"
