"""The receiver on real servers: a slot, a spool, and an archive without a gap whatever goes away meanwhile."""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from lifeboat.errors import SettingsError
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.health import check_wal_health
from lifeboat.operations.wal.receive import receive_wal
from lifeboat.operations.wal.status import read_wal_status
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from lifeboat.wal.install import ArchiveNotReady
from lifeboat.wal.names import parse_segment


@dataclass
class Received:
    """A server that does not archive, and an installation that receives its WAL."""

    cluster: Cluster
    installation: Installation

    def value(self, query: str) -> Any:  # noqa: ANN401 - any column
        with connect(self.cluster.dsn(), autocommit=True) as session:
            row = session.execute(query.encode()).fetchone()
        return row[0] if row is not None else None

    def switch(self) -> str:
        """Finish a segment; returns its name."""
        with connect(self.cluster.dsn(), autocommit=True) as session:
            session.execute("CREATE TABLE IF NOT EXISTS public.frames (id int)")
            session.execute("INSERT INTO public.frames SELECT generate_series(1, 1000)")
        return str(self.value("SELECT pg_walfile_name(pg_switch_wal())"))

    def archived(self) -> set[str]:
        return {item.parsed.name for item in read_wal_status(self.installation).listing.files}

    def receivers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                words = process.cmdline()
                if process.name() == "pg_receivewal" and str(self.installation.settings.state_dir) in " ".join(words):
                    found.append(process)
        return found

    @property
    def spool(self) -> Path:
        (found,) = self.installation.settings.state_dir.glob("receive-main-*")
        return found

    def has_spooled(self, names: list[str]) -> bool:
        return all((self.spool / name).exists() for name in names)

    def has_archived(self, names: list[str]) -> bool:
        return set(names) <= self.archived()

    def set_slot_back(self, lsn: int) -> None:
        """Say as pg_receivewal does that all before `lsn`, and no more, has arrived."""
        begin = self.value("SELECT restart_lsn FROM pg_replication_slots")
        with closing(psycopg.connect(self.cluster.dsn(), replication="true", autocommit=True)) as session:
            session.pgconn.exec_(f"START_REPLICATION SLOT lifeboat_receive PHYSICAL {begin}".encode())
            session.pgconn.put_copy_data(b"r" + struct.pack("!qqqqb", lsn, lsn, lsn, 0, 0))
            session.pgconn.flush()
            until(lambda: bool(self.value(f"SELECT restart_lsn - '0/0' = {lsn} FROM pg_replication_slots")))
        until(lambda: not self.value("SELECT active FROM pg_replication_slots"))

    def checkpoint(self) -> None:
        with connect(self.cluster.dsn(), autocommit=True) as session:
            session.execute("CHECKPOINT")

    @contextmanager
    def receiving(self, *, wait: bool = True) -> Iterator[None]:
        stopping = threading.Event()
        thread = threading.Thread(target=receive_wal, args=(self.installation, stopping))
        thread.start()
        try:
            if wait:
                until(lambda: bool(self.value("SELECT count(*) FROM pg_stat_replication")))
            yield
        finally:
            stopping.set()
            thread.join(60)
        assert not thread.is_alive()
        assert not self.receivers()


def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def promote(cluster: Cluster) -> None:
    """Go on, on a timeline of its own, as after a restore; a restored server has no slots."""
    with connect(cluster.dsn(), autocommit=True) as session:
        session.execute("SELECT pg_drop_replication_slot('lifeboat_receive')")
    cluster.stop()
    signal = cluster.data_dir / "recovery.signal"
    signal.touch()
    give_to(signal, cluster.tools.user)
    conf = cluster.data_dir / "postgresql.auto.conf"
    conf.write_text(conf.read_text() + "restore_command = 'false'\n")
    cluster.start()
    with connect(cluster.dsn(), autocommit=True) as session:
        until(lambda: session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,))


@pytest.fixture
def received(each_stopped_cluster: Cluster, reachable_tmp: Path) -> Received:
    cluster = each_stopped_cluster
    cluster.start()
    values = {
        "state_dir": reachable_tmp / "state",
        "platform": {"dsn": cluster.dsn(), "bin_dir": cluster.tools.bin_dir},
        "destinations": {"primary": {"path": reachable_tmp / "store", "minimum_free_bytes": 0}},
        "wal": {"minimum_free_bytes": 0, "receive": True},
        "agent": {"enabled": False},
    }
    return Received(cluster, Installation(Settings.model_validate(values)))


def test_what_the_server_writes_reaches_the_archive(received: Received) -> None:
    with received.receiving():
        names = [received.switch() for _ in range(3)]
        until(lambda: set(names) <= received.archived())
        health = check_wal_health(received.installation)
        assert health.healthy, health.verdict
        # The server says nothing of what a receiver has archived: how much would be lost now is judged by the archive.
        server = health.server
        assert server is not None
        assert server.archiver.last_archived_wal == names[-1]
        assert server.archiver.last_archived_at is not None
        assert server.lag_bytes is not None
        # A receiver that dies is started again, and misses nothing.
        for process in received.receivers():
            process.kill()
        names.append(received.switch())
        until(lambda: set(names) <= received.archived())
    health = check_wal_health(received.installation)
    assert {item.code for item in health.verdict.alerts} == {"receiver-down", "archiving-off"}
    # Later a new receiver goes on where the slot stands.
    names.append(received.switch())
    with received.receiving():
        names.append(received.switch())
        until(lambda: set(names) <= received.archived())
    listing = read_wal_status(received.installation).listing
    assert (listing.gaps, listing.damaged, len(listing.ranges)) == ((), (), 1)


def test_an_archive_that_is_away_is_waited_for(received: Received) -> None:
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        archive = received.installation.destination().path / "main" / "wal"
        archive.rename(archive.with_name("away"))
        names = [received.switch() for _ in range(2)]
        (spool,) = received.installation.settings.state_dir.glob("receive-main-*")
        until(lambda: all((spool / name).exists() for name in names))
        archive.with_name("away").rename(archive)
        until(lambda: set(names) <= received.archived())
        until(lambda: not any((spool / name).exists() for name in names))
    assert read_wal_status(received.installation).listing.gaps == ()


def test_an_archive_that_takes_nothing_is_an_alert(received: Received) -> None:
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        assert check_wal_health(received.installation).healthy
    good = received.installation
    values = good.settings.model_dump()
    values["wal"] |= {"minimum_free_bytes": 1 << 62, "health": {**values["wal"]["health"], "max_lag_seconds": 0.5}}
    received.installation = Installation(Settings.model_validate(values))
    with received.receiving():
        names = [received.switch() for _ in range(2)]
        (spool,) = good.settings.state_dir.glob("receive-main-*")
        until(lambda: all((spool / name).exists() for name in names))
        time.sleep(0.6)
        stalled = check_wal_health(received.installation)
        assert {item.code for item in stalled.verdict.alerts} == {"archiver-stalled"}
        assert "2 finished segments wait" in stalled.verdict.alerts[0].what
        assert "lifeboat wal receive" in stalled.verdict.alerts[0].advice
        # Another host cannot see the spool: the server has the segments still, and knows when it finished them.
        moved = spool.with_name("moved")
        spool.rename(moved)
        unseen = check_wal_health(received.installation)
        moved.rename(spool)
        assert {item.code for item in unseen.verdict.alerts} == {"archiver-stalled"}
    received.installation = good
    with received.receiving():
        until(lambda: set(names) <= received.archived())
        assert check_wal_health(received.installation).healthy


def test_an_archive_that_takes_nothing_from_the_start_is_an_alert(received: Received) -> None:
    values = received.installation.settings.model_dump()
    values["wal"] |= {"minimum_free_bytes": 1 << 62, "health": {**values["wal"]["health"], "max_lag_seconds": 0.5}}
    received.installation = Installation(Settings.model_validate(values))
    with received.receiving():
        names = [received.switch() for _ in range(2)]
        until(partial(received.has_spooled, names))
        assert read_wal_status(received.installation).listing.ranges == ()
        # Seen from another host, which has no such spool.
        spool = received.spool
        moved = spool.rename(spool.with_name("moved"))
        time.sleep(0.6)
        unseen = check_wal_health(received.installation)
        moved.rename(spool)
    assert "archiver-stalled" in {item.code for item in unseen.verdict.alerts}


def test_a_server_that_is_away_is_waited_for(received: Received) -> None:
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        received.cluster.stop(mode="immediate")
        received.cluster.start()
        name = received.switch()
        until(lambda: name in received.archived())
    listing = read_wal_status(received.installation).listing
    assert (listing.gaps, len(listing.ranges)) == ((), 1)


def test_what_is_spooled_is_archived_while_the_server_is_away(received: Received) -> None:
    """Just then a restore needs it; also by a receiver that was started after the server went away."""
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        archive = received.installation.destination().path / "main" / "wal"
        for restarted in (False, True):
            archive.rename(archive.with_name("away"))
            names = [received.switch() for _ in range(2)]
            until(partial(received.has_spooled, names))
            received.cluster.stop(mode="immediate")
            if restarted:
                break
            archive.with_name("away").rename(archive)
            until(partial(received.has_archived, names))
            received.cluster.start()
    archive.with_name("away").rename(archive)
    with received.receiving(wait=False):
        until(lambda: set(names) <= received.archived())


def test_wal_is_received_where_the_archive_was_ready_once(received: Received) -> None:
    store = received.installation.destination().path
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        (store / "main" / "wal" / "archive.json").rename(store / "marker")
        for process in received.receivers():
            process.kill()
        name = received.switch()
        until(partial(received.has_spooled, [name]))
        (store / "marker").rename(store / "main" / "wal" / "archive.json")
        until(lambda: name in received.archived())
    (store / "main" / "wal" / "archive.json").unlink()
    with pytest.raises(ArchiveNotReady):
        receive_wal(received.installation, threading.Event())


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_receiver_goes_on_at_a_new_slot(
    received: Received, caplog: pytest.LogCaptureFixture, interrupted: bool
) -> None:
    """As after a slot that was lost and dropped: the server lacks what follows the spool's unfinished segment."""
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        until(lambda: any(received.spool.glob("*.partial")))
    (unfinished,) = received.spool.glob("*.partial")
    received.value("SELECT pg_drop_replication_slot('lifeboat_receive')")
    for _ in range(3):
        received.switch()
    received.checkpoint()
    if interrupted:
        # The slot is left where pg_receivewal may have set it back to.
        with received.receiving(wait=False):
            until(lambda: "WAL may be missing" in caplog.text)
        received.set_slot_back(parse_segment(unfinished.name[:24]).start_lsn)
    with received.receiving():
        name = received.switch()
        until(lambda: name in received.archived())
    assert f"WAL may be missing in the archive from {unfinished.name} on" in caplog.text
    # The client's own words are English whatever language the server speaks.
    assert "unexpected termination of replication stream" in caplog.text
    # A slot that only stands where the server has nothing, with nothing in the spool, is told of too.
    assert ("the slot is made anew" in caplog.text) == interrupted
    (gap,) = read_wal_status(received.installation).listing.gaps
    assert gap.first.name == unfinished.name[:24]


def test_a_receiver_that_may_not_connect_at_once_loses_nothing(
    received: Received, caplog: pytest.LogCaptureFixture
) -> None:
    """A new slot, and the server refuses the connection: its WAL is there all the same."""
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        until(lambda: any(received.spool.glob("*.partial")))
    received.value("SELECT pg_drop_replication_slot('lifeboat_receive')")
    rules = received.cluster.data_dir / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local replication all reject\n{before}")
    received.cluster.reload()
    with received.receiving(wait=False):
        until(lambda: caplog.text.count("WAL is not received") > 1)
        rules.write_text(before)
        received.cluster.reload()
        name = received.switch()
        until(lambda: name in received.archived())
    assert "WAL may be missing" not in caplog.text
    assert not list(received.spool.glob("*.old"))
    assert read_wal_status(received.installation).listing.gaps == ()


def test_the_receiver_follows_a_server_that_went_back(received: Received, caplog: pytest.LogCaptureFixture) -> None:
    with received.receiving():
        first = received.switch()
        until(lambda: first in received.archived())
        until(lambda: any(received.spool.glob("*.partial")))
    # What was streamed lies ahead of where the server leaves that timeline.
    (unfinished,) = received.spool.glob("*.partial")
    unfinished.rename(unfinished.with_name(f"{unfinished.name[:20]}00FF.partial"))
    promote(received.cluster)
    with received.receiving():
        name = received.switch()
        until(lambda: name in received.archived())
    assert name.startswith("00000002")
    assert "WAL may be missing" in caplog.text
    assert (received.spool / f"{unfinished.name[:20]}00FF.partial.old").exists()


def test_a_slot_that_keeps_nothing_is_made_anew(received: Received) -> None:
    slot = received.installation.settings.wal.receive_slot
    received.value(f"SELECT pg_create_physical_replication_slot('{slot}')")
    with received.receiving():
        name = received.switch()
        until(lambda: name in received.archived())
    assert received.value("SELECT restart_lsn FROM pg_replication_slots") is not None


def test_without_the_setting_nothing_is_received(received: Received) -> None:
    settings = received.installation.settings
    wal = settings.wal.model_copy(update={"receive": False})
    with pytest.raises(SettingsError, match="do not want a WAL receiver"):
        receive_wal(Installation(settings.model_copy(update={"wal": wal})), threading.Event())
