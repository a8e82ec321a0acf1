"""Stanzas: created, checked, upgraded, and refused where they belong to another cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from lifeboat import commands
from lifeboat.engines.engine import IncrementalImpossible, Watch
from lifeboat.engines.pgbackrest.configuration import write_configuration
from lifeboat.engines.pgbackrest.failures import ArchivingNotSet, RepositoryMismatch, RepositoryStopped, StanzaMissing
from lifeboat.engines.pgbackrest.stanza import check_stanza
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.postgres.folders import make_private_dir
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.coverage import WalNotArchived
from tests.support.pgbackrest import BackedUp, Pair, archive, engine_for, new_server, take
from tests.support.postgres import DEBIAN_15, absent, reachable_dir, tools_for


def test_each_pair_is_of_the_versions_that_it_stands_for(pair: Pair) -> None:
    said = commands.run([pair.program, "version"], timeout_seconds=60).stdout.split()
    version = tuple(int(part) for part in said[1].split(".")[:2])
    server = commands.run([pair.tools.path("postgres"), "--version"], timeout_seconds=60).stdout.split()[2]
    if pair.name == "debian 12":
        assert (version, server.partition(".")[0]) == ((2, 45), "15")
    else:
        assert (version >= (2, 55), server.partition(".")[0]) == (True, "17")


def test_a_stanza_is_made_once_and_checked(source: BackedUp) -> None:
    info = source.engine.ensure_stanza()
    identity = source.engine.identity()
    assert info.current is not None
    assert (str(info.current.system_id), info.current.version) == (identity.system_identifier, str(identity.major))
    assert source.engine.ensure_stanza().db == info.db
    check_stanza(source.engine.prepare())
    assert source.engine.prepare().version() >= (2, 45)
    assert source.engine.upgrade_stanza() is False


@pytest.mark.parametrize(
    ("command", "kind"), [("/bin/true", ArchivingNotSet), ("/bin/false pgbackrest", WalNotArchived)]
)
def test_a_server_that_does_not_archive_is_told(source: BackedUp, command: str, kind: type[Exception]) -> None:
    engine = source.with_settings(archive_timeout_seconds=2)
    engine.ensure_stanza()
    with source.connect() as session:
        session.execute(f"ALTER SYSTEM SET archive_command = '{command}'")
    source.server.reload()
    with pytest.raises(kind):
        check_stanza(engine.prepare())
    with pytest.raises(kind):
        take(replace(source, engine=engine), BackupType.FULL)


def test_the_repository_of_another_cluster_is_refused(source: BackedUp, pair: Pair) -> None:
    kept = take(source, BackupType.FULL).label
    with reachable_dir() as root:
        template = Cluster(root / "template", pair.tools, root / "run")
        template.init(extra_args=["--no-sync"])
        other = new_server(root, template.data_dir, pair.tools, port=5434)
        engine = engine_for(other, root, source.destination, pair.program)
        assert engine.identity() != source.engine.identity()
        for attempt in (engine.ensure_stanza, lambda: engine.take(root, BackupType.FULL, "x", None, Watch())):
            with pytest.raises(RepositoryMismatch, match="belongs to the cluster with system identifier"):
                attempt()
        with pytest.raises(RepositoryMismatch):
            engine.upgrade_stanza()
        # Its WAL does not get in either.
        write_configuration(engine.folders.config, engine.configuration(), pair.tools.user)
        segment = next((other.data_dir / "pg_wal").glob("0*"))
        with pytest.raises(RepositoryMismatch):
            engine.program().run("archive-push", segment, doing="pushing")
        # The first server's configuration, which its archive_command uses, is left to it.
        written = source.engine.folders.config.read_text()
        confused = replace(source.engine, connection=engine.connection)
        for misled in (confused.prepare, confused.open_stanza, confused.ensure_stanza, confused.upgrade_stanza):
            with pytest.raises(RepositoryMismatch):
                misled()
        assert source.engine.folders.config.read_text() == written
    assert [item.label for item in source.engine.info().backup] == [kept]


def test_there_is_no_upgrade_without_a_stanza(source: BackedUp) -> None:
    nothing = replace(source.engine, settings=source.engine.settings.model_copy(update={"stanza": "nothing"}))
    for attempt in (nothing.upgrade_stanza, nothing.open_stanza):
        with pytest.raises(StanzaMissing, match="no stanza nothing"):
            attempt()


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)  # an upgrade needs a pgBackRest that knows two versions
def test_an_upgraded_cluster_goes_on_in_the_same_stanza(source: BackedUp, pair: Pair, runtime_dir: Path) -> None:
    identity = source.engine.identity()
    if not (DEBIAN_15 / "postgres").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    with reachable_dir() as root:
        tools = tools_for(DEBIAN_15, runtime_dir)
        template = Cluster(root / "template", tools, root / "run")
        template.init(extra_args=["--no-sync"])
        destination = make_private_dir(root / "store", tools.user)
        old = new_server(root, template.data_dir, tools, port=5434)
        before = engine_for(old, root, destination, pair.program)
        archive(old, before)
        full = before.take(root, BackupType.FULL, "x", None, Watch())
        # Another cluster of a newer version stands for the upgraded one, as it does for pgBackRest.
        after = replace(source.engine, folders=replace(source.engine.folders, repository=before.folders.repository))
        with pytest.raises(RepositoryMismatch, match="after pg_upgrade, `lifeboat pgbackrest upgrade`"):
            after.ensure_stanza()
        assert after.upgrade_stanza() is True
        assert after.upgrade_stanza() is False
        info = after.ensure_stanza()
        assert [entry.version for entry in info.db] == ["15", str(identity.major)]
        # What was taken before is nothing to build on, and nobody goes back.
        with pytest.raises(IncrementalImpossible):
            after.take(root, BackupType.INCREMENTAL, "x", None, Watch())
        with pytest.raises(RepositoryMismatch, match="was this server's once"):
            before.ensure_stanza()
        assert info.system_identifier(info.backup[0]) == full.system_identifier


def test_a_stopped_stanza_says_so(source: BackedUp) -> None:
    program = source.engine.prepare()
    program.run("stop", doing="stopping")
    with pytest.raises(RepositoryStopped):
        take(source, BackupType.FULL)
    program.run("start", doing="starting")
    assert take(source, BackupType.FULL).label


def test_the_socket_of_the_connection_is_the_one_that_is_written(source: BackedUp) -> None:
    text = source.engine.prepare().config.read_text()
    assert f"pg1-socket-path={source.server.socket_dir}\npg1-port={source.server.port}\n" in text
    assert f"pg1-path={source.server.data_dir}\n" in text
    tcp = replace(source.engine, connection=ConnectionInfo.parse(source.server.dsn()).with_parameters(user="postgres"))
    assert tcp.prepare().config.read_text() == text
