"""The index over a timeline switch: what the old timeline had not ended goes on on the new one."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from lifeboat.catalog.store import Catalog
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_tree_to
from lifeboat.wal.archive_program.push import push
from lifeboat.wal.names import history_name, parse_lsn
from tests.support.postgres import reachable_dir
from tests.support.wal import SEGMENT_BYTES
from tests.support.wal_index import LONG_AGO, IndexLab, index_lab, start_indexed_cluster


@pytest.fixture
def lab(each_pg_tools: PgTools, catalog: Catalog) -> Iterator[IndexLab]:
    """A server of its own, which can be promoted."""
    with reachable_dir() as root:
        cluster = start_indexed_cluster(each_pg_tools, root)
        (root / "lab").mkdir()
        (root / "lab").chmod(0o755)
        with index_lab(cluster, catalog, root / "lab") as made:
            yield made
        cluster.stop()


def switch_timeline(lab: IndexLab) -> None:
    """Recover to the end of what is there and go on, on a timeline of its own; the history is archived."""
    lab.cluster.stop()
    settings = lab.cluster.settings()
    signal = lab.cluster.data_dir / "recovery.signal"
    signal.touch()
    signal.chmod(0o644)
    lab.cluster.write_settings(
        {
            "listen_addresses": "",
            "fsync": False,
            "autovacuum": False,
            "wal_keep_size": settings["wal_keep_size"],
            "max_prepared_transactions": 10,
            "restore_command": "false",
        }
    )
    lab.cluster.start()
    lab.run("SELECT pg_sleep(0.05) FROM generate_series(1, 600) WHERE pg_is_in_recovery()")
    lab.timeline += 1
    name = history_name(lab.timeline)
    push(lab.archived.program_config, str(lab.cluster.data_dir / "pg_wal" / name), name)


@pytest.fixture
def switched(lab: IndexLab) -> IndexLab:
    """Changes before and after a switch, the old timeline archived and indexed as far as it has whole segments."""
    lab.run("CREATE TABLE frames (id int PRIMARY KEY, body text)")
    lab.make_truth("frames")
    lab.run("INSERT INTO frames SELECT g, repeat('x', 900) FROM generate_series(1, 3000) g")
    lab.observe()
    lab.push()
    lab.index()
    # These go into a segment that the old timeline never completes.
    lab.run(
        "DELETE FROM frames WHERE id <= 50",
        "BEGIN; INSERT INTO frames SELECT g FROM generate_series(5001, 5009) g; PREPARE TRANSACTION 'over'",
    )
    return lab


def test_counts_go_on_over_a_switch(switched: IndexLab) -> None:
    lab = switched
    at, before = lab.value("SELECT clock_timestamp()"), lab.truth()
    switch_timeline(lab)
    lab.run("COMMIT PREPARED 'over'", "UPDATE frames SET body = 'y' WHERE id BETWEEN 60 AND 69")
    later, second = lab.value("SELECT clock_timestamp()"), lab.truth()
    lab.run("DELETE FROM frames WHERE id BETWEEN 70 AND 79")
    lab.observe()
    lab.push()
    report = lab.index()
    assert report.stopped == ()
    assert [item.timeline for item in report.timelines] == [1, 2]
    final = lab.truth()
    assert lab.counted(LONG_AGO) == final
    for moment, then in ((at, before), (later, second)):
        undone = lab.undone(moment)
        assert undone.exact, undone.doubts
        assert undone.landing_timeline == 2
        (found,) = undone.relations
        counts = (found.inserted_rows, found.updated_rows, found.deleted_rows)
        assert counts == tuple(b - a for a, b in zip(then["public.frames"], final["public.frames"], strict=True))


def test_segments_that_come_late_and_a_second_switch(switched: IndexLab, tmp_path: Path) -> None:
    lab = switched
    switch_timeline(lab)
    lab.run("COMMIT PREPARED 'over'", "INSERT INTO frames SELECT g FROM generate_series(7001, 7100) g")
    lab.switch()
    while lab.push(1, switch=False):
        assert lab.index().stopped == ()
    lab.run("DELETE FROM frames WHERE id > 7050")
    switch_timeline(lab)
    lab.run("INSERT INTO frames SELECT g FROM generate_series(8001, 8030) g")
    position = parse_lsn(lab.value("SELECT pg_current_wal_lsn()::text"))
    assert lab.next_number <= position // SEGMENT_BYTES
    lab.push()
    assert lab.index().stopped == ()
    assert lab.counted() == lab.truth()
    assert {state for state in lab.catalog.wal_index.states(lab.name)} == {1, 2, 3}


@dataclass(frozen=True)
class SetAside:
    """A server as it was, with the number of the segment that it was writing."""

    folder: Path
    number: int


def set_aside(lab: IndexLab) -> SetAside:
    """Keep a copy of the server; it runs on."""
    number = parse_lsn(lab.value("SELECT pg_current_wal_lsn()::text")) // SEGMENT_BYTES
    lab.cluster.stop()
    kept = lab.cluster.data_dir.with_name("kept")
    shutil.copytree(lab.cluster.data_dir, kept, symlinks=True)
    lab.cluster.start()
    return SetAside(kept, number)


def go_back(lab: IndexLab, kept: SetAside) -> None:
    """Restore the server to what was set aside: it goes on on another timeline."""
    lab.cluster.stop()
    shutil.rmtree(lab.cluster.data_dir)
    kept.folder.rename(lab.cluster.data_dir)
    give_tree_to(lab.cluster.data_dir, lab.cluster.tools.user)
    lab.next_number = kept.number
    switch_timeline(lab)


@pytest.mark.parametrize("folded", [False, True], ids=["minutes", "hours"])
def test_what_a_restore_has_undone_is_not_undone_again(lab: IndexLab, folded: bool) -> None:
    lab.run("CREATE TABLE frames (id int PRIMARY KEY, body text)", "CREATE TABLE notes (id int)")
    lab.make_truth("frames")
    lab.run("INSERT INTO frames SELECT g, repeat('x', 900) FROM generate_series(1, 3000) g", "CREATE TABLE old (a int)")
    lab.observe()
    lab.push()
    at, before = lab.value("SELECT clock_timestamp()"), lab.truth()
    lab.run("DELETE FROM frames WHERE id <= 1500", "DROP TABLE old", "CREATE FUNCTION early() RETURNS int RETURN 1")
    kept = set_aside(lab)
    lab.run("DELETE FROM frames WHERE id > 1900", "DROP TABLE notes", "UPDATE frames SET body = 'abandoned'")
    lab.push()
    assert lab.index(now=at + timedelta(days=9 if folded else 0)).stopped == ()
    go_back(lab, kept)
    later, second = lab.value("SELECT clock_timestamp()"), lab.truth()
    lab.run("UPDATE frames SET body = 'y' WHERE id BETWEEN 1560 AND 1569", "DROP TABLE notes")
    lab.push()
    assert lab.index(now=at + timedelta(days=9)).stopped == ()
    final = lab.truth()
    assert lab.counted(LONG_AGO) == final
    for moment, then, told in ((at, before, ["bulk", "drop", "drop"]), (later, second, ["drop"])):
        undone = lab.undone(moment)
        assert undone.exact, undone.doubts
        (found,) = undone.relations
        counts = (found.inserted_rows, found.updated_rows, found.deleted_rows)
        assert counts == tuple(b - a for a, b in zip(then["public.frames"], final["public.frames"], strict=True))
        named = [event for event in undone.events if event.detail_json["relations"]]
        assert sorted(event.detail_json["event"].partition("-")[0] for event in named) == told
