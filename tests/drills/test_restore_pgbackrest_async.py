"""Restores from a repository that is archived to asynchronously: WAL is got ahead, and nothing of that stays."""

import os
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from lifeboat.engines.pgbackrest.info import read_info
from lifeboat.operations.backup.selection import find_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import make_private_dir
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.storage.manifest import BackupType
from tests.drills.test_restore_pgbackrest import Story, installation_of, newest_in
from tests.support.pgbackrest import BackedUp, Pair


class Died(BaseException):
    """Ends a restore in its midst."""


def asynchronous(source: BackedUp, pair: Pair) -> Installation:
    settings = installation_of(source, pair).settings
    pgbackrest = settings.engines.pgbackrest.model_copy(update={"archive_async": True})
    engines = settings.engines.model_copy(update={"pgbackrest": pgbackrest})
    return Installation(settings.model_copy(update={"engines": engines}))


def left_ahead(source: BackedUp) -> tuple[list[Path], list[str]]:
    """Folders with WAL that was got ahead, and the processes that get it."""
    running = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return list(source.root.rglob("*.spool")), [
        line for line in running if "archive-get:async" in line and str(source.root) in line
    ]


def test_nothing_of_reading_ahead_stays(source: BackedUp, pair: Pair) -> None:
    installation, story = asynchronous(source, pair), Story(source)
    place = make_private_dir(source.root / "space", pair.tools.user)
    with source.connect() as session:
        session.execute(f"CREATE TABLESPACE fast LOCATION '{place}'".encode())
        session.execute("CREATE TABLE public.on_fast TABLESPACE fast AS SELECT 1 AS one")
    label = take_backup(installation, BackupOrder(BackupType.FULL)).label
    story.beat()
    story.beat()
    story.archive()
    manifest = find_backup(installation.repository(), label).manifest
    known = read_info(installation.pgbackrest().reader()).find(label)
    assert known is not None
    # pgBackRest knows the second, cut off.
    assert known.completed_at < manifest.stopped_at <= known.completed_at + timedelta(seconds=1)
    assert manifest.started_at < manifest.stopped_at < story.at[1]

    target = RecoveryTarget(TargetKind.TIME, at=story.at[1])
    report = run_restore(installation, RestoreOrder(target, RestoreTo.parse(f"new:{source.root / 'restored'}")))
    assert left_ahead(source) == ([], [])
    assert sorted(path.name for path in source.root.glob("restored*")) == ["restored", "restored.tablespaces"]
    links = [Path(os.readlink(path)) for path in (Path(report.place) / "pg_tblspc").iterdir()]
    assert [path.parent for path in links] == [source.root / "restored.tablespaces"]
    assert newest_in(Path(report.place), pair, source.root) == 1
    with explored(installation, target) as there, connect(there.found.connection, autocommit=True) as session:
        assert session.execute("SELECT one FROM public.on_fast").fetchall() == [(1,)]
    assert left_ahead(source) == ([], [])


def test_a_failed_restore_takes_its_tablespace_folders_with_it(source: BackedUp, pair: Pair) -> None:
    installation, story = asynchronous(source, pair), Story(source)
    place = make_private_dir(source.root / "space", pair.tools.user)
    with source.connect() as session:
        session.execute(f"CREATE TABLESPACE fast LOCATION '{place}'".encode())
        session.execute("CREATE TABLE public.on_fast TABLESPACE fast AS SELECT 1 AS one")
    take_backup(installation, BackupOrder(BackupType.FULL))
    story.beat()
    story.beat()
    story.archive()
    target = RecoveryTarget(TargetKind.TIME, at=story.at[1])
    order = RestoreOrder(target, RestoreTo.parse(f"new:{source.root / 'restored'}"))

    def die(phase: str) -> None:
        if phase == "prove landing":
            raise Died

    with pytest.raises(Died):
        run_restore(installation, order, die)
    assert left_ahead(source) == ([], [])
    assert (source.root / "restored.tablespaces").is_dir()
    early = RestoreOrder(RecoveryTarget(TargetKind.LSN, lsn=1), order.to)
    with pytest.raises(TargetRefused, match="before the first backup"):
        run_restore(installation, early)
    # Cleared away before anything is planned.
    assert not list(source.root.glob("restored*"))
