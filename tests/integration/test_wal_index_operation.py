"""`wal index` on an installation: from the archive to the catalog, what it says, and what stops it."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from console.cli.main import main
from lifeboat.catalog.migrate import migrate
from lifeboat.operations.wal.index import IndexRunning, _window_start, index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_to
from lifeboat.settings.loading import CONFIG_VARIABLE
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.activity.decoding import Source, WrongDecoder
from lifeboat.wal.activity.index import IndexProgress, build_index
from lifeboat.wal.archive_program.layout import Config
from lifeboat.wal.archive_program.push import push
from tests.support.catalog import record_completed
from tests.support.postgres import DEBIAN_15, absent, reachable_dir, tools_for
from tests.support.recovery import SEGMENT_BYTES, RecoveryLab, make_lab

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A server that archives, with a catalog in its database."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        migrate(made.installation.catalog_connection)
        yield made
        made.cluster.stop()


@pytest.fixture
def configured(lab: RecoveryLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecoveryLab:
    """The lab with its settings in a file that commands and flows read."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(lab.write_settings(tmp_path / "lifeboat.toml")))
    return lab


def test_the_archive_is_indexed_and_names_are_observed(lab: RecoveryLab) -> None:
    lab.run("DELETE FROM public.segments WHERE id > 500", "UPDATE public.segments SET approved = true WHERE id <= 20")
    lab.switch()
    told: list[IndexProgress] = []
    report = index_wal(lab.installation, on_progress=told.append)
    assert (report.stopped, report.notes) == ((), ())
    assert report.read_bytes == told[-1].read_bytes == told[-1].total_bytes
    assert [
        event.text for event in lab.installation.catalog.activity.events("studio", LONG_AGO) if "DELETE" in event.text
    ] == ["DELETE of 1,500 rows from public.segments"]
    again = index_wal(lab.installation)
    assert (again.read_bytes, again.records, again.events) == (0, 0, 0)
    assert again.indexed_until == report.indexed_until


def test_buckets_are_kept_from_the_oldest_backup_on(lab: RecoveryLab) -> None:
    installation = lab.installation
    assert _window_start(installation) is None
    label = lab.back_up(BackupType.FULL)
    lab.back_up(BackupType.FULL)
    assert _window_start(installation) == installation.repository().manifest(label).started_at


def test_the_command_tells_figures_and_a_gap(configured: RecoveryLab, capsys: pytest.CaptureFixture[str]) -> None:
    first = configured.switch()
    second = configured.switch()
    configured.switch()
    configured.stored(second).unlink()
    assert main(["wal", "index", "--json"]) == 3
    shown = capsys.readouterr()
    assert second in shown.out
    assert first not in shown.out
    assert main(["wal", "index"]) == 3
    shown = capsys.readouterr()
    assert "Take a new full backup" in shown.err
    assert "indexed up to" in shown.out


def test_what_is_still_on_its_way_is_no_gap(lab: RecoveryLab) -> None:
    lab.back_up(BackupType.FULL)
    lab.switch()
    assert index_wal(lab.installation).stopped == ()
    # Pushed out of order, as pgBackRest does with several at once: the server was not told of the newer one yet.
    (program,) = (lab.root / "state").rglob("wal.json")
    config = Config(json.loads(program.read_text()))
    lab.run("ALTER SYSTEM SET archive_command = 'false'", "SELECT pg_reload_conf()")
    names = []
    for number in range(2):
        lab.commit(100 + number)
        start = lab.value("SELECT pg_current_wal_lsn()::text")
        names.append(lab.value("SELECT pg_walfile_name(pg_switch_wal())"))
    pg_wal = lab.cluster.data_dir / "pg_wal"
    push(config, str(pg_wal / names[1]), names[1])
    # Nor does a full backup behind it tempt the index to leave it out.
    record_completed(lab.installation.catalog, 7, cluster="studio", start_lsn=start, stop_lsn=start)
    assert index_wal(lab.installation).stopped == ()
    push(config, str(pg_wal / names[0]), names[0])
    done = index_wal(lab.installation)
    assert (done.stopped, done.read_bytes) == ((), 2 * SEGMENT_BYTES)
    assert done.timelines[0].gaps == ()


def test_a_gap_on_a_timeline_that_was_left_stops_nothing_once_a_full_backup_is_behind_it(lab: RecoveryLab) -> None:
    lab.back_up(BackupType.FULL)
    names = [lab.switch() for _ in range(3)]
    lab.stored(names[1]).unlink()
    assert names[1] in index_wal(lab.installation).stopped[0]
    # A standby that was promoted, or a restore: WAL goes on on another timeline.
    lab.cluster.stop()
    signal = lab.cluster.data_dir / "recovery.signal"
    signal.touch()
    give_to(signal, lab.cluster.tools.user)
    lab.start(restore_command="false")
    deadline = time.monotonic() + 60
    while lab.value("SELECT pg_is_in_recovery()"):
        assert time.monotonic() < deadline
    lab.switch()
    assert names[1] in " ".join(index_wal(lab.installation).stopped)
    lab.back_up(BackupType.FULL)
    lab.switch()
    report = index_wal(lab.installation)
    assert report.stopped == ()
    assert {timeline.timeline for timeline in report.timelines} == {1, 2}


def test_names_that_no_restore_can_ask_for_go(lab: RecoveryLab) -> None:
    catalog = lab.installation.catalog
    lab.run("CREATE TABLE public.old (a int)", "CREATE TABLE public.newer (a int)")
    lab.switch()
    index_wal(lab.installation)
    lab.run("DROP TABLE public.old")
    index_wal(lab.installation)
    label = lab.back_up(BackupType.FULL)
    lab.run("DROP TABLE public.newer")
    lab.switch()
    index_wal(lab.installation)

    def names() -> set[str]:
        return {item.name for item in catalog.relations.names("studio")}

    assert {"public.old", "public.newer"} <= names()  # the hour in which the oldest backup began is kept whole
    started_at = lab.installation.repository().manifest(label).started_at
    build_index(
        Source(lab.archive, lab.cluster.tools, lab.root, 60),
        catalog,
        "studio",
        keep_from=started_at + timedelta(hours=1),
        now=started_at,
    )
    assert not {"public.old", "public.newer"} & names()
    assert "public.segments" in names()


def test_only_one_runs_at_a_time(lab: RecoveryLab) -> None:
    lab.switch()

    def start_another(_progress: IndexProgress) -> None:
        with pytest.raises(IndexRunning):
            index_wal(lab.installation)

    assert index_wal(lab.installation, on_progress=start_another).stopped == ()


def test_wal_of_another_major_version_is_not_called_damaged(pg_tools: PgTools, runtime_dir: Path) -> None:
    if not (DEBIAN_15 / "pg_waldump").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        migrate(lab.installation.catalog_connection)
        lab.switch()
        other = lab.installation
        other.__dict__["tools"] = tools_for(DEBIAN_15, runtime_dir)
        with pytest.raises(WrongDecoder, match=f"PostgreSQL {pg_tools.major}, and pg_waldump here of 15"):
            index_wal(other)
        lab.cluster.stop()
