"""Restores a backup by the commands in its manifest: stock tools and Python's standard library, nothing of ours.

Usage: stock_restore.py REPOSITORY LABEL, with TARGET, SOCKET and PATH in the environment.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the manifest's steps in order; the exit code is that of the first that fails."""
    repository, label = sys.argv[1:3]
    manifest = json.loads(Path(repository, label, "manifest.json").read_text("utf-8"))
    environment = {**os.environ, "REPOSITORY": repository}
    for step in manifest["restore"]:
        for command in step["commands"]:
            done = subprocess.run(["sh", "-c", command], env=environment, check=False, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                sys.stderr.write(f"{step['title']}: {command}: exit code {done.returncode}\n")
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
