"""Chains in pgBackRest's repository become data directories again: by us, and by stock commands alone."""

import os
import pwd
import shutil
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from lifeboat.engines.engine import Progress, Taken, Watch
from lifeboat.engines.pgbackrest.failures import StanzaMissing
from lifeboat.engines.pgbackrest.restoring import check_stored, restore_backup, spool_folder, tablespace_folder
from lifeboat.engines.pgbackrest.stanza import check_stanza
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import make_private_dir
from lifeboat.postgres.isolation import isolate
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.manifest import BackupType
from tests.support.pgbackrest import BackedUp, manifest_of, take

FULL, INCREMENTAL = BackupType.FULL, BackupType.INCREMENTAL


def fill(source: BackedUp, number: int) -> None:
    """Add a row to a table in each tablespace."""
    with source.connect() as session:
        session.execute("CREATE TABLE IF NOT EXISTS public.kept (id int)")
        session.execute("INSERT INTO public.kept VALUES (%s)", (number,))
        for name in ("hot", "cold"):
            location = source.root / name
            if not location.exists():
                make_private_dir(location, source.server.tools.user)
                session.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(name), str(location)))
            table = sql.Identifier("public", f"in_{name}")
            space = sql.Identifier(name)
            session.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (id int) TABLESPACE {}").format(table, space))
            session.execute(sql.SQL("INSERT INTO {} VALUES (%s)").format(table), (number,))


def take_chain(source: BackedUp) -> list[Taken]:
    """A full backup and two incremental ones, a row later each."""
    taken = []
    for number, kind in enumerate([FULL, INCREMENTAL, INCREMENTAL], start=1):
        fill(source, number)
        taken.append(take(source, kind))
    return taken


def started(source: BackedUp, data_dir: Path, *, restore_command: str = "false") -> Cluster:
    """The restored cluster, isolated and recovered to where the backup ended."""
    recovery = {"restore_command": restore_command, "recovery_target": "immediate", "recovery_target_action": "promote"}
    socket_dir = data_dir.with_name("s")
    cluster = isolate(data_dir, tools=source.server.tools, socket_dir=socket_dir, recovery=recovery).cluster
    cluster.start()
    return cluster


def rows(cluster: Cluster, table: str = "kept") -> list[int]:
    """The ids in a table."""
    with connect(cluster.dsn(), autocommit=True) as session:
        found = session.execute(sql.SQL("SELECT id FROM {} ORDER BY id").format(sql.Identifier("public", table)))
        return [int(row[0]) for row in found]


def test_a_chain_comes_back_with_its_tablespaces(source: BackedUp) -> None:
    chain = [manifest_of(source, item) for item in take_chain(source)]
    fill(source, 4)
    source.server.stop()  # a restore needs no server, and none of its files
    amounts: list[Progress] = []
    for length in (1, 3):
        target = make_private_dir(source.root / f"restored-{length}", source.server.tools.user) / "data"
        source.engine.restore_files(source.repository, chain[:length], target, Watch(on_progress=amounts.append))
        links = {path.resolve() for path in (target / "pg_tblspc").iterdir()}
        assert links == {tablespace_folder(target) / name for name in ("hot", "cold")}
        assert not (target / "tablespace_map").exists()
        cluster = started(source, target)
        for table in ("kept", "in_hot", "in_cold"):
            assert rows(cluster, table) == list(range(1, length + 1))
        cluster.stop()
    assert amounts[-1].done_bytes == amounts[-1].total_bytes


def test_tablespaces_go_where_each_is_told_to(source: BackedUp) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    target = source.root / "elsewhere" / "data"
    make_private_dir(target.parent, source.server.tools.user)
    mapped = {
        oid: make_private_dir(target.parent / oid, source.server.tools.user) for oid in manifest.details["tablespaces"]
    }
    restore_backup(source.engine.reader(), manifest, target, tablespaces=mapped)
    assert {path.name: path.resolve() for path in (target / "pg_tblspc").iterdir()} == mapped
    assert rows(started(source, target), "in_cold") == [1]


def test_a_delta_restore_goes_on_from_files_that_are_there(source: BackedUp) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    target = source.root / "again"
    restore_backup(source.engine.reader(), manifest, target)
    cluster = started(source, target)
    with connect(cluster.dsn(), autocommit=True) as session:
        session.execute("DELETE FROM public.kept")
    cluster.stop()
    oids = manifest.details["tablespaces"]
    spaces = {oid: tablespace_folder(target) / oid for oid in oids}
    for oid, name in zip(sorted(oids, key=int), ("hot", "cold"), strict=True):
        (tablespace_folder(target) / name).rename(spaces[oid])
    before = {path: path.stat().st_ino for path in (target / "base").rglob("*") if path.is_file()}
    source.engine.restore_over(manifest, target, Watch(), spaces)
    assert {path.resolve() for path in (target / "pg_tblspc").iterdir()} == set(spaces.values())
    # What did not differ was left in place.
    assert sum(path.exists() and path.stat().st_ino == number for path, number in before.items()) > len(before) / 2
    cluster = started(source, target)
    assert rows(cluster) == [1]
    assert rows(cluster, "in_hot") == [1]


@pytest.mark.parametrize("archive_async", [False, True], ids=["sync", "async"])
def test_recovery_goes_on_to_a_target_that_the_caller_sets(source: BackedUp, archive_async: bool) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    fill(source, 2)
    with source.connect() as session:
        session.execute("SELECT pg_create_restore_point('before the accident')")
        session.execute("DELETE FROM public.kept")
        for _ in range(4):
            session.execute("SELECT pg_switch_wal()")
            session.execute("INSERT INTO public.kept VALUES (99)")
    check_stanza(source.engine.prepare())
    source.server.stop()
    engine = source.with_settings(archive_async=archive_async)
    target = make_private_dir(source.root / "recovered", source.server.tools.user) / "data"
    engine.restore_files(source.repository, [manifest], target, Watch())
    recovery = {
        "restore_command": engine.restore_command(target),
        "recovery_target_name": "before the accident",
        "recovery_target_action": "promote",
    }
    cluster = isolate(target, tools=source.server.tools, socket_dir=target.with_name("s"), recovery=recovery).cluster
    cluster.start()
    with connect(cluster.dsn(), autocommit=True) as session:
        _await_promotion(session)
    assert rows(cluster) == [1, 2]
    assert spool_folder(target).exists() == archive_async
    if archive_async:
        assert list(spool_folder(target).rglob("archive/*/in"))
    engine.remove_spool(target)
    assert not spool_folder(target).exists()


def test_two_restores_run_side_by_side(source: BackedUp) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    reader, failures = source.engine.reader(), []

    def restore(name: str) -> None:
        try:
            restore_backup(reader, manifest, source.root / name)
        except Exception as error:  # noqa: BLE001 - looked at below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=restore, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_manifests_commands_restore_with_stock_programs(source: BackedUp) -> None:
    taken = take_chain(source)[-1]
    program = source.engine.reader().program
    source.server.stop()
    user = source.server.tools.user
    work = make_private_dir(source.root / "stock", user)
    socket = make_private_dir(work / "s", user)
    programs = make_private_dir(work / "bin", user)
    (programs / "pgbackrest").symlink_to(program)
    environment = {
        "PATH": f"{programs}:{source.server.tools.bin_dir}:{os.environ['PATH']}",
        "REPOSITORY": str(source.destination / "studio"),
        "TARGET": str(work / "data"),
        "TABLESPACES": str(work / "spaces"),
        "SOCKET": str(socket),
        "LC_ALL": "C",
        "TZ": "Asia/Tokyo",
    }
    for step in taken.restore:
        for command in step.commands:
            subprocess.run(
                ["sh", "-c", command],
                env=environment,
                check=True,
                cwd="/",
                stdin=subprocess.DEVNULL,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=() if user else None,
            )
    cluster = Cluster(work / "data", source.server.tools, socket)
    assert rows(cluster, "in_hot") == [1, 2, 3]
    assert taken.tools["pgbackrest"].startswith("2.")


def test_damage_in_the_repository_is_found_and_named(source: BackedUp) -> None:
    full, incremental = (manifest_of(source, item) for item in take_chain(source)[:2])
    reader = source.engine.reader()
    assert check_stored(reader, [full, incremental]) == []
    repository = source.engine.folders.repository
    stored = next((repository / "backup" / "studio" / full.label).rglob("base/1/1255.gz"))
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 0xFF
    stored.write_bytes(data)
    # The incremental backup refers to the file.
    assert f"{full.label} is invalid" in "; ".join(check_stored(reader, [incremental]))
    with pytest.raises(BackupDamaged):
        restore_backup(reader, incremental, source.root / "damaged")
    assert not (source.root / "damaged" / "global" / "pg_control").exists()


def test_a_backup_that_is_gone_is_told_apart_from_a_repository_that_is(source: BackedUp) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    reader = source.engine.reader()
    gone = manifest.model_copy(update={"label": "20200101-000000F"})
    with pytest.raises(BackupDamaged, match="does not have 20200101-000000F any more"):
        restore_backup(reader, gone, source.root / "gone")
    assert "is not in the repository" in check_stored(reader, [gone])[0]
    foreign = manifest.model_copy(update={"system_identifier": "1"})
    with pytest.raises(BackupDamaged, match="is a backup of the cluster"):
        restore_backup(reader, foreign, source.root / "foreign")
    repository = source.engine.folders.repository
    shutil.move(repository, repository.with_name("away"))
    with pytest.raises(StanzaMissing, match="no stanza studio"):
        restore_backup(reader, manifest, source.root / "gone")


def test_recovery_stops_where_the_archive_cannot_be_read(source: BackedUp) -> None:
    fill(source, 1)
    manifest = manifest_of(source, take(source, FULL))
    fill(source, 2)
    with source.connect() as session:
        session.execute("SELECT pg_switch_wal()")
    source.engine.ensure_stanza()
    reader = source.engine.reader()
    target = source.root / "recovering" / "data"
    make_private_dir(target.parent, source.server.tools.user)
    restore_backup(reader, manifest, target)
    source.server.stop()  # with a last segment archived
    repository = source.engine.folders.repository
    repository.rename(repository.with_name("away"))
    recovery = {"restore_command": reader.restore_command()}
    cluster = isolate(target, tools=source.server.tools, socket_dir=target.with_name("s"), recovery=recovery).cluster
    cluster.start(wait=False)
    for _ in range(300):
        if "could not restore file" in (text := cluster.log_path.read_text()) and not cluster.is_running():
            break
        threading.Event().wait(0.1)
    assert "FATAL:  could not restore file" in text
    assert "new timeline" not in text
    assert not cluster.is_running()
    # With the repository back it recovers all that was archived, and is promoted.
    repository.with_name("away").rename(repository)
    cluster.start()
    for _ in range(300):
        with connect(cluster.dsn(), autocommit=True) as session:
            if not (session.execute("SELECT pg_is_in_recovery()").fetchone() or [True])[0]:
                break
        threading.Event().wait(0.1)
    assert rows(cluster) == [1, 2]


def test_a_timeline_switch_is_archived_and_backed_up(source: BackedUp) -> None:
    fill(source, 1)
    before = take(source, FULL)
    with source.connect() as session:
        session.execute("SELECT pg_switch_wal()")
    command = source.engine.prepare().restore_command()
    source.server.stop()
    (source.server.data_dir / "recovery.signal").touch()
    with (source.server.data_dir / "postgresql.auto.conf").open("a") as conf:
        conf.write(f"restore_command = '{command}'\n")
    shutil.chown(source.server.data_dir / "recovery.signal", source.server.tools.user or os.getuid())
    source.server.start()
    with source.connect() as session:
        _await_promotion(session)
        session.execute("SELECT pg_switch_wal()")
    after = take(source, INCREMENTAL)
    assert (before.timeline, after.timeline) == (1, 2)
    target = source.root / "second"
    restore_backup(source.engine.reader(), manifest_of(source, after), target)
    assert rows(started(source, target)) == [1]


def _await_promotion(session: psycopg.Connection[tuple[object, ...]]) -> None:
    for _ in range(300):
        if not (session.execute("SELECT pg_is_in_recovery()").fetchone() or [True])[0]:
            return
        threading.Event().wait(0.1)
    raise AssertionError("it was not promoted")
