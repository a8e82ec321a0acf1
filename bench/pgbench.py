"""pgbench as a load that runs beside what is measured: its per-transaction log is cut into windows of time afterwards.

A line of the log (PostgreSQL's documentation of pgbench, "Per-Transaction Logging"): client, number, latency in
microseconds, script, and when the transaction ended, as seconds since 1970 and microseconds.
"""

import math
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import psycopg

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import ConnectionInfo

CLIENTS, THREADS = 4, 2
_LOG_WAIT_SECONDS = 30.0
_INIT_SECONDS = 600.0
_STATE = (
    "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint,"
    " (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),"
    " (SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver')"
)


class Transaction(NamedTuple):
    """When a transaction ended (seconds since 1970) and how long it took (milliseconds)."""

    ended_at: float
    latency_ms: float


@dataclass(frozen=True)
class Window:
    """A stretch of time (seconds since 1970), the WAL written in it, and segments not archived yet at its end.

    `archiver_cpu_seconds` is what archive_command took of the processors, without what it left in the background.
    """

    began_at: float
    ended_at: float
    wal_bytes: int
    waiting_segments: int
    archiver_cpu_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended_at - self.began_at


@dataclass(frozen=True)
class Figures:
    """What a load reached in one window: per second, milliseconds, bytes per second, cores."""

    tps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    wal_bytes_per_second: float
    waiting_segments: float
    archiver_cores: float
    seconds: float


def parse_log(lines: Iterable[str]) -> Iterator[Transaction]:
    """The transactions of a log; a last line that is still being written is left out. Raises ValueError."""
    for line in lines:
        if not line.endswith("\n"):
            return
        words = line.split()
        # In place of the latency stands a word where the transaction failed: such a run is no measurement.
        if len(words) < 6 or not words[2].isdigit():
            raise ValueError(f"pgbench's log has a transaction without a latency: {line.strip()!r}")
        yield Transaction(int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1000)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the sorted values that at least `percent` of them do not exceed; raises ValueError for none."""
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def figures_of(transactions: Iterable[Transaction], window: Window) -> Figures:
    """The figures of those transactions that ended inside the window; raises ValueError where none did."""
    inside = sorted(each.latency_ms for each in transactions if window.began_at <= each.ended_at < window.ended_at)
    if not inside:
        raise ValueError(f"no transaction ended in a window of {window.seconds:.1f} s")
    return Figures(
        tps=len(inside) / window.seconds,
        p50_ms=percentile(inside, 50),
        p95_ms=percentile(inside, 95),
        p99_ms=percentile(inside, 99),
        wal_bytes_per_second=window.wal_bytes / window.seconds,
        waiting_segments=window.waiting_segments,
        archiver_cores=window.archiver_cpu_seconds / window.seconds,
        seconds=window.seconds,
    )


def fill(tools: PgTools, database: ConnectionInfo, scale: int) -> None:
    """Make pgbench's tables: about 15 MB for each of `scale`."""
    tools.run(
        "pgbench", ["--initialize", f"--scale={scale}", "--quiet"], connection=database, timeout_seconds=_INIT_SECONDS
    )


class _State(NamedTuple):
    wal_bytes: int
    waiting_segments: int
    archiver_cpu_seconds: float


class Stopwatch:
    """Marks windows by the clock, by what the server says of its WAL, and by what its archiver's children have used."""

    def __init__(self, session: psycopg.Connection) -> None:
        self._session = session
        self._began_at, self._began = time.time(), self._state()

    def stop(self) -> Window:
        """The window from the making of this to now."""
        ended_at, ended = time.time(), self._state()
        return Window(
            self._began_at,
            ended_at,
            ended.wal_bytes - self._began.wal_bytes,
            ended.waiting_segments,
            ended.archiver_cpu_seconds - self._began.archiver_cpu_seconds,
        )

    def _state(self) -> _State:
        row = self._session.execute(_STATE).fetchone()
        if row is None:
            raise SystemExit("the server does not say where its WAL is")
        wal, waiting, archiver = row
        used = psutil.Process(archiver).cpu_times() if archiver is not None else None
        return _State(int(wal), int(waiting), used.children_user + used.children_system if used else 0.0)


@dataclass
class Load:
    """A running pgbench and the folder of its log."""

    process: subprocess.Popen[str]
    folder: Path

    def ensure_running(self) -> None:
        """Raise SystemExit when pgbench has ended: what was measured since then had no load."""
        if self.process.poll() is not None:
            _, said = self.process.communicate()
            raise SystemExit(f"pgbench ended too early: {said.strip()[-2000:]}")

    def transactions(self, until: float) -> list[Transaction]:
        """All transactions that ended before `until`, once each thread's log has passed it."""
        give_up_at = time.monotonic() + _LOG_WAIT_SECONDS
        while True:
            self.ensure_running()
            logs = [self._read(path) for path in sorted(self.folder.iterdir())]
            # It writes in blocks: what ended last reaches the file some seconds later.
            if len(logs) == THREADS and all(log and log[-1].ended_at > until for log in logs):
                return [each for log in logs for each in log if each.ended_at <= until]
            if time.monotonic() > give_up_at:
                raise SystemExit(f"pgbench logged nothing for {_LOG_WAIT_SECONDS:g} s")
            time.sleep(0.5)

    @staticmethod
    def _read(path: Path) -> list[Transaction]:
        with path.open(encoding="ascii", newline="\n") as lines:
            return list(parse_log(lines))


@contextmanager
def run_load(
    tools: PgTools, database: ConnectionInfo, folder: Path, *, limit_seconds: float, rate: float | None
) -> Iterator[Load]:
    """Run pgbench until the block ends, or `limit_seconds` have passed; its log goes into the new folder `folder`.

    `rate` is the transactions per second that it tries for; None is as many as it can.
    """
    folder.mkdir()
    words = [f"--client={CLIENTS}", f"--jobs={THREADS}", f"--time={math.ceil(limit_seconds)}"]
    words += ["--log", f"--log-prefix={folder / 'log'}", *([f"--rate={rate:g}"] if rate else [])]
    process = subprocess.Popen(
        [tools.path("pgbench"), *words],
        env={"PATH": "/usr/bin:/bin", **database.env()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Load(process, folder)
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
