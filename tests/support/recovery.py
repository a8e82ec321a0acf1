"""A server with small segments that archives and is backed up, to be restored from: one for each test."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psycopg
import tomlkit

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import install_archiving
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.coverage import wait_for_segment
from lifeboat.wal.names import parse_lsn, segment_before

SEGMENT_BYTES = 1 << 20
SCHEMA = """
CREATE SCHEMA lifeboat;
CREATE TABLE lifeboat.heartbeat (id smallint PRIMARY KEY, at timestamptz NOT NULL, agent text NOT NULL);
CREATE TABLE public.heartbeats (number int PRIMARY KEY, at timestamptz NOT NULL);
CREATE TABLE public.segments (id int PRIMARY KEY, title text NOT NULL, approved boolean NOT NULL DEFAULT false);
INSERT INTO public.segments SELECT i, 'segment ' || i, i % 3 = 0 FROM generate_series(1, 2000) i;
CREATE TABLE public.notes (id int PRIMARY KEY, body text);
"""


@dataclass(frozen=True)
class RecoveryLab:
    """The source, its archive and destination, all below `root`."""

    root: Path
    cluster: Cluster
    installation: Installation

    @property
    def destination(self) -> Path:
        """Where backups and WAL go."""
        return self.root / "store"

    @property
    def archive(self) -> FilesystemArchive:
        """The WAL archive."""
        return FilesystemArchive(self.destination, "studio")

    @property
    def wal_folder(self) -> Path:
        """Where the archive's files are."""
        return self.destination / "studio" / "wal"

    def start(self, **settings: SettingValue) -> None:
        """Start the source; it archives."""
        control = self.cluster.controldata()
        installed = install_archiving(
            self.installation,
            system_identifier=control["Database system identifier"],
            segment_size_bytes=int(control["Bytes per WAL segment"]),
        )
        quick: dict[str, SettingValue] = {"fsync": False, "max_wal_size": "256MB", "listen_addresses": ""}
        quick["track_commit_timestamp"] = True
        if self.cluster.tools.major >= 17:
            quick["summarize_wal"] = True
        archiving: dict[str, SettingValue] = {"archive_mode": True, "archive_command": installed.archive_command}
        self.cluster.write_settings({**quick, **archiving, "wal_level": "replica", **settings})
        self.cluster.start()

    def run(self, *statements: str) -> None:
        """Run each statement in a transaction of its own."""
        with connect(self.cluster.dsn(), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def rows(self, query: str, dsn: str | None = None) -> list[tuple[Any, ...]]:
        """What a query answers, in the source or elsewhere."""
        with connect(dsn or self.cluster.dsn(), autocommit=True) as session:
            return session.execute(query.encode()).fetchall()

    def value(self, query: str, dsn: str | None = None) -> Any:  # noqa: ANN401 - as SQL types go
        """The first column of the first row."""
        return self.rows(query, dsn)[0][0]

    def moment(self) -> datetime:
        """Now, by the server's clock, with a pause on both sides so that no commit shares it."""
        time.sleep(0.05)
        at = self.value("SELECT clock_timestamp()")
        time.sleep(0.05)
        assert isinstance(at, datetime)
        return at.astimezone(UTC)

    def commit(self, number: int) -> None:
        """One heartbeat with that number."""
        self.run(f"INSERT INTO public.heartbeats VALUES ({number}, clock_timestamp())")

    def switch(self) -> str:
        """Commit something, have the current segment archived, wait until it is; returns its name."""
        with connect(self.cluster.dsn(), autocommit=True) as session:
            session.execute("SELECT pg_logical_emit_message(true, 'lab', 'switch')")
            row = session.execute("SELECT pg_walfile_name(pg_current_wal_lsn()), pg_switch_wal()").fetchone()
            assert row is not None
            timeline = int(row[0][:8], 16)
            wait_for_segment(self.destination, "studio", timeline=timeline, lsn=row[1], timeout_seconds=120)
            return segment_before(parse_lsn(row[1]), timeline, SEGMENT_BYTES).name

    def back_up(self, kind: BackupType = BackupType.FULL, engine: str = "basebackup") -> str:
        """Take a backup; returns its label."""
        return take_backup(self.installation, BackupOrder(kind, engine=engine)).label

    def stored(self, name: str) -> Path:
        """The archived file of a WAL file's name."""
        (found,) = self.wal_folder.rglob(f"{name}-*.gz")
        return found

    def beats(self, at: datetime) -> int:
        """The newest heartbeat that was committed at that moment or before."""
        found = self.value(
            "SELECT coalesce(max(number), 0) FROM public.heartbeats"
            f" WHERE pg_xact_commit_timestamp(xmin) <= '{at.isoformat()}'"
        )
        return int(found)

    def write_settings(self, path: Path) -> Path:
        """Write its settings to a file, for commands and flows."""
        given = self.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        given["platform"]["dsn"] = self.cluster.dsn()
        path.write_text(tomlkit.dumps(given))
        path.chmod(0o600)
        return path

    @contextmanager
    def opened(self, data_dir: Path) -> Iterator[str]:
        """Start a restored cluster as an administrator would; the DSN of its database."""
        cluster = Cluster(data_dir, self.cluster.tools, self.root / "run-restored", 5440)
        cluster.start(timeout_seconds=120)
        try:
            yield cluster.dsn()
        finally:
            cluster.stop()

    @contextmanager
    def load(self, pause_seconds: float = 0.2) -> Iterator[None]:
        """Heartbeats and changes go on while the context lasts."""
        ended, faults = Event(), list[BaseException]()

        def beat() -> None:
            number = self.value("SELECT coalesce(max(number), 0) FROM public.heartbeats")
            try:
                with connect(self.cluster.dsn(), autocommit=True) as session:
                    while not ended.wait(pause_seconds):
                        number += 1
                        session.execute("INSERT INTO public.heartbeats VALUES (%s, clock_timestamp())", (number,))
                        session.execute("INSERT INTO public.notes VALUES (%s, %s)", (1_000_000 + number, "x" * 2000))
            except psycopg.Error as error:
                faults.append(error)

        thread = Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        assert not faults


def make_lab(tools: PgTools, root: Path, **sections: object) -> RecoveryLab:
    """A running source with the tables of SCHEMA; folders below `root` are ended and removed by their owner."""
    cluster = Cluster(root / "source" / "data", tools, root / "run", 5434)
    (root / "source").mkdir()
    give_to(root / "source", tools.user)
    cluster.init(extra_args=["--wal-segsize=1", "--no-sync"])
    (root / "store").mkdir()
    give_to(root / "store", tools.user)
    given: dict[str, object] = {
        "state_dir": root / "state",
        "platform": {"cluster": "studio", "dsn": cluster.dsn(), "bin_dir": tools.bin_dir},
        "destinations": {"primary": {"path": root / "store", "minimum_free_bytes": 0}},
        "wal": {
            "minimum_free_bytes": 0,
            "archive_timeout_seconds": 0,
            "segment_timeout_seconds": 120,
            "fetch_retries": 0,
            "fetch_retry_delay_seconds": 0.05,
        },
        "catalog": {"connect_timeout_seconds": 2},
    }
    installation = Installation(Settings.model_validate({**given, **sections}))
    made = RecoveryLab(root, cluster, installation)
    made.start()
    made.run(SCHEMA)
    return made
