"""A real server archives and recovers through the installed commands."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster, ServerStartFailed
from lifeboat.postgres.conf import SettingValue
from lifeboat.postgres.connections import SourceUnavailable, connect
from lifeboat.postgres.folders import give_to, give_tree_to
from lifeboat.settings.wal import WalSettings
from lifeboat.wal.coverage import (
    ArchiveListing,
    ArchiveUnreadable,
    WalNotArchived,
    has_segment,
    scan_archive,
    wait_for_segment,
)
from lifeboat.wal.install import (
    InstalledProgram,
    WalConfig,
    check_archive,
    install_archive_program,
    prepare_archive,
)
from lifeboat.wal.names import ArchiveNameKind, parse_segment
from tests.support.wal import with_mode

SEGMENT_BYTES = 1 << 20
QUICK: dict[str, SettingValue] = {"fsync": False, "max_wal_size": "256MB", "wal_level": "replica"}


@dataclass(frozen=True)
class Archived:
    """A server and its archive."""

    cluster: Cluster
    program: InstalledProgram
    destination: Path

    @property
    def folder(self) -> Path:
        return self.destination / "studio" / "wal"

    def scan(self) -> ArchiveListing:
        return scan_archive(self.destination, "studio")

    def start(self, **settings: SettingValue) -> None:
        archiving: dict[str, SettingValue] = {
            "archive_mode": True,
            "archive_command": self.program.archive_command,
            "archive_timeout": 30,
        }
        self.cluster.write_settings({**QUICK, **archiving, **settings})
        self.cluster.start()

    def switch(self) -> str:
        """Have the current segment archived, wait until it is, return its name."""
        with connect(self.cluster.dsn(), autocommit=True) as connection:
            name = value(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
            lsn = value(connection, "SELECT pg_switch_wal()")
            wait_for_segment(self.destination, "studio", timeline=int(name[:8], 16), lsn=lsn, timeout_seconds=60)
            return name


def value(connection: psycopg.Connection, query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def make_archived(tools: PgTools, root: Path) -> Archived:
    """A server with segments of 1 MB, not started, and an archive for it."""
    cluster = Cluster(root / "data", tools, root / "run", 5434)
    cluster.init(extra_args=["--wal-segsize=1"])
    destination = root / "destination"
    destination.mkdir()
    give_to(destination, tools.user)
    config = WalConfig.of(
        WalSettings(minimum_free_bytes=0, fetch_retries=1, fetch_retry_delay_seconds=0.05),
        destination,
        "studio",
        system_identifier=cluster.controldata()["Database system identifier"],
        segment_size_bytes=SEGMENT_BYTES,
    )
    prepare_archive(config, user=tools.user)
    program = install_archive_program(root / "state of 100%", config, user=tools.user)
    check_archive(program)
    return Archived(cluster, program, destination)


@pytest.fixture
def each_archived(each_pg_tools: PgTools, reachable_tmp: Path) -> Archived:
    return make_archived(each_pg_tools, reachable_tmp)


@pytest.fixture
def archived(pg_tools: PgTools, reachable_tmp: Path) -> Archived:
    return make_archived(pg_tools, reachable_tmp)


def insert_rows(dsn: str, count: int) -> None:
    with connect(dsn, autocommit=True) as connection:
        for start in range(0, count, 1000):
            connection.execute(
                "INSERT INTO public.frames SELECT %s + n, repeat(md5(n::text), 20) FROM generate_series(1, 1000) AS n",
                [start],
            )


def test_under_load_every_segment_reaches_the_archive(each_archived: Archived) -> None:
    archived = each_archived
    archived.start()
    dsn = archived.cluster.dsn()
    with connect(dsn, autocommit=True) as connection:
        first = value(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        connection.execute("CREATE TABLE public.frames (id bigint, payload text)")
    writers = [threading.Thread(target=insert_rows, args=(dsn, 8000)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    last = archived.switch()
    listing = archived.scan()
    (only,) = listing.ranges
    # Segments that initdb filled may have been finished before archiving began.
    assert only.first.name <= first
    assert only.last.name == last
    assert only.count > 8
    assert (listing.gaps, listing.damaged, listing.unfinished, listing.unknown) == ((), (), (), ())
    assert listing.segment_size_bytes == SEGMENT_BYTES
    with connect(dsn, autocommit=True) as connection:
        assert value(connection, "SELECT failed_count FROM pg_stat_archiver") == "0"
    compared = 0
    for item in listing.files:
        original = archived.cluster.data_dir / "pg_wal" / item.parsed.name
        if original.exists():
            assert gzip.decompress(item.path.read_bytes()) == original.read_bytes()
            compared += 1
    assert compared > 0


@dataclass(frozen=True)
class Restorable:
    """A copy of a server's data from before its last rows, and the archive that has them."""

    source: Archived
    copy: Cluster
    row_count: int

    def recover(self, **settings: SettingValue) -> None:
        """Start the copy; it replays the archive to its end and promotes."""
        recovery: dict[str, SettingValue] = {
            "restore_command": self.source.program.restore_command,
            "archive_mode": False,
            "recovery_target_timeline": "latest",
        }
        self.copy.write_settings({**QUICK, **recovery, **settings})
        self.copy.start(timeout_seconds=60)
        wait_until(self._is_promoted)

    def _is_promoted(self) -> bool:
        with connect(self.copy.dsn(), autocommit=True) as connection:
            return value(connection, "SELECT pg_is_in_recovery()") == "False"

    def rows(self) -> int:
        with connect(self.copy.dsn(), autocommit=True) as connection:
            return int(value(connection, "SELECT count(*) FROM public.frames"))

    def log(self) -> str:
        return self.copy.log_path.read_text("utf-8", "replace")


def wait_until(is_true: Callable[[], bool], timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@contextmanager
def make_restorable(source: Archived, root: Path) -> Iterator[Restorable]:
    tools = source.cluster.tools
    source.start()
    with connect(source.cluster.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE public.frames (id bigint, payload text)")
    insert_rows(source.cluster.dsn(), 1000)
    tools.run(
        "pg_basebackup",
        ["-D", str(root / "copy"), "-X", "none", "-c", "fast", "-d", source.cluster.dsn()],
        timeout_seconds=60,
    )
    insert_rows(source.cluster.dsn(), 5000)
    source.switch()
    source.cluster.stop()
    copy = Cluster(root / "copy", tools, root / "run", 5435)
    (copy.data_dir / "recovery.signal").touch()
    give_tree_to(copy.data_dir, tools.user)
    yield Restorable(source, copy, 6000)
    copy.stop(mode="immediate")


@pytest.fixture
def each_restorable(each_archived: Archived, reachable_tmp: Path) -> Iterator[Restorable]:
    with make_restorable(each_archived, reachable_tmp) as made:
        yield made


@pytest.fixture
def restorable(archived: Archived, reachable_tmp: Path) -> Iterator[Restorable]:
    with make_restorable(archived, reachable_tmp) as made:
        yield made


def test_recovery_replays_the_archive_and_goes_on_archiving(each_restorable: Restorable) -> None:
    restorable = each_restorable
    source = restorable.source
    before = {item.path for item in source.scan().files}
    restorable.recover(archive_mode=True, archive_command=source.program.archive_command)
    assert restorable.rows() == restorable.row_count
    promoted = Archived(restorable.copy, source.program, source.destination)
    name = promoted.switch()
    assert parse_segment(name, SEGMENT_BYTES).timeline == 2
    listing = source.scan()
    assert before < {item.path for item in listing.files}
    assert (listing.damaged, listing.history_timelines, listing.timelines) == ((), (2,), (1, 2))
    kinds = {item.parsed.kind for item in listing.files}
    assert {ArchiveNameKind.SEGMENT, ArchiveNameKind.HISTORY, ArchiveNameKind.BACKUP} <= kinds
    # The first segment of timeline 2 begins with pages of timeline 1 and is accepted all the same.
    assert [item.first.timeline for item in listing.ranges] == [1, 2]
    with connect(restorable.copy.dsn(), autocommit=True) as connection:
        assert value(connection, "SELECT failed_count FROM pg_stat_archiver") == "0"


def test_recovery_stops_instead_of_promoting_early(restorable: Restorable) -> None:
    source = restorable.source
    last = source.scan().ranges[0].last
    segment = next(source.folder.rglob(f"{last.name}-*.gz"))
    middle = next(source.folder.rglob(f"{last.following(-1).name}-*.gz"))
    for hidden in (source.folder, middle, source.program.program):
        with moved_away(hidden):
            assert_recovery_stops(restorable)
    with moved_away(source.folder):
        source.folder.mkdir()  # an empty mount point
        assert_recovery_stops(restorable)
        source.folder.rmdir()
    with with_mode(source.folder, 0):
        assert_recovery_stops(restorable)
    no_python = source.program.restore_command.replace(str(source.program.python), "/nowhere/python3")
    assert_recovery_stops(restorable, restore_command=no_python)
    content = segment.read_bytes()
    segment.write_bytes(content[: len(content) // 2])
    assert_recovery_stops(restorable)
    segment.write_bytes(content)
    restorable.recover()
    assert restorable.rows() == restorable.row_count


def test_recovery_takes_a_history_that_was_never_archived_from_pg_wal(archived: Archived) -> None:
    """The archive was begun on timeline 2, and got what was left of timeline 1 too: asked first, it must not refuse."""
    recover(archived, archive_mode=False, restore_command="false")
    archived.cluster.stop()
    archived.start()
    name = archived.switch()
    assert name.startswith("00000002")
    archived.cluster.stop()
    assert not list(archived.folder.rglob("*.history-*"))
    assert list(archived.folder.glob("00000001*"))
    recover(archived, restore_command=archived.program.restore_command)
    assert archived.switch().startswith("00000003")


def recover(archived: Archived, **settings: SettingValue) -> None:
    """Start it in recovery, and wait for the end of that."""
    signal = archived.cluster.data_dir / "recovery.signal"
    signal.touch()
    give_to(signal, archived.cluster.tools.user)
    archived.start(**settings)
    with connect(archived.cluster.dsn(), autocommit=True) as connection:
        wait_until(lambda: value(connection, "SELECT pg_is_in_recovery()") == "False")


def assert_recovery_stops(restorable: Restorable, **settings: SettingValue) -> None:
    log_start = len(restorable.log()) if restorable.copy.log_path.exists() else 0
    # It may have reached a consistent state and let us in before it stops.
    with pytest.raises((ServerStartFailed, SourceUnavailable)):
        restorable.recover(**settings)
    wait_until(lambda: not restorable.copy.is_running())
    said = restorable.log()[log_start:]
    assert "child process exited with exit code 255" in said
    assert "selected new timeline" not in said
    assert "archive recovery complete" not in said
    assert restorable.copy.controldata()["Latest checkpoint's TimeLineID"] == "1"


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    away = path.with_name(f"{path.name} away")
    path.rename(away)
    yield
    away.rename(path)


@pytest.mark.parametrize("trouble", ["another system", "Python gone"])
def test_failing_archiver_is_quoted_to_who_waits(archived: Archived, trouble: str) -> None:
    command = archived.program.archive_command
    if trouble == "Python gone":
        command = command.replace(str(archived.program.python), "/nowhere/python3")
    else:
        marker = archived.folder / "archive.json"
        marker.write_text(marker.read_text().replace('"system_identifier": "', '"system_identifier": "9'))
    archived.start(archive_command=command)
    with connect(archived.cluster.dsn(), autocommit=True) as connection:
        name = value(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        lsn = value(connection, "SELECT pg_switch_wal()")
        wait_until(lambda: value(connection, "SELECT failed_count FROM pg_stat_archiver") != "0")
        with pytest.raises(WalNotArchived, match=f"{name} did not reach the archive of studio") as caught:
            wait_for_segment(
                archived.destination,
                "studio",
                timeline=1,
                lsn=lsn,
                timeout_seconds=0.5,
                connection=connection,
            )
    assert f"last with {name} at 20" in str(caught.value.hint)
    assert not has_segment(archived.destination, "studio", name)
    # The archiver said so in one line of the server's log.
    said = archived.cluster.log_path.read_text()
    wanted = "not found" if trouble == "Python gone" else "belongs to system 9"
    assert any(wanted in line for line in said.splitlines())


def test_segments_wait_on_the_server_until_the_archive_is_back(archived: Archived) -> None:
    away = archived.destination / "away"
    archived.folder.rename(away)
    archived.start()
    with connect(archived.cluster.dsn(), autocommit=True) as connection:
        first = value(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        connection.execute("CREATE TABLE public.frames (id bigint, payload text)")
        insert_rows(archived.cluster.dsn(), 3000)
        lsn = value(connection, "SELECT pg_switch_wal()")
        wait_until(lambda: value(connection, "SELECT failed_count FROM pg_stat_archiver") != "0")
        with pytest.raises(ArchiveUnreadable, match="there is no WAL archive"):
            wait_for_segment(archived.destination, "studio", timeline=1, lsn=lsn, timeout_seconds=0)
        away.rename(archived.folder)
        wait_for_segment(archived.destination, "studio", timeline=1, lsn=lsn, timeout_seconds=90)
    (only,) = archived.scan().ranges
    assert only.first.name <= first
    assert only.count > 2
