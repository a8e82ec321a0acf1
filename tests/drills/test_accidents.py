"""The promise itself, for each engine: load, a heartbeat each second, accidents, and back to the moment before each.

A full backup and three incrementals lie between the accidents, so that each restore begins with another chain.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.operations.preview.deep import deep_preview
from lifeboat.operations.preview.quick import PreviewOrder, RestorePreview, preview_restore
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.undoing import Change
from lifeboat.storage.manifest import BackupType
from tests.support.accidents import TABLES, Load, Truth, content_of, let_it_work, make_tables, under_load
from tests.support.agent import running_agent
from tests.support.protected import ENGINES, protected
from tests.support.recovery import RecoveryLab

ACCIDENTS = {
    "the mass delete": "DELETE FROM public.segments WHERE id % 3 = 0",
    "the drop": "DROP TABLE public.characters",
    "the truncate": "TRUNCATE public.takes",
}
MOMENTS = (*ACCIDENTS, "the end")


@dataclass
class Story:
    """What happened: the moment just before each accident, the backup it lies behind, and what the server noted."""

    lab: RecoveryLab
    at: dict[str, datetime] = field(default_factory=dict)
    label: dict[str, str] = field(default_factory=dict)
    deleted: int = 0
    truth: Truth = field(default_factory=lambda: Truth([], []))

    def live_through(self, load: Load) -> None:
        """Backups and accidents in turn; the load and the heartbeat never pause."""
        for number, name in enumerate(MOMENTS):
            self.label[name] = self.lab.back_up(BackupType.INCREMENTAL if number else BackupType.FULL)
            beats = self._beats()
            let_it_work(load, and_until=lambda beats=beats: self._beats() >= beats + 2)  # type: ignore[misc]
            self.at[name] = self.lab.moment()
            if name in ACCIDENTS:
                with connect(self.lab.cluster.dsn(), autocommit=True) as session:
                    done = session.execute(ACCIDENTS[name].encode())
                    self.deleted = self.deleted or done.rowcount
            let_it_work(load)

    def _beats(self) -> int:
        return int(self.lab.value("SELECT count(*) FROM truth.beats"))


@pytest.fixture(scope="module", params=ENGINES)
def story(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[Story]:
    """One source for each engine that has lived through all of it; it stands still now, and its WAL is archived."""
    with protected(request.param, runtime_dir) as lab:
        migrate(lab.installation.catalog_connection)
        make_tables(lab)
        made = Story(lab)
        with running_agent(lab.cluster.dsn(), lab.installation.catalog, heartbeat_seconds=1), under_load(lab) as load:
            made.live_through(load)
        assert load.rolled_back > 0
        lab.switch()
        made.truth = Truth.of(lab)
        yield made


def target(story: Story, name: str) -> RecoveryTarget:
    return RecoveryTarget(TargetKind.TIME, at=story.at[name])


@pytest.mark.parametrize("name", MOMENTS)
def test_everything_until_the_moment_before_is_back_and_nothing_after_it(story: Story, name: str) -> None:
    lab, truth, at = story.lab, story.truth, story.at[name]
    before = set(lab.archive.listing().files)
    place = RestoreTo.parse(f"new:{lab.root / f'before {name}'}")
    report = run_restore(lab.installation, RestoreOrder(target(story, name), place))
    assert report.label == story.label[name]
    assert len(report.chain) == MOMENTS.index(name) + 1
    assert report.last_commit_at is not None
    assert report.next_commit_at is not None
    assert report.last_commit_at <= at < report.next_commit_at
    # The newest heartbeat recovered is the last one that was committed by then.
    assert report.heartbeat_at == truth.heartbeat(at)
    with lab.opened(Path(report.place)) as dsn:
        assert lab.value("SELECT at FROM lifeboat.heartbeat", dsn) == truth.heartbeat(at)
        assert {row[0] for row in lab.rows("SELECT seq FROM truth.changes", dsn)} == truth.seqs(at)
        for table in TABLES:
            gone = table == "characters" and at > story.at["the drop"]
            assert content_of(lab, table, dsn) == (None if gone else truth.content(table, at)), table
    # The source archives on; the restored server has a timeline of its own, and nothing of it is in the archive.
    listing = lab.archive.listing()
    assert before <= set(listing.files)
    assert (listing.timelines, listing.history_timelines) == ((1,), ())


def preview(story: Story, name: str) -> RestorePreview:
    return preview_restore(story.lab.installation, PreviewOrder(target(story, name)))


@pytest.mark.parametrize("name", ACCIDENTS)
def test_the_quick_preview_names_each_event_and_table_and_counts_exactly(story: Story, name: str) -> None:
    truth, at = story.truth, story.at[name]
    found = preview(story, name)
    assert found.exact, found.doubts
    assert found.label == story.label[name]
    to_come = list(ACCIDENTS)[list(ACCIDENTS).index(name) :]
    texts = {
        "the mass delete": f"DELETE of {story.deleted:,} rows from public.segments",
        "the drop": "DROP of public.characters",
        "the truncate": "TRUNCATE of public.takes",
    }
    named = [event.text for event in found.events if event.text in texts.values()]
    assert named == [texts[each] for each in to_come]
    tables = {item.table: item for item in found.tables if item.table.startswith(("public.", "truth."))}
    # All that the load did is counted, whatever became of its table, and nothing that it rolled back.
    for table in TABLES:
        item = tables.get(f"public.{table}")
        counted = (item.inserted_rows, item.updated_rows, item.deleted_rows) if item is not None else (0, 0, 0)
        assert counted == truth.counts(table, at), table
    assert tables["public.segments"].events == ()
    assert not tables["public.segments"].estimated
    assert tables["truth.changes"].inserted_rows == len(truth.changes) - len(truth.seqs(at))
    assert found.transactions is not None
    assert found.transactions.count >= len(truth.transactions(at))
    for accident, table, event in (("the drop", "characters", "drop"), ("the truncate", "takes", "truncate")):
        if accident not in to_come:
            continue
        item = tables[f"public.{table}"]
        assert (item.events, item.estimated) == ((event,), True)
        assert item.rows_at_target is not None
        # A known count, moved on by whole minutes of what was counted since: near, and said to be an estimate.
        assert abs(item.rows_at_target - len(truth.content(table, at))) <= sum(
            truth.counts(table, story.at[MOMENTS[0]])
        )
    comes_back = {item.name for item in found.objects if item.change is Change.COMES_BACK}
    assert comes_back == ({"public.characters"} if "the drop" in to_come else set())


def test_the_deep_preview_is_exact_for_all_accidents(story: Story) -> None:
    lab, truth, at = story.lab, story.truth, story.at["the mass delete"]
    found = deep_preview(lab.installation, target(story, "the mass delete"))
    tables = {table.table: table for table in found.tables}
    for table in TABLES:
        then, now = truth.content(table, at), content_of(lab, table)
        compared = tables[f"public.{table}"]
        assert (compared.rows_then, compared.rows_now) == (len(then), len(now) if now is not None else None)
        there = now or {}
        assert compared.only_then == len(then.keys() - there.keys())
        assert compared.only_now == len(there.keys() - then.keys())
        assert compared.changed == sum(then[each] != there[each] for each in then.keys() & there.keys())
    assert tables["public.segments"].only_then >= story.deleted * 0.9
    assert "table public.characters" in found.comes_back
    assert not any("public.segments" in name or "public.takes" in name for name in found.comes_back)
