"""What WAL archiving and backups cost the server that they protect: pgbench's throughput and latency in each state.

    python -m bench.impact [--minutes 10] [--seconds 5] [--rounds 3] [--archiving-only] [--gentle] [--rate TPS] [--json]

PostgreSQL 18 (the wheel's) with the engines basebackup and pg_dump, PostgreSQL 15 with pgBackRest, fsync on. Each round
starts each server for every way of archiving, forwards and backwards in turn, and once more for the backups; pgbench
runs all the time. Windows of its log are compared: archiving with no archiving in the same round, a backup (a whole
`take_backup` from call to return, its fingerprint and checks included) with the seconds just before it. A checkpoint
comes before each quiet window, so that all pay for full pages alike; no other falls into one but a backup's own.

It stops when another round would not fit into `--minutes`, and needs some GB of disk. A busy machine gives wrong
figures. Only unix sockets are used.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.impact_report import (
    IN_BACKGROUND,
    OFF,
    PRIORITY,
    Sample,
    as_json,
    cost_sentence,
    gentle_settings,
    summarise,
    table,
)
from bench.pgbench import CLIENTS, Load, Stopwatch, Window, figures_of, fill, run_load
from lifeboat.catalog.migrate import migrate
from lifeboat.engines.basebackup import INCREMENTAL_SINCE_MAJOR
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archive_setup import set_up_archiving
from lifeboat.postgres.binaries import find_embedded_bin_dir
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import DEBIAN_15, reachable_dir, tools_for

OWN, PUSH = "Lifeboat's archive_command", "pgBackRest archive-push"
PUSH_ASYNC = f"{PUSH}{IN_BACKGROUND}"
WARM_UP_SECONDS = 2.0
GENTLE_KILOBYTES_PER_SECOND = 16 * 1024
# Only what would fall into a window by chance is kept away; the rest is as PostgreSQL has it.
SERVER_SETTINGS: dict[str, SettingValue] = {
    "listen_addresses": "",
    "checkpoint_timeout": "1h",
    "max_wal_size": "16GB",
    "autovacuum": False,
}


@dataclass(frozen=True)
class Backup:
    """One backup to take under the load; a gentle one with settings that take less of the server."""

    state: str
    engine: str
    kind: BackupType
    gentle: bool = False


def physical(engine: str, *, number: int, gentle: bool) -> tuple[Backup, ...]:
    """The backups of one engine; differential and incremental take turns in coming first."""
    full, *others = (
        Backup(f"{engine} {kind}", engine, kind)
        for kind in (BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL)
    )
    how = "1 process" if engine == "pgbackrest" else f"{GENTLE_KILOBYTES_PER_SECOND // 1024} MB/s"
    slow = (Backup(f"{engine} full, {how}", engine, BackupType.FULL, gentle=True),) if gentle else ()
    return (full, *(others if number % 2 else reversed(others)), *slow)


@dataclass(frozen=True)
class Session:
    """One start of a server: how it archives, and the backups that are taken then; without any, archiving counts."""

    archiving: str
    backups: tuple[Backup, ...] = ()


@dataclass(frozen=True)
class Bed:
    """A server with pgbench's tables, and the sessions of each round."""

    cluster: Cluster
    pgbackrest: bool

    @property
    def name(self) -> str:
        """The server's version."""
        return f"PostgreSQL {self.cluster.tools.version().text}"

    @property
    def database(self) -> ConnectionInfo:
        """Where pgbench's tables are."""
        return ConnectionInfo.parse(self.cluster.dsn())

    def sessions(self, number: int, *, gentle: bool) -> list[Session]:
        """Those of the round `number`: each way of archiving, every second time backwards, then backups."""
        ways = [Session(OFF), Session(OWN), *([Session(PUSH), Session(PUSH_ASYNC)] if self.pgbackrest else [])]
        backups = physical("pgbackrest" if self.pgbackrest else "basebackup", number=number, gentle=gentle)
        if not self.pgbackrest:
            backups = (*backups, Backup("pg_dump", "pg_dump", BackupType.LOGICAL))
        last = Session(PUSH if self.pgbackrest else OWN, backups)
        return [*(ways if number % 2 else reversed(ways)), last]

    def installation(self, folder: Path, archiving: str, *, gentle: bool = False) -> Installation:
        """Lifeboat for this server, with all of its files below `folder`."""
        pgbackrest: dict[str, object] = {
            "archive_async": archiving == PUSH_ASYNC,
            **({"process_max": 1} if gentle else {}),
        }
        basebackup = {"max_rate_kilobytes_per_second": GENTLE_KILOBYTES_PER_SECOND if gentle else None}
        settings = {
            "state_dir": folder / "state",
            "platform": {"cluster": "bench", "dsn": self.cluster.dsn(), "bin_dir": self.cluster.tools.bin_dir},
            "destinations": {"primary": {"path": folder / "store"}},
            "backup": {"engine": "pgbackrest" if archiving in {PUSH, PUSH_ASYNC} else "basebackup"},
            "engines": {"pgbackrest": pgbackrest, "basebackup": basebackup},
        }
        return Installation(Settings.model_validate(settings))


@dataclass(frozen=True)
class Run:
    """What was asked for, and until when (time.monotonic)."""

    folder: Path
    seconds: float
    rate: float | None
    gentle: bool
    backups: bool
    ends_at: float

    @property
    def left_seconds(self) -> float:
        """Until it has to end."""
        return self.ends_at - time.monotonic()


def configure(cluster: Cluster, **more: SettingValue) -> None:
    """Write the server's settings, those of the benchmark and `more`."""
    if cluster.tools.major >= INCREMENTAL_SINCE_MAJOR:
        # Incremental base backups need summaries; they are no part of archiving, so all states have them.
        more["summarize_wal"] = True
    cluster.write_settings({**SERVER_SETTINGS, **more})


def make_bed(folder: Path, bin_dir: Path, programs: Path, scale: int, *, pgbackrest: bool) -> Bed:
    """A stopped server with pgbench's tables and a catalog."""
    tools = tools_for(bin_dir, programs)
    folder.mkdir(mode=0o711)
    give_to(folder, tools.user)
    cluster = Cluster(folder / "data", tools, folder / "run", 5441)
    cluster.init(extra_args=["--no-sync"])
    configure(cluster)
    cluster.start()
    bed = Bed(cluster, pgbackrest)
    fill(tools, bed.database, scale)
    migrate(bed.database)
    cluster.stop()
    return bed


@contextmanager
def started(bed: Bed, archiving: str, folder: Path) -> Iterator[Installation]:
    """The server running and archiving as `archiving` says, with a new repository that goes afterwards."""
    cluster, user = bed.cluster, bed.cluster.tools.user
    # What the installation sets goes before this; where that is taken back, what is left over is thrown away at once.
    configure(cluster, archive_mode=archiving != OFF, archive_command="true")
    for made in (folder, folder / "store"):
        made.mkdir(mode=0o711)
        give_to(made, user)
    installation = bed.installation(folder, archiving)
    cluster.start()
    try:
        if archiving != OFF:
            with closing(connect(bed.database, autocommit=True)) as session:
                for statement in set_up_archiving(installation).statements:
                    session.execute(statement.encode())
        yield installation
    finally:
        with closing(connect(bed.database, autocommit=True)) as session:
            session.execute("ALTER SYSTEM RESET ALL")
            session.execute("SELECT pg_reload_conf()")
        cluster.stop()
        if archiving == PUSH_ASYNC:
            installation.pgbackrest().program().run("stop", "--force", doing="ending what still archives")
        shutil.rmtree(folder)


def quiet(session: psycopg.Connection, seconds: float) -> Window:
    """A window of so many seconds just after a checkpoint, in which nothing but the load runs."""
    session.execute("CHECKPOINT")
    watch = Stopwatch(session)
    time.sleep(seconds)
    return watch.stop()


def during(session: psycopg.Connection, installation: Installation, backup: Backup) -> Window:
    """The window of one backup, from call to return."""
    watch = Stopwatch(session)
    taken = take_backup(installation, BackupOrder(backup.kind, engine=backup.engine))
    if taken.type is not backup.kind:
        raise SystemExit(f"a backup of type {taken.type} was taken instead of {backup.kind}: {taken.reason}")
    window = watch.stop()
    print(f"  {backup.state}, {taken.size_bytes / 1e6:.0f} MB: {taken.phases}", file=sys.stderr)
    return window


def measure(run: Run, bed: Bed, plan: Session, number: int) -> list[Sample]:
    """All windows of one session, cut out of pgbench's log when the last one has passed."""
    folder = run.folder / "session"
    windows: list[tuple[Backup | None, Window, Window | None]] = []
    with started(bed, plan.archiving, folder) as installation:
        gentle = bed.installation(folder, plan.archiving, gentle=True)
        limit = max(run.left_seconds, 0) + 600
        with (
            run_load(bed.cluster.tools, bed.database, folder / "log", limit_seconds=limit, rate=run.rate) as load,
            closing(connect(bed.database, autocommit=True)) as session,
        ):
            time.sleep(WARM_UP_SECONDS)
            if not plan.backups:
                windows.append((None, quiet(session, 2 * run.seconds), None))
            for backup in plan.backups:
                if run.left_seconds <= 0:
                    print(f"no time is left for {backup.state}", file=sys.stderr)
                    continue
                before = quiet(session, run.seconds)
                windows.append((backup, during(session, gentle if backup.gentle else installation, backup), before))
            return list(_samples(load, windows, bed.name, plan.archiving, number))


def _samples(
    load: Load, windows: Sequence[tuple[Backup | None, Window, Window | None]], server: str, archiving: str, number: int
) -> Iterator[Sample]:
    transactions = load.transactions(until=max((window.ended_at for _, window, _ in windows), default=0.0))
    for backup, window, before in windows:
        found = figures_of(transactions, window)
        if backup is None or before is None:
            yield Sample(server, archiving, number, found, None if archiving == OFF else OFF)
        else:
            yield Sample(server, backup.state, number, found, archiving, figures_of(transactions, before))


def run_rounds(run: Run, beds: Sequence[Bed], rounds: int) -> list[Sample]:
    """Round after round, while another one like the longest so far fits into the time that is left."""
    samples: list[Sample] = []
    longest = 0.0
    for number in range(1, rounds + 1):
        if run.left_seconds < longest:
            print(f"another round of {longest:.0f} s does not fit any more", file=sys.stderr)
            break
        began = time.monotonic()
        for bed in beds if number % 2 else reversed(beds):
            for plan in bed.sessions(number, gentle=run.gentle):
                if run.left_seconds <= 0 or (plan.backups and not run.backups):
                    continue
                found = measure(run, bed, plan, number)
                for each in found:
                    print(f"round {number}, {each.server}, {_short(each)}", file=sys.stderr, flush=True)
                samples += found
        longest = max(longest, time.monotonic() - began)
    return samples


def _short(sample: Sample) -> str:
    found, before = sample.figures, sample.reference
    compared = f" (just before it {before.tps:.0f} tx/s, {before.p95_ms:.2f} ms)" if before else ""
    return f"{sample.state}: {found.tps:.0f} tx/s, p95 {found.p95_ms:.2f} ms over {found.seconds:.1f} s{compared}"


def make_beds(root: Path, scale: int) -> list[Bed]:
    """A server for each version that is installed; says what is missing."""
    programs = root / "programs"
    beds = [make_bed(root / "pg18", find_embedded_bin_dir(), programs, scale, pgbackrest=False)]
    if (DEBIAN_15 / "postgres").exists() and shutil.which("pgbackrest"):
        beds.append(make_bed(root / "pg15", DEBIAN_15, programs, scale, pgbackrest=True))
    else:
        print("PostgreSQL 15 or pgBackRest is not installed: its states are left out", file=sys.stderr)
    return beds


def main() -> int:
    """Make the servers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=5, help="window before a backup; of archiving: twice that")
    parser.add_argument("--scale", type=int, default=20, help="of pgbench: 15 MB each")
    parser.add_argument("--rounds", type=int, default=3, help="at most so many")
    parser.add_argument("--rate", type=float, help="transactions per second; nothing means as many as it can")
    parser.add_argument("--gentle", action="store_true", help="full backups with a lower rate or one process too")
    parser.add_argument("--archiving-only", action="store_true", help="no backups: more rounds fit in")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--dir", type=Path, help="where everything goes; nothing means the temporary folder")
    options = parser.parse_args()
    ends_at = time.monotonic() + options.minutes * 60
    # Ended from outside it still stops the servers and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with reachable_dir("lifeboat-impact-", parent=options.dir) as root:
        beds = make_beds(root, options.scale)
        backups = not options.archiving_only
        run = Run(root, options.seconds, options.rate, options.gentle, backups, ends_at)
        samples = run_rounds(run, beds, options.rounds)
    summaries = summarise(samples)
    if options.json:
        print(json.dumps(as_json(summaries, samples), indent=2))
        return 0 if samples else 1
    load = f"{options.rate:g} tx/s" if options.rate else "as many transactions as it can"
    print(f"{len(os.sched_getaffinity(0))} cores, scale {options.scale}, {CLIENTS} clients, {load}\n")
    print(table(summaries))
    print(f"\n{cost_sentence(summaries)}\n\nTo take less of the server, with their defaults:")
    for name, said in gentle_settings():
        print(f"  {name}: {said}")
    print(f"  {PRIORITY}")
    return 0 if samples else 1


if __name__ == "__main__":
    sys.exit(main())
