"""The activity index: how fast it is built, against `pg_waldump` alone, and how fast a preview answers from it.

    python -m bench.wal_index [--megabytes 256] [--preview-megabytes 1024] [--rounds 3] [--bin-dir DIR]

Three loads fill the archive: the short transactions of pgbench, a mass DELETE, and COPY. For each, `pg_waldump` over
the same segments with its output thrown away is timed against the index run from the compressed archive into the
catalog, alternating, medians compared: pg_waldump gets segments that are unpacked already, we unpack and check them
ourselves. Then previews over an archive of so much WAL are timed. Exit code 1 where a target is missed.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.wal_loads import DATABASE, LOADS, LoadedServer
from bench.wal_preview import time_previews
from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.binaries import PgTools, find_embedded_bin_dir
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.folders import give_to
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.activity.index import build_index
from lifeboat.wal.activity.relation_names import observe_relations
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.archive_program.layout import Config
from lifeboat.wal.archive_program.push import push
from lifeboat.wal.install import WalConfig, prepare_archive
from lifeboat.wal.names import segment_at
from tests.support.postgres import reachable_dir, tools_for

TARGET_RATIO = 0.25
SEGMENT_BYTES = 16 * 1024 * 1024
_MEBIBYTE = 1024 * 1024
_CLUSTER = "bench"


@dataclass(frozen=True)
class Timing:
    """Seconds on the clock, and of the processor (without the catalog's server)."""

    wall: float
    cpu: float


def cpu_seconds() -> float:
    """What this process and its ended children have used so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@dataclass
class Bench(LoadedServer):
    """A loaded server, its archive, and a catalog in a database of its own."""

    catalog: Catalog
    config: WalConfig
    folder: Path
    next_number: int = 0

    def begin(self) -> None:
        """What is archived next begins here."""
        self.run("SELECT pg_switch_wal()")
        self.next_number = -(-self.position() // SEGMENT_BYTES)

    def archive(self) -> list[str]:
        """Archive all that is complete; returns the names."""
        self.run("SELECT pg_logical_emit_message(true, 'bench', 'x')")
        self.run("SELECT pg_switch_wal()")
        names = []
        for number in range(self.next_number, self.position() // SEGMENT_BYTES):
            name = segment_at(number * SEGMENT_BYTES, 1, SEGMENT_BYTES).name
            push(Config(self.config.model_dump()), str(self.cluster.data_dir / "pg_wal" / name), name)
            names.append(name)
        return names

    @property
    def source(self) -> Source:
        """What the index reads."""
        return Source(FilesystemArchive(Path(self.config.path), self.config.cluster), self.cluster.tools, self.folder)

    def dump(self, names: list[str]) -> Timing:
        """pg_waldump alone over these segments, unpacked where the server left them."""
        arguments: list[str | Path] = [
            self.cluster.tools.path("pg_waldump"),
            "--path",
            self.cluster.data_dir / "pg_wal",
        ]
        began, before = time.perf_counter(), cpu_seconds()
        # The last record goes on in a segment that is not asked for: that is no fault here.
        subprocess.run(
            [*arguments, names[0], names[-1]],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self.cluster.tools.user,
            check=False,
        )
        return Timing(time.perf_counter() - began, cpu_seconds() - before)

    def index(self, name: str) -> Timing:
        """An index run over the whole archive, under a name of its own."""
        began, before = time.perf_counter(), cpu_seconds()
        report = build_index(self.source, self.catalog, name)
        if report.stopped:
            raise SystemExit(f"the benchmark's archive cannot be read: {report.stopped}")
        return Timing(time.perf_counter() - began, cpu_seconds() - before)


def start(tools: PgTools, root: Path) -> tuple[Cluster, Catalog]:
    """A server that keeps its WAL, with the tables and the catalog."""
    cluster = Cluster(root / "data", tools, root / "run", 5439)
    cluster.init(extra_args=["--no-sync"])
    settings: dict[str, SettingValue] = {
        "wal_keep_size": "20GB",
        "max_wal_size": "20GB",
        "autovacuum": False,
        "fsync": False,
    }
    cluster.write_settings({"listen_addresses": "", "wal_level": "replica", "full_page_writes": True, **settings})
    cluster.start()
    LoadedServer(cluster).prepare()
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE catalog")
    migrate(cluster.dsn("catalog"))
    return cluster, Catalog(cluster.dsn("catalog"), pool_size=2)


def make_bench(cluster: Cluster, catalog: Catalog, folder: Path) -> Bench:
    """A fresh archive."""
    (folder / "store").mkdir(parents=True)
    folder.chmod(0o711)
    give_to(folder / "store", cluster.tools.user)
    config = WalConfig(
        path=str(folder / "store"),
        cluster=_CLUSTER,
        system_identifier=cluster.controldata()["Database system identifier"],
        segment_size_bytes=SEGMENT_BYTES,
        compression_level=1,
        retries=0,
        retry_delay_seconds=0.1,
        minimum_free_bytes=0,
    )
    prepare_archive(config, user=cluster.tools.user)
    return Bench(cluster, catalog, config, folder)


def compare(bench: Bench, name: str, names: list[str], rounds: int) -> bool:
    """Print one load's figures; whether the target is met."""
    with psycopg.connect(bench.cluster.dsn(DATABASE), autocommit=True) as connection:
        observe_relations(connection, bench.catalog, _CLUSTER)
    megabytes = len(names) * SEGMENT_BYTES / _MEBIBYTE
    theirs, ours = [], []
    for number in range(rounds):
        theirs.append(bench.dump(names))
        ours.append(bench.index(f"{name} {number}"))
    dump, index = statistics.median(each.wall for each in theirs), statistics.median(each.wall for each in ours)
    their_cpu, our_cpu = min(each.cpu for each in theirs), min(each.cpu for each in ours)
    ratio = dump / index
    print(
        f"{name:20}{megabytes:8.0f} MB{dump:10.2f} s{megabytes / dump:8.0f} MB/s{index:10.2f} s"
        f"{megabytes / index:8.0f} MB/s{ratio:8.2f} {'ok' if ratio >= TARGET_RATIO else 'TOO SLOW':10}"
        f"cpu {their_cpu:.2f} s, {our_cpu:.2f} s, ratio {their_cpu / our_cpu:.2f}",
        flush=True,
    )
    return ratio >= TARGET_RATIO


def main() -> int:
    """Make the loads, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--preview-megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bin-dir", type=Path)
    options = parser.parse_args()
    results = []
    with reachable_dir("lifeboat-bench-") as root:
        tools = tools_for(options.bin_dir or find_embedded_bin_dir(), root / "programs")
        cluster, catalog = start(tools, root)
        print(f"PostgreSQL {tools.major}, {len(os.sched_getaffinity(0))} cores")
        print(f"{'':20}{'WAL':>11}{'pg_waldump':>12}{'':13}{'index':>12}{'':13}{'ratio':>8}")
        for name, load in LOADS.items():
            bench = make_bench(cluster, catalog, root / name.replace(" ", "-"))
            load(bench, options.megabytes * _MEBIBYTE, bench.begin)
            results.append(compare(bench, name, bench.archive(), options.rounds))
            shutil.rmtree(bench.folder)
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")
        catalog.close()
        cluster.stop()
        results.append(time_previews(tools, root, options.preview_megabytes, options.rounds))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
