"""What goes wrong while a backup is taken: a clear error, nothing that looks like a backup, the next run works."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from pydantic import SecretStr

from lifeboat.engines.engine import EngineFailed
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.export_configuration import export_configuration
from lifeboat.operations.installation import Installation
from lifeboat.operations.reconcile import reconcile
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import AuthenticationFailed, SourceUnavailable, connect
from lifeboat.postgres.folders import give_to
from lifeboat.postgres.lock import ClusterBusy, LockLost, is_locked
from lifeboat.settings.catalog import CatalogSettings
from lifeboat.storage.destination import DestinationDenied, DestinationFull
from lifeboat.storage.labels import backup_id
from lifeboat.storage.manifest import BackupType
from tests.support.installation import make_installation

FULL = BackupOrder(BackupType.FULL)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount filesystems and drop rights")


def slow(installation: Installation) -> Installation:
    """The same installation with a base backup that takes a good second or more."""
    settings = installation.settings
    engines = settings.engines.model_copy(
        update={
            "basebackup": settings.engines.basebackup.model_copy(
                update={"max_rate_kilobytes_per_second": 8192, "compression_level": 0}
            )
        }
    )
    return Installation(settings.model_copy(update={"engines": engines}))


def with_destination(installation: Installation, path: Path) -> Installation:
    """The same installation with another primary destination."""
    settings = installation.settings
    primary = settings.destinations["primary"].model_copy(update={"path": path})
    destinations = {**settings.destinations, "primary": primary}
    return Installation(settings.model_copy(update={"destinations": destinations}))


def when_running(name: str, act: Callable[[psutil.Process], None]) -> threading.Thread:
    """Do something to the first process of that name that a thread of ours has started."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    # Not the same program asked for its version.
                    if process.name() == name and "--version" not in process.cmdline():
                        time.sleep(0.3)
                        act(process)
                        return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def assert_no_trace(installation: Installation) -> None:
    """Nothing finished, nothing half-written, no process and no replication slot left behind."""
    repository = installation.repository()
    assert repository.labels() == []
    assert repository.unfinished_labels() == []
    tools = {"pg_basebackup", "pg_dump", "pg_dumpall", "tar"}
    assert [p.name() for p in psutil.Process().children(recursive=True) if p.name() in tools] == []
    with connect(installation.source, autocommit=True) as session:
        slots = session.execute("SELECT count(*) FROM pg_replication_slots").fetchone()
    assert slots == (0,)


def assert_next_run_works(installation: Installation) -> None:
    """A backup and its drill."""
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    assert run_drill(installation, DrillOrder(backup.label)).passed


def row_status(installation: Installation, order: BackupOrder, engine: str = "basebackup") -> tuple[str, str | None]:
    """What the catalog says of an ordered backup."""
    row = installation.catalog.backups.get(backup_id(order.set_id, engine, order.type))
    assert row is not None
    return str(row.status), row.error


def test_a_killed_pg_basebackup(installation: Installation) -> None:
    order = BackupOrder(BackupType.FULL)
    killer = when_running("pg_basebackup", lambda process: process.send_signal(signal.SIGKILL))
    with pytest.raises(EngineFailed, match="killed by signal 9"):
        take_backup(slow(installation), order)
    killer.join()
    assert_no_trace(installation)
    status, error = row_status(installation, order)
    assert status == "failed"
    assert "signal 9" in str(error)
    assert_next_run_works(installation)


def test_a_killed_pg_dump(installation: Installation) -> None:
    with connect(installation.source, autocommit=True) as session:
        session.execute("CREATE TABLE public.big AS SELECT md5(i::text) FROM generate_series(1, 1500000) i")
    order = BackupOrder(BackupType.LOGICAL, engine="pg_dump")
    killer = when_running("pg_dump", lambda process: process.send_signal(signal.SIGKILL))
    with pytest.raises(EngineFailed, match="killed by signal 9"):
        take_backup(installation, order)
    killer.join()
    assert_no_trace(installation)
    assert row_status(installation, order, "pg_dump")[0] == "failed"


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")  # so is pytest-xdist's
def test_a_killed_process_of_ours(installation: Installation, tmp_path: Path) -> None:
    """The row says running until reconciling finds the truth; the half-written folder goes with the next backup."""
    order = BackupOrder(BackupType.FULL)
    slowed = slow(installation)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        take_backup(slowed, order)
        os._exit(0)
    _wait_until(lambda: any(p.name() == "pg_basebackup" for p in psutil.Process(pid).children(recursive=True)))
    tool = next(p for p in psutil.Process(pid).children(recursive=True) if p.name() == "pg_basebackup")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    _wait_until(lambda: not tool.is_running() or tool.status() == psutil.STATUS_ZOMBIE)
    assert installation.repository().labels() == []
    assert row_status(installation, order)[0] == "running"
    _wait_until(lambda: _unlocked(installation))
    report = reconcile(installation, grace=timedelta(0))
    assert [status for _, status in report.repaired] == ["crashed"]
    assert row_status(installation, order)[0] == "crashed"
    assert_next_run_works(installation)
    assert installation.repository().unfinished_labels() == []


def _unlocked(installation: Installation) -> bool:
    return is_locked(installation.source, "studio") is None


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


@contextmanager
def small_mount(path: Path, megabytes: int, owner: str | None) -> Iterator[Path]:
    """A tmpfs of that size."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "lifeboat", str(path)], check=True)
    try:
        give_to(path, owner)
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@needs_root
@pytest.mark.parametrize("engine", ["basebackup", "pg_dump"])
def test_a_full_destination(installation: Installation, reachable_tmp: Path, engine: str) -> None:
    with connect(installation.source, autocommit=True) as session:
        session.execute(
            "CREATE TABLE public.big AS SELECT string_agg(md5((i * j)::text), '') AS t "
            "FROM generate_series(1, 3000) i, generate_series(1, 100) j GROUP BY i"
        )
    kind = BackupType.FULL if engine == "basebackup" else BackupType.LOGICAL
    order = BackupOrder(kind, engine=engine)
    with small_mount(reachable_tmp / "small", 3, installation.run_as) as path:
        narrow = with_destination(installation, path)
        with pytest.raises(DestinationFull):
            take_backup(narrow, order)
        assert_no_trace(narrow)
        assert row_status(installation, order, engine)[0] == "failed"
    assert_next_run_works(installation)


@needs_root
def test_a_destination_without_rights(installation: Installation, reachable_tmp: Path) -> None:
    closed = reachable_tmp / "closed"
    closed.mkdir(mode=0o700)
    order = BackupOrder(BackupType.FULL)
    with pytest.raises(DestinationDenied, match="cannot write") as caught:
        take_backup(with_destination(installation, closed), order)
    assert caught.value.hint
    assert list(closed.iterdir()) == []
    assert row_status(installation, order)[0] == "failed"


def test_space_that_runs_out_below_the_minimum_stops_the_backup(installation: Installation) -> None:
    settings = installation.settings
    primary = settings.destinations["primary"].model_copy(update={"minimum_free_bytes": 10**15})
    destinations = {**settings.destinations, "primary": primary}
    greedy = Installation(settings.model_copy(update={"destinations": destinations}))
    with pytest.raises(DestinationFull, match="keeps 1,000,000,000,000,000 free"):
        take_backup(greedy, BackupOrder(BackupType.FULL))
    assert_no_trace(installation)


@contextmanager
def password_wanted(installation: Installation) -> Iterator[None]:
    """The role `keyed`, which the server lets in with the password `right` only."""
    with connect(installation.source, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS keyed")
        session.execute("CREATE ROLE keyed LOGIN SUPERUSER PASSWORD 'right'")
        hba = session.execute("SHOW hba_file").fetchone()
        assert hba is not None
        original = Path(hba[0]).read_text()
        Path(hba[0]).write_text("local all keyed scram-sha-256\nlocal replication keyed scram-sha-256\n" + original)
        session.execute("SELECT pg_reload_conf()")
    try:
        # The reload is asynchronous: until it is done the server asks for no password.
        _wait_until(lambda: _refused(with_password(installation, "nobody's")))
        yield
    finally:
        Path(hba[0]).write_text(original)
        with connect(installation.source, autocommit=True) as session:
            session.execute("SELECT pg_reload_conf()")
            session.execute("DROP ROLE keyed")


def with_password(installation: Installation, password: str, catalog: CatalogSettings | None = None) -> Installation:
    """The same installation as the role `keyed`; its catalog is in the platform's database unless one is given."""
    settings = installation.settings
    dsn = f"host={installation.source.host} port=5432 dbname=studio user=keyed password={password}"
    platform = settings.platform.model_copy(update={"embedded": False, "dsn": SecretStr(dsn)})
    update = {"platform": platform, "catalog": catalog or settings.catalog}
    return Installation(settings.model_copy(update=update))


def _refused(installation: Installation) -> bool:
    try:
        connect(installation.source).close()
    except AuthenticationFailed:
        return True
    return False


@pytest.mark.parametrize("own_catalog", [True, False], ids=["own catalog", "catalog behind the same password"])
def test_a_wrong_password(installation: Installation, own_catalog: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The row says so where the catalog can be reached; behind the same password there is none, and the log says so."""
    catalog = CatalogSettings(dsn=SecretStr(installation.source.dsn)) if own_catalog else None
    order = BackupOrder(BackupType.FULL)
    with password_wanted(installation):
        with pytest.raises(AuthenticationFailed, match="password authentication failed") as caught:
            take_backup(with_password(installation, "hunter2-secret", catalog), order)
        assert "hunter2-secret" not in f"{caught.value} {caught.value.hint} {caplog.text}"
        assert_no_trace(installation)
        if own_catalog:
            status, error = row_status(installation, order)
            assert status == "failed"
            assert "password authentication failed" in str(error)
            assert "hunter2-secret" not in str(error)
        else:
            assert installation.catalog.backups.list_backups(limit=10).rows == []
            assert "the catalog does not know of the failure of backup" in caplog.text
        assert_next_run_works(with_password(installation, "right", catalog))
    (row,) = [row for row in installation.catalog.backups.list_backups(limit=10).rows if row.status == "completed"]
    assert (row.type, row.verified) == (BackupType.FULL, True)


def test_a_server_that_is_down(platform_home: Path, pg_tools: PgTools, reachable_tmp: Path) -> None:
    platform = {"cluster": "studio", "dsn": f"host={reachable_tmp} dbname=studio", "bin_dir": pg_tools.bin_dir}
    gone = make_installation(reachable_tmp, pg_tools, platform=platform)
    with pytest.raises(SourceUnavailable):
        take_backup(gone, BackupOrder(BackupType.FULL))


def test_a_catalog_that_is_down_does_not_stop_a_backup(installation: Installation, reachable_tmp: Path) -> None:
    settings = installation.settings
    catalog = CatalogSettings(dsn=SecretStr(f"host={reachable_tmp} dbname=nothing"), connect_timeout_seconds=2)
    without = Installation(settings.model_copy(update={"catalog": catalog}))
    backup = take_backup(without, BackupOrder(BackupType.FULL))
    assert installation.catalog.backups.get(backup.id) is None
    assert reconcile(installation).adopted == [backup.label]
    row = installation.catalog.backups.get(backup.id)
    assert row is not None
    assert (row.status, row.label, row.size_bytes) == ("completed", backup.label, backup.size_bytes)


def test_a_second_backup_refuses_or_waits(installation: Installation) -> None:
    settings = installation.settings
    refusing = Installation(
        settings.model_copy(update={"backup": settings.backup.model_copy(update={"when_locked": "refuse"})})
    )
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(take_backup, slow(installation), BackupOrder(BackupType.FULL))
        _wait_until(lambda: not _unlocked(installation))
        order = BackupOrder(BackupType.LOGICAL, engine="pg_dump", set_id=uuid4())
        with pytest.raises(ClusterBusy, match="another backup of cluster studio is running"):
            take_backup(refusing, order)
        assert row_status(installation, order, "pg_dump")[0] == "skipped"
        waited = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
        assert waited.started_at >= first.result().completed_at
    labels = installation.repository().labels()
    assert len(labels) == 2


def test_a_lost_lock_stops_the_backup_and_the_next_run_works(installation: Installation) -> None:
    """Whoever holds no lock any more must not go on: another backup may have begun."""

    def end_lock_session(process: psutil.Process) -> None:
        del process
        with connect(installation.source.with_database("postgres"), autocommit=True) as session:
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                " WHERE locktype = 'advisory' AND granted AND objsubid = 2"
            )

    order = BackupOrder(BackupType.FULL)
    killer = when_running("pg_basebackup", end_lock_session)
    with pytest.raises(LockLost):
        take_backup(slow(installation), order)
    killer.join()
    assert_no_trace(installation)
    assert row_status(installation, order)[0] == "failed"
    assert_next_run_works(installation)


def test_an_archive_published_while_leftovers_are_looked_for_stays(installation: Installation) -> None:
    """The configuration archive of a set is written beside the database backup, without the cluster's lock."""
    repository = installation.writable_repository()
    writing = repository.begin(BackupType.CONFIG, datetime.now(UTC) - timedelta(hours=1))
    assert repository.remove_unfinished(writing.label) is False
    exported = export_configuration(installation)
    assert repository.remove_unfinished(exported.label) is False
    assert repository.labels() == [exported.label]
    writing.abandon()


def test_a_published_backup_is_not_taken_back(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel that arrives once the manifest is durable ends the run and not the backup."""

    def cancelled(*args: object, **values: object) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(installation.catalog.backups), "record_completed", cancelled)
    order = BackupOrder(BackupType.LOGICAL, engine="pg_dump")
    with pytest.raises(KeyboardInterrupt):
        take_backup(installation, order)
    monkeypatch.undo()
    (label,) = installation.repository().labels()
    assert list(installation.repository().check_objects(installation.repository().manifest(label))) == []
    assert reconcile(installation).adopted == [label]
    assert row_status(installation, order, "pg_dump") == ("completed", None)
