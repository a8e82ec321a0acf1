"""A restored cluster touches nothing of its original's: not the archive, not its primary, not its files in /etc."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_to, give_tree_to
from lifeboat.postgres.isolation import IsolationRefused, isolate
from lifeboat.postgres.scratch import ScratchCluster, scratch_cluster
from tests.support.postgres import reachable_dir

Listing = dict[str, tuple[int, int, int]]


class Source:
    """A production-like server that archives into a folder, and a base backup of it."""

    def __init__(self, cluster: Cluster, archive: Path, backup: Path) -> None:
        self.cluster, self.archive, self.backup = cluster, archive, backup

    def listing(self) -> Listing:
        """The archive as it is: any new, changed or replaced file shows."""
        found = {path.name: path.stat() for path in self.archive.iterdir()}
        return {name: (stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in found.items()}

    def restore_into(self, scratch: ScratchCluster) -> Path:
        """Copy the base backup's files, as a restore would."""
        shutil.copytree(self.backup, scratch.data_dir, symlinks=True)
        give_tree_to(scratch.data_dir, scratch.tools.user)
        return scratch.data_dir


@pytest.fixture(scope="module")
def source(each_pg_tools: PgTools, each_template: Path) -> Iterator[Source]:
    """The source is stopped before a test starts: what moves in the archive afterwards comes from a copy."""
    with reachable_dir() as path:
        archive = path / "archive"
        archive.mkdir()
        give_to(archive, each_pg_tools.user)
        cluster = Cluster(path / "data", each_pg_tools, path / "run")
        shutil.copytree(each_template, cluster.data_dir, symlinks=True)
        give_tree_to(cluster.data_dir, each_pg_tools.user)
        cluster.write_settings({"listen_addresses": "", "max_connections": 150, "max_prepared_transactions": 7})
        cluster.start()
        with connect(cluster.dsn(), autocommit=True) as connection:
            # By ALTER SYSTEM, since that overrides postgresql.conf in a restored copy.
            connection.execute("ALTER SYSTEM SET archive_mode = 'on'")
            connection.execute(f'ALTER SYSTEM SET archive_command = \'cp "%p" "{archive}/%f"\'')
        cluster.stop()
        cluster.start()
        with connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE public.facts AS SELECT generate_series(1, 100) AS id")
        each_pg_tools.run(
            "pg_basebackup",
            ["-D", path / "backup", "-X", "stream", "-c", "fast", "--no-sync"],
            connection=ConnectionInfo.parse(cluster.dsn()),
            timeout_seconds=60,
        )
        with connect(cluster.dsn(), autocommit=True) as connection:
            connection.execute("INSERT INTO public.facts SELECT generate_series(101, 150)")
        cluster.stop()
        yield Source(cluster, archive, path / "backup")


@pytest.fixture
def scratch(each_pg_tools: PgTools, reachable_tmp: Path) -> Iterator[ScratchCluster]:
    """A scratch folder for the copy."""
    with scratch_cluster(each_pg_tools, reachable_tmp / "scratch") as made:
        yield made


def _work_on(cluster: Cluster) -> int:
    """Do all that would make a server archive: fill and switch segments. Returns the rows that were there."""
    with connect(cluster.dsn(), autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM public.facts").fetchone()
        for _ in range(2):
            connection.execute("INSERT INTO public.facts SELECT generate_series(1, 1000)")
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")
    cluster.stop()
    assert row is not None
    return int(row[0])


def test_without_isolation_a_copy_writes_into_the_archive(
    source: Source, scratch: ScratchCluster, tmp_path: Path
) -> None:
    """What the next tests guard against is real: new segments, and others in the place of the source's."""
    source.restore_into(scratch)
    shutil.copytree(source.archive, tmp_path / "archive")
    before = source.listing()
    scratch.cluster.start()
    _work_on(scratch.cluster)
    after = source.listing()
    for name in after:
        (source.archive / name).unlink()
    shutil.copytree(tmp_path / "archive", source.archive, dirs_exist_ok=True)
    give_tree_to(source.archive, scratch.tools.user)

    assert after != before


def test_an_isolated_copy_leaves_the_archive_alone(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    before = source.listing()

    made = isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    made.cluster.start()

    assert _work_on(made.cluster) == 100
    assert source.listing() == before
    assert "archive_mode" in (data_dir / "postgresql.auto.conf.restored").read_text()


def test_a_promoted_copy_leaves_the_archive_alone(source: Source, scratch: ScratchCluster) -> None:
    """Archive recovery ends on a new timeline, whose history file an inherited archive_command would push."""
    data_dir = source.restore_into(scratch)
    before = source.listing()

    made = isolate(
        data_dir,
        tools=scratch.tools,
        socket_dir=scratch.socket_dir,
        recovery={
            "restore_command": f'cp "{source.archive}/%f" "%p"',
            "recovery_target_action": "promote",
        },
    )
    made.cluster.start()
    with connect(made.cluster.dsn(), autocommit=True) as connection:
        for _ in range(100):
            row = connection.execute("SELECT pg_is_in_recovery(), pg_sleep(0.1)").fetchone()
            if row and not row[0]:
                break

    assert _work_on(made.cluster) == 150
    assert source.listing() == before
    assert made.cluster.controldata()["Latest checkpoint's TimeLineID"] == "2"


def test_the_source_limits_are_kept(source: Source, scratch: ScratchCluster) -> None:
    """With lower ones a hot standby stops: "insufficient parameter settings"."""
    data_dir = source.restore_into(scratch)

    made = isolate(
        data_dir,
        tools=scratch.tools,
        socket_dir=scratch.socket_dir,
        source_settings={"max_locks_per_transaction": "300", "max_wal_senders": "3"},
    )
    made.cluster.start()

    with connect(made.cluster.dsn()) as connection:
        shown = {
            name: connection.execute("SELECT current_setting(%s)", [name]).fetchone()
            for name in ("max_connections", "max_prepared_transactions", "max_locks_per_transaction", "max_wal_senders")
        }
    assert shown == {
        "max_connections": ("150",),
        "max_prepared_transactions": ("7",),
        "max_locks_per_transaction": ("300",),
        "max_wal_senders": ("10",),
    }


def test_every_way_out_is_closed(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    with (data_dir / "postgresql.auto.conf").open("a") as file:
        file.write(
            "primary_conninfo = 'host=production'\nprimary_slot_name = 'theirs'\nlisten_addresses = '*'\n"
            "ssl = on\nlogging_collector = on\nsynchronous_standby_names = '*'\n"
            "shared_preload_libraries = 'pg_cron, pg_stat_statements, \"$libdir/no_such_thing\"'\n"
        )
    (data_dir / "standby.signal").touch()
    (data_dir / "pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")

    made = isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    made.cluster.start()

    with connect(made.cluster.dsn(), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
            [
                [
                    *("archive_mode", "archive_library", "primary_conninfo", "primary_slot_name", "ssl"),
                    *("listen_addresses", "max_logical_replication_workers", "logging_collector"),
                    *("synchronous_standby_names", "external_pid_file", "config_file", "event_triggers"),
                ]
            ],
        ).fetchall()
        hba = connection.execute("SELECT type, auth_method FROM pg_hba_file_rules").fetchall()
        workers = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE backend_type IN ('logical replication launcher', 'walreceiver')"
        ).fetchone()
    expected = {
        "archive_library": "",
        "archive_mode": "off",
        "config_file": str(data_dir / "postgresql.conf"),
        "external_pid_file": "",
        "listen_addresses": "",
        "logging_collector": "off",
        "max_logical_replication_workers": "0",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "ssl": "off",
        "synchronous_standby_names": "",
    }
    if scratch.tools.major >= 17:
        expected["event_triggers"] = "off"
    assert dict(rows) == expected
    assert hba == [("local", "trust")]
    assert workers == (0,)
    assert {"pg_cron", "$libdir/no_such_thing"} <= set(made.dropped_libraries)


def test_preloaded_libraries_that_are_safe_and_there_stay(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    wanted = {"shared_preload_libraries": "pg_cron,vector,auto_explain,pgaudit"}

    made = isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir, source_settings=wanted)
    made.cluster.start()

    # The embedded server has vector and no contrib; Debian's has contrib and no vector.
    here = "vector" if scratch.tools.major == 18 else "auto_explain"
    assert made.settings["shared_preload_libraries"] == here
    assert set(made.dropped_libraries) == {"pg_cron", "vector", "auto_explain", "pgaudit"} - {here}


def test_a_debian_layout_needs_no_files_in_etc(source: Source, scratch: ScratchCluster) -> None:
    """There postgresql.conf lies in /etc; a folder may also hold a link to it, and to production's own data."""
    data_dir = source.restore_into(scratch)
    elsewhere = scratch.directory / "etc"
    elsewhere.mkdir()
    give_to(elsewhere, scratch.tools.user)
    theirs = elsewhere / "postgresql.conf"
    theirs.write_text("data_directory = '/var/lib/production'\nhba_file = '/etc/none'\n")
    (data_dir / "postgresql.conf").unlink()
    (data_dir / "postgresql.conf").symlink_to(theirs)
    (data_dir / "pg_hba.conf").unlink()

    made = isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    made.cluster.start()

    with connect(made.cluster.dsn()) as connection:
        assert connection.execute("SELECT current_setting('data_directory')").fetchone() == (str(data_dir),)
    assert theirs.read_text().startswith("data_directory = '/var/lib/production'")


def test_isolating_twice_keeps_the_original_files(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    again = isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)

    assert again.kept_files == ()
    assert "archive_mode" in (data_dir / "postgresql.auto.conf.restored").read_text()
    again.cluster.start()


def test_a_tablespace_of_the_original_is_refused(source: Source, scratch: ScratchCluster) -> None:
    """Two servers in one tablespace folder destroy each other's files."""
    data_dir = source.restore_into(scratch)
    with reachable_dir() as production:
        (data_dir / "pg_tblspc" / "16400").symlink_to(production)
        with pytest.raises(IsolationRefused, match=f"leads to {production}"):
            isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
        isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir, allowed_roots=[production])
        (data_dir / "pg_tblspc" / "16400").unlink()

        # The server makes the links of this file again when it starts.
        (data_dir / "tablespace_map").write_text(f"16400 {production}\n")
        with pytest.raises(IsolationRefused, match="tablespace_map leads to"):
            isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    assert "archive_mode" in (data_dir / "postgresql.auto.conf.restored").read_text()


def test_a_wal_folder_elsewhere_is_refused(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    with reachable_dir() as elsewhere:
        shutil.move(data_dir / "pg_wal", elsewhere / "pg_wal")
        (data_dir / "pg_wal").symlink_to(elsewhere / "pg_wal")

        with pytest.raises(IsolationRefused, match="pg_wal leads to"):
            isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)
    assert not (data_dir / "postgresql.auto.conf.restored").exists()


def test_a_running_server_is_not_reconfigured(source: Source, scratch: ScratchCluster) -> None:
    data_dir = source.restore_into(scratch)
    isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir).cluster.start()

    with pytest.raises(IsolationRefused, match="a server is running"):
        isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir)


@pytest.mark.parametrize("name", ["archive_command", "listen_addresses", "work_mem"])
def test_callers_cannot_open_what_is_closed(source: Source, scratch: ScratchCluster, name: str) -> None:
    data_dir = source.restore_into(scratch)

    with pytest.raises(IsolationRefused, match=f"the setting {name} is not open to change"):
        isolate(data_dir, tools=scratch.tools, socket_dir=scratch.socket_dir, recovery={name: "x"})
