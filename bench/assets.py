"""Asset verification against `openssl dgst -sha256` under `xargs -P$(nproc)`, over the same files, in one run.

    python -m bench.assets [--rounds 9] [--megabytes 2000] [--dir DIR] [--cold]

xargs hands out files in portions. Its own default puts thousands into one, so that one process does nearly all; small
portions pay for process starts. Several portions are tried, and the best one is what we are compared with. Rounds
alternate, because a busy machine slows whoever is on. `--cold` drops the page cache before each measurement (root).
Exit code 1 below the target.
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lifeboat.assets.integrity import default_workers, verify_assets
from lifeboat.assets.records import AssetRecord

TARGET_RATIO = 0.9
OURS = f"lifeboat, {default_workers()} threads (default)"
_LARGE_MEGABYTES = (10, 20, 40, 100)
_PORTIONS = (128, 512, 1024, None)
_MEBIBYTE = 1024 * 1024


def write_files(root: Path, megabytes: int) -> list[AssetRecord]:
    """Four large files, the rest of about 100 kB each, in folders of 100."""
    source = random.Random(5)  # noqa: S311 - content of a benchmark
    sizes = [size * _MEBIBYTE for size in _LARGE_MEGABYTES]
    while sum(sizes) < megabytes * _MEBIBYTE:
        sizes.append(int(source.uniform(60_000, 140_000)))
    source.shuffle(sizes)
    records = []
    for number, size_bytes in enumerate(sizes):
        path = f"{number // 100:03d}/{number:06d}.bin"
        content = b"".join(source.randbytes(min(_MEBIBYTE, size_bytes - at)) for at in range(0, size_bytes, _MEBIBYTE))
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_bytes(content)
        records.append(AssetRecord(f"{number:06d}", "bench", path, size_bytes, hashlib.sha256(content).hexdigest()))
    return records


def run_openssl(root: Path, listing: Path, portion: int | None) -> None:
    """What an administrator would write by hand."""
    portions = [] if portion is None else [f"-n{portion}"]
    command = ["xargs", "-0", f"-P{len(os.sched_getaffinity(0))}", *portions, "openssl", "dgst", "-sha256"]
    with listing.open("rb") as names:
        subprocess.run(command, stdin=names, stdout=subprocess.DEVNULL, cwd=root, check=True)


def run_ours(root: Path, records: list[AssetRecord], workers: int | None) -> None:
    """The check as settings would run it."""
    report = verify_assets(records, [root], workers=workers)
    if not report.sound or report.checked != len(records):
        raise SystemExit(f"the benchmark's files are not sound: {report}")


def drop_caches() -> None:
    """Forget what was read: the next read comes from the disk."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("1")


@dataclass(frozen=True)
class Timing:
    """Seconds on the clock, and of all cores together."""

    wall: float
    cpu: float


def measure(
    rounds: int, candidates: dict[str, Callable[[], None]], before: Callable[[], None]
) -> dict[str, list[Timing]]:
    """The timings of each candidate in each round, the candidates taking turns."""
    timings: dict[str, list[Timing]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            before()
            wall, cpu = time.perf_counter(), cpu_seconds()
            run()
            timings[name].append(Timing(time.perf_counter() - wall, cpu_seconds() - cpu))
    return timings


def cpu_seconds() -> float:
    """What this process and its ended children have used so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--dir", type=Path, help="where the files go; nothing means the temporary folder")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    workdir = Path(tempfile.mkdtemp(prefix="lifeboat-bench-", dir=options.dir))
    try:
        root, listing = workdir / "assets", workdir / "names"
        root.mkdir()
        records = write_files(root, options.megabytes)
        listing.write_bytes(b"\0".join(record.path.encode() for record in records))
        cores = len(os.sched_getaffinity(0))
        candidates: dict[str, Callable[[], None]] = {
            f"openssl, xargs -P{cores}" + (f" -n{portion}" if portion else ""): partial(
                run_openssl, root, listing, portion
            )
            for portion in _PORTIONS
        }
        candidates[f"lifeboat, {cores} threads"] = partial(run_ours, root, records, cores)
        candidates[OURS] = partial(run_ours, root, records, None)
        timings = measure(options.rounds, candidates, drop_caches if options.cold else lambda: None)
    finally:
        shutil.rmtree(workdir)
    return report(timings, records, cores, cold=options.cold)


def report(timings: dict[str, list[Timing]], records: list[AssetRecord], cores: int, *, cold: bool) -> int:
    """Print the table and compare our default with the best of openssl."""
    size_bytes = sum(record.size_bytes or 0 for record in records)
    print(f"{len(records):,} files, {size_bytes / 1e6:,.0f} MB, {cores} cores, {'cold' if cold else 'warm'} cache")
    print(f"{'':34}{'median s':>10}{'best s':>10}{'cpu s':>10}{'MB/s':>8}")
    medians = {name: statistics.median(each.wall for each in values) for name, values in timings.items()}
    best = {name: min(each.wall for each in values) for name, values in timings.items()}
    for name, values in timings.items():
        cpu = statistics.median(each.cpu for each in values)
        print(f"{name:34}{medians[name]:10.3f}{best[name]:10.3f}{cpu:10.3f}{size_bytes / medians[name] / 1e6:8.0f}")
    theirs = min((name for name in medians if name.startswith("openssl")), key=medians.__getitem__)
    fastest = min((name for name in best if name.startswith("openssl")), key=best.__getitem__)
    ratio = medians[theirs] / medians[OURS]
    print(
        f"speed of `{OURS}`: {ratio:.2f} x `{theirs}` by median, {best[fastest] / best[OURS]:.2f} x `{fastest}` by best"
    )
    print(f"target {TARGET_RATIO}: {'met' if ratio >= TARGET_RATIO else 'MISSED'}")
    return 0 if ratio >= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
