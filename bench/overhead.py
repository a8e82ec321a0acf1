"""What a full-backup flow costs on top of the bare tools, on the same database, in one run.

`python -m bench.overhead [--size-mb 1000] [--rounds 3]` prints a table. Each round runs bare tool and flow one after
the other; the medians are compared. The flow is measured inside its own process from call to return (Prefect's import
and its temporary server are not part of a backup), with the configuration export and all that a flow does. Waiting for
the fingerprint is taken out and reported on its own; that it runs beside the tool and takes processor time is not.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.database import fill
from lifeboat.catalog.migrate import migrate
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import start_platform, stop_platform
from lifeboat.postgres.binaries import find_embedded_bin_dir
from lifeboat.postgres.folders import make_private_dir
from tests.support.postgres import reachable_dir, tools_for

ALLOWED_RATIO, ALLOWED_SECONDS, ALLOWED_MEGABYTES = 1.05, 3.0, 300
SETTINGS = """
state_dir = "{home}/state"
[platform]
cluster = "bench"
embedded = true
database = "bench"
bin_dir = "{bin_dir}"
[destinations.primary]
path = "{home}/store"
"""
# Runs in a process of its own: its memory is the flow's, and Prefect's temporary server is its own.
FLOW = """
import json, resource, sys, time
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness
from flows.full_backup import full_backup
with prefect_test_harness(server_startup_timeout=120):
    began = time.monotonic()
    taken = full_backup(engine=sys.argv[1])[0]
    seconds = time.monotonic() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"seconds": seconds, "memory_mb": memory, "phases": taken.phases, "label": taken.label,
                  "fingerprint": taken.fingerprint_seconds, "size": taken.size_bytes}))
"""


def bare(installation: Installation, engine: str, folder: Path) -> float:
    """Seconds that the bare tool takes, flushed to disk as it does by itself."""
    target = make_private_dir(folder, installation.tools.user) / "out"
    if engine == "basebackup":
        program = "pg_basebackup"
        words = [f"--pgdata={target}", "--format=tar", "--wal-method=fetch", "--compress=client-gzip:1"]
        words += ["--manifest-checksums=SHA256", "--checkpoint=fast"]
    else:
        program = "pg_dump"
        words = [f"--file={target}", "--format=directory", "--jobs=2", "--compress=1"]
    began = time.monotonic()
    installation.tools.run(program, words, connection=installation.source, timeout_seconds=3600)
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


def flow(settings: Path, engine: str) -> dict[str, float]:
    """What a process that runs the flow reports."""
    done = subprocess.run(
        [sys.executable, "-c", FLOW, engine],
        env={"LIFEBOAT_CONFIG": str(settings), "PATH": "/usr/bin:/bin", "HOME": str(settings.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(installation: Installation, settings: Path, engine: str, rounds: int) -> bool:
    """Print one engine's figures; whether they are within what the issue allows."""
    tool_seconds, flow_seconds, own, memory = [], [], [], 0.0
    for number in range(rounds):
        tool_seconds.append(bare(installation, engine, Path(installation.settings.state_dir) / f"bare{number}"))
        result = flow(settings, engine)
        waited = result["phases"]["wait for fingerprint"]  # type: ignore[index]
        flow_seconds.append(result["seconds"] - waited)
        own.append(result["fingerprint"])
        memory = max(memory, result["memory_mb"])
        shutil.rmtree(installation.destination().path / "bench" / str(result["label"]))
        print(
            f"  round {number + 1}: bare {tool_seconds[-1]:.2f} s, flow {flow_seconds[-1]:.2f} s "
            f"(+ {waited:.2f} s waiting for the fingerprint), {result['memory_mb']} MB, {result['phases']}"
        )
    tool, ours = statistics.median(tool_seconds), statistics.median(flow_seconds)
    limit = tool * ALLOWED_RATIO + ALLOWED_SECONDS
    passed = ours <= limit and memory <= ALLOWED_MEGABYTES
    print(
        f"{engine}: bare {tool:.2f} s, flow {ours:.2f} s (ratio {ours / tool:.2f}, allowed {limit:.2f} s), "
        f"fingerprint {statistics.median(own):.2f} s, {memory:.0f} MB: {'ok' if passed else 'TOO MUCH'}"
    )
    return passed


def main() -> int:
    """Build the database, compare both engines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with reachable_dir("lifeboat-bench-") as home:
        tools = tools_for(find_embedded_bin_dir(), home / "programs")
        settings = home / "lifeboat.toml"
        settings.write_text(SETTINGS.format(home=home, bin_dir=tools.bin_dir))
        installation = Installation.load(settings)
        start_platform(installation)
        try:
            migrate(installation.source)
            fill(installation.source.dsn, options.size_mb * 1024 * 1024)
            results = [compare(installation, settings, engine, options.rounds) for engine in ("basebackup", "pg_dump")]
        finally:
            stop_platform(installation)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
