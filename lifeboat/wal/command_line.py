"""`lifeboat wal push` and `wal fetch` on the standard library alone, for a start in milliseconds.

The console script asks `claims` before it imports anything else.
"""

import os
import sys
from collections.abc import Sequence

from lifeboat.wal.archive_program.__main__ import run_as_program

CONFIG_VARIABLE = "LIFEBOAT_WAL_CONFIG"
_USAGE = """\
Usage: lifeboat wal push  [--config FILE] PATH NAME
       lifeboat wal fetch [--config FILE] PATH NAME

Archive the WAL file PATH as NAME, or deliver NAME to PATH.
FILE is the rendered wal.json; without it the variable LIFEBOAT_WAL_CONFIG names it.

Exit codes: push 0 archived durably, 1 not archived.
            fetch 0 delivered, 1 surely not in the archive, 255 anything else: recovery must stop.
"""


def claims(argv: Sequence[str]) -> bool:
    """Whether a command line (as in sys.argv) is one for `main`."""
    return list(argv[1:3]) in (["wal", "push"], ["wal", "fetch"])


def main(argv: Sequence[str]) -> int:
    """Run a command line that `claims` accepted and return its exit code (DESIGN 7)."""
    command, words = argv[2], list(argv[3:])
    if words in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE)
        return 0
    if "--config" not in words and os.environ.get(CONFIG_VARIABLE):
        words = ["--config", os.environ[CONFIG_VARIABLE], *words]
    return run_as_program([command, *words])
