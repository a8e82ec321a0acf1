"""A server of its own that archives, with an installation beside it: what `wal health` looks at."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archive_setup import set_up_archiving
from lifeboat.operations.wal.health import (
    WalHealthReport,
)
from lifeboat.operations.wal.status import read_wal_status
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import connect
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.health import Severity
from lifeboat.wal.health_memory import load_memory, store_memory
from lifeboat.wal.names import Segment


@dataclass
class Watched:
    """An installation beside a server of its own that archives."""

    cluster: Cluster
    values: dict[str, Any]

    @property
    def installation(self) -> Installation:
        return Installation(Settings.model_validate(self.values))

    @property
    def archive(self) -> Path:
        return self.installation.destination().path / "main" / "wal"

    def run(self, *statements: str) -> None:
        with connect(self.cluster.dsn(), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def value(self, query: str) -> Any:  # noqa: ANN401 - any column
        with connect(self.cluster.dsn(), autocommit=True) as session:
            row = session.execute(query.encode()).fetchone()
        return row[0] if row is not None else None

    def switch(self, count: int = 1) -> str:
        """Finish segments, and wait until the last one is archived."""
        name = ""
        for _ in range(count):
            self.run("INSERT INTO public.frames SELECT generate_series(1, 100)")
            name = self.value("SELECT pg_walfile_name(pg_switch_wal())")
        until(lambda: (self.value("SELECT last_archived_wal FROM pg_stat_archiver") or "") >= name)
        return name

    def stored(self, name: str) -> Path:
        (found,) = self.archive.rglob(f"{name}-*.gz")
        return found

    def segments(self) -> list[Segment]:
        listing = read_wal_status(self.installation).listing
        return [item.parsed.segment for item in listing.files if item.parsed.kind == "segment" and item.parsed.segment]

    def forget_seconds(self, seconds: float) -> None:
        """What is remembered of an absent heartbeat is older by that much."""
        destination = self.installation.destination()
        memory = load_memory(destination, "main")
        assert memory.heartbeat_absent_since is not None
        since = memory.heartbeat_absent_since - timedelta(seconds=seconds)
        store_memory(destination, "main", memory.model_copy(update={"heartbeat_absent_since": since}))

    def take(self, kind: BackupType) -> tuple[BackupType, str | None]:
        taken = take_backup(self.installation, BackupOrder(kind))
        return taken.type, taken.reason


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def codes(report: WalHealthReport, severity: Severity = Severity.ALERT) -> list[str]:
    return [item.code for item in report.verdict.findings if item.severity is severity]


@pytest.fixture
def watched(each_stopped_cluster: Cluster, reachable_tmp: Path) -> Watched:
    cluster = each_stopped_cluster
    server: dict[str, SettingValue] = {"listen_addresses": "", "fsync": False}
    if cluster.tools.major > 16:
        server["summarize_wal"] = True
    cluster.write_settings(server)
    cluster.start()
    made = Watched(
        cluster,
        {
            "state_dir": reachable_tmp / "state",
            "platform": {"dsn": cluster.dsn(), "bin_dir": cluster.tools.bin_dir},
            "destinations": {"primary": {"path": reachable_tmp / "store", "minimum_free_bytes": 0}},
            "wal": {"minimum_free_bytes": 0, "segment_timeout_seconds": 60},
            "agent": {"enabled": False},
        },
    )
    made.run(*set_up_archiving(made.installation).statements, "CREATE TABLE public.frames (id int)")
    cluster.stop()
    cluster.start()
    made.switch()
    return made


@contextmanager
def archive_command(watched: Watched, command: str) -> Iterator[None]:
    kept = watched.value("SHOW archive_command").replace("'", "''")
    watched.run(f"ALTER SYSTEM SET archive_command = '{command}'", "SELECT pg_reload_conf()")
    until(lambda: watched.value("SHOW archive_command") == command)
    yield
    watched.run(f"ALTER SYSTEM SET archive_command = '{kept}'", "SELECT pg_reload_conf()")
