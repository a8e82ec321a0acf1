"""The index can be stopped anywhere and goes on; gaps, and what a restore to a time undoes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from lifeboat.catalog.values import ActivityResolution
from lifeboat.catalog.wal_values import Span
from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.activity.decoding import DecoderKilled, Source
from lifeboat.wal.activity.index import IndexProgress, build_index
from lifeboat.wal.activity.preview import activity_between
from lifeboat.wal.activity.relation_names import observe_relations
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.coverage import ArchiveUnreadable
from lifeboat.wal.names import format_lsn, parse_segment
from tests.support.catalog import record_completed
from tests.support.wal import SEGMENT_BYTES
from tests.support.wal_index import LONG_AGO, Counted, IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]

# Runs in a process of its own, to be killed: the archive delivers slowly, so that it is always in the middle.
INDEXING = """
import sys, time
from pathlib import Path
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.activity.index import IndexProgress, build_index
from lifeboat.wal.archive import FilesystemArchive

class Slow(FilesystemArchive):
    def fetch(self, name, target):
        time.sleep(0.05)
        super().fetch(name, target)

root, bin_dir, user, scratch, dsn = sys.argv[1:]
source = Source(Slow(Path(root), "studio"), PgTools(Path(bin_dir), user or None), Path(scratch), 120, 1 << 20)
build_index(source, Catalog(dsn), "studio", on_progress=lambda *_: print("step", flush=True))
"""


@pytest.fixture
def busy(lab: IndexLab) -> IndexLab:
    """Twenty segments of all kinds of transactions, observed and archived."""
    lab.run("CREATE TABLE frames (id int PRIMARY KEY, body text)")
    lab.make_truth("frames")
    work(lab)
    lab.observe()
    lab.push()
    return lab


def work(lab: IndexLab, first: int = 0) -> None:
    """Changes over many segments, some of them in transactions that span several, some in vain."""
    with lab.connect() as held:
        held.execute("BEGIN")
        held.execute(f"INSERT INTO frames SELECT g FROM generate_series({first + 90001}, {first + 90020}) g".encode())
        for number in range(first, first + 6):
            span = f"{number * 1000 + 1}, {number * 1000 + 400}"
            lab.run(
                f"INSERT INTO frames SELECT g, repeat(md5(g::text), 60) FROM generate_series({span}) g",
                f"UPDATE frames SET body = repeat(md5(body), 60) WHERE id BETWEEN {number}000 AND {number}090",
                f"BEGIN; DELETE FROM frames WHERE id BETWEEN {number * 1000 + 1} AND {number * 1000 + 300}; ROLLBACK",
                f"BEGIN; SAVEPOINT a; DELETE FROM frames WHERE id = {number * 1000 + 7}; SAVEPOINT b;"
                f"INSERT INTO frames VALUES ({number * 1000 + 500}, repeat('x', 30000)); ROLLBACK TO b; COMMIT",
            )
        held.execute("COMMIT")


def names(lab: IndexLab, cluster: str) -> Counted:
    found = activity_between(lab.source, lab.catalog, cluster, 1, LONG_AGO)
    return {item.relation: (item.inserted_rows, item.updated_rows, item.deleted_rows) for item in found}


def test_segments_read_one_by_one_say_the_same_as_all_at_once(lab: IndexLab) -> None:
    lab.run("CREATE TABLE frames (id int PRIMARY KEY, body text)")
    lab.make_truth("frames")
    work(lab)
    lab.run("BEGIN; INSERT INTO frames VALUES (77777); PREPARE TRANSACTION 'held'")
    lab.switch()
    lab.run("COMMIT PREPARED 'held'")
    lab.observe()
    lab.switch()
    steps = 0
    while lab.push(1, switch=False):
        assert lab.index().stopped == ()
        steps += 1
    assert steps >= 8
    assert lab.counted() == lab.truth()
    with lab.connect() as connection:
        observe_relations(connection, lab.catalog, "again")
    at_once = build_index(replace(lab.source, window_bytes=1 << 30), lab.catalog, "again")
    assert at_once.stopped == ()
    everything = [Span(resolution, LONG_AGO) for resolution in ActivityResolution]
    store = lab.catalog.activity
    assert store.changes("again", 1, everything) == store.changes("studio", 1, everything)
    assert store.commits("again", 1, everything) == store.commits("studio", 1, everything)
    assert [event.text for event in store.events("again", LONG_AGO)] == lab.events()


class StoppedBetweenSteps(Exception):
    """Raised where a process could die."""


def test_a_run_that_dies_between_steps_loses_nothing_and_counts_nothing_twice(busy: IndexLab) -> None:
    def die(_progress: IndexProgress) -> None:
        raise StoppedBetweenSteps

    busy.window_bytes = SEGMENT_BYTES
    deaths = 0
    while True:
        try:
            busy.index(on_progress=die)
        except StoppedBetweenSteps:
            deaths += 1
        else:
            break
    assert deaths >= 5
    assert busy.counted() == busy.truth()


def test_a_killed_process_can_be_repeated(busy: IndexLab) -> None:
    tools = busy.cluster.tools
    arguments = [busy.archived.config.path, tools.bin_dir, tools.user or "", busy.folder, busy.catalog.dsn.dsn]
    kills = 0
    for pause in (0.0, 0.03, 0.11, 0.2, 0.31, 0.45):
        with subprocess.Popen(
            [sys.executable, "-c", INDEXING, *map(str, arguments)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()  # one step is written
            time.sleep(pause)
            kills += process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert kills >= 3
    assert busy.index().stopped == ()
    assert busy.counted() == busy.truth()


class NoLongerMounted(FilesystemArchive):
    """An archive that goes away after some segments."""

    def __init__(self, root: Path, cluster: str) -> None:
        super().__init__(root, cluster)
        self.left = 5

    def fetch(self, name: str, target: Path) -> None:
        """Deliver a segment while there are some left."""
        self.left -= 1
        if self.left < 0:
            raise ArchiveUnreadable("the share is gone", hint="Mount it.")
        super().fetch(name, target)


def test_an_archive_that_goes_away_in_mid_step_is_no_gap(busy: IndexLab) -> None:
    failing = NoLongerMounted(Path(busy.archived.config.path), busy.name)
    source = Source(failing, busy.cluster.tools, busy.folder, 120, 2 * SEGMENT_BYTES)
    with pytest.raises(ArchiveUnreadable):
        build_index(source, busy.catalog, busy.name)
    state = busy.catalog.wal_index.state(busy.name, 1)
    assert state is not None
    assert state.gaps_json == {}
    assert busy.index().stopped == ()
    assert busy.counted() == busy.truth()


@pytest.mark.parametrize("how", ["KILL", "TERM"])
def test_a_killed_decoder_is_no_damage(busy: IndexLab, how: str) -> None:
    tools = busy.cluster.tools
    failing = busy.folder / "killed"
    failing.mkdir()
    program = failing / "pg_waldump"
    real = tools.bin_dir / "pg_waldump"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\n{real} "$@" | head -n 500\nkill -{how} $$\n'
    )
    for path in (failing, program):
        path.chmod(0o755)
    assert busy.index().stopped == ()
    work(busy, 100)
    start = busy.value("SELECT pg_current_wal_lsn()::text")
    record_completed(busy.catalog, 1, cluster=busy.name, start_lsn=start, stop_lsn=start)
    work(busy, 200)
    busy.push()
    source = replace(busy.source, tools=PgTools(failing, tools.user))
    with pytest.raises(DecoderKilled, match="was killed by signal"):
        build_index(source, busy.catalog, busy.name)
    report = busy.index()
    assert (report.stopped, report.timelines[0].gaps) == ((), ())
    assert busy.counted() == busy.truth()


def test_a_gap_stops_the_index_until_a_full_backup_behind_it(busy: IndexLab) -> None:
    work(busy, 100)
    names_before = busy.push(3)
    (missing,) = [parse_segment(names_before[-1], SEGMENT_BYTES).following().name]
    busy.switch()
    work(busy, 200)
    busy.push(skip=1)
    report = busy.index()
    assert [missing in text and "full backup" in text for text in report.stopped] == [True]
    assert busy.index().stopped == report.stopped  # it goes on saying so
    before_gap = names(busy, busy.name)
    start = busy.value("SELECT pg_current_wal_lsn()::text")
    record_completed(busy.catalog, 1, cluster=busy.name, start_lsn=start, stop_lsn=start)
    truth = busy.truth()
    at = busy.value("SELECT clock_timestamp()")
    work(busy, 300)
    report = busy.catch_up()
    (gap,) = report.timelines[0].gaps
    assert gap.first_missing == missing
    assert f"up to {format_lsn(gap.to_lsn or 0)}" in gap.describe()
    behind = {
        name: tuple(b - a for a, b in zip(truth[name], counts, strict=True)) for name, counts in busy.truth().items()
    }
    assert names(busy, busy.name) == {
        name: tuple(a + b for a, b in zip(before_gap[name], behind[name], strict=True)) for name in behind
    }
    assert busy.undone(LONG_AGO + timedelta(days=1)).doubts
    exact = busy.undone(at)
    assert exact.doubts == ()
    assert {item.relation: item.inserted_rows for item in exact.relations} == {
        "public.frames": behind["public.frames"][0]
    }


@pytest.mark.parametrize("folded", [False, True], ids=["minutes", "hours"])
def test_what_a_restore_undoes_is_exact_at_any_moment(lab: IndexLab, folded: bool) -> None:
    lab.run("CREATE TABLE frames (id int PRIMARY KEY, body text)")
    lab.make_truth("frames")
    moments: list[tuple[datetime, Counted]] = []
    for number in range(4):
        work(lab, number * 50)
        lab.run(f"BEGIN; INSERT INTO frames VALUES ({-10 * number - 1}); PREPARE TRANSACTION 'p{number}'")
        moments.append((lab.value("SELECT clock_timestamp()"), lab.truth()))
        lab.run(f"COMMIT PREPARED 'p{number}'")
    lab.observe()
    lab.push()
    options = {"now": moments[-1][0] + timedelta(days=9)} if folded else {}
    assert lab.index(**options).stopped == ()
    final = lab.truth()
    for at, before in moments:
        undone = lab.undone(at)
        assert undone.exact, undone.doubts
        found = {item.relation: (item.inserted_rows, item.updated_rows, item.deleted_rows) for item in undone.relations}
        assert found == {
            name: tuple(b - a for a, b in zip(before.get(name, (0, 0, 0)), counts, strict=True))
            for name, counts in final.items()
        }
        assert undone.transactions.first_at is not None
        assert undone.transactions.last_at is not None
        assert at < undone.transactions.first_at <= undone.transactions.last_at
    counts = [lab.undone(at).transactions.count for at, _ in moments]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1  # COMMIT PREPARED of the last one; what is asked of the server changes nothing
    between = lab.counted(moments[0][0], moments[2][0])
    assert between == {
        name: tuple(b - a for a, b in zip(moments[0][1][name], moments[2][1][name], strict=True)) for name in between
    }


def test_buckets_before_the_window_go(busy: IndexLab) -> None:
    busy.index(keep_from=busy.value("SELECT clock_timestamp() + interval '1 day'"))
    assert busy.activity() == []
    assert busy.catalog.wal_index.state(busy.name, 1) is not None


def test_two_runs_at_once_count_once(busy: IndexLab) -> None:
    tools = busy.cluster.tools
    arguments = [busy.archived.config.path, tools.bin_dir, tools.user or "", busy.folder, busy.catalog.dsn.dsn]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", INDEXING, *map(str, arguments)], env=environment, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in running]
    assert sorted(code for _, code in ended)[0] == 0, ended
    assert all(code == 0 or b"IndexMoved" in errors for errors, code in ended)
    assert busy.index().stopped == ()
    assert busy.counted() == busy.truth()
