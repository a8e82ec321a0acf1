"""Plays the demo and draws what it prints at its end: `python docs/images/picture_demo.py > docs/images/demo.svg`."""

import os
import re
import subprocess
import sys

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 132


def main() -> int:
    """Write the picture to stdout; the exit code is the demo's."""
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    done = subprocess.run(
        ["lifeboat", "demo", *sys.argv[1:]], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w", encoding="utf-8"), force_terminal=True)
    printed = done.stdout.split("\nThe demo has stopped")[0]
    console.print(Text.from_ansi(printed))
    # Rich's own template fetches a font from elsewhere: a picture in a repository must not.
    template = re.sub(r"@font-face \{\{.*?\}\}\s*|\s*<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    sys.stdout.write(console.export_svg(title="make demo", code_format=template))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
