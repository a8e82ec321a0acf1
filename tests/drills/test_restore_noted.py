"""Restores to what was noted: a restore point of the journal, a transaction that the index knows."""

from collections.abc import Iterator

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.engines.engine import Progress
from lifeboat.operations.points.named import add_restore_point
from lifeboat.operations.restore.noted_places import noted_places
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.index import index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.wal_reader import NotedPlace
from lifeboat.wal.names import parse_lsn
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source with a catalog and a full backup."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        migrate(made.installation.source)
        made.back_up()
        yield made
        made.cluster.stop(mode="immediate")


class Followed:
    """What a restore tells while it plans: how much WAL it has searched."""

    def __init__(self) -> None:
        self.name, self.searched = "", list[Progress]()

    def phase(self, name: str) -> None:
        self.name = name

    def amount(self, progress: Progress) -> None:
        if self.name == "plan":
            self.searched.append(progress)


def test_what_was_noted_is_not_searched_for(lab: RecoveryLab) -> None:
    lab.commit(1)
    lab.run("SELECT pg_create_restore_point('release')")  # somebody's own, of the same name
    lab.commit(2)
    made = add_restore_point(lab.installation, "release").record
    lab.commit(3)
    with connect(lab.cluster.dsn()) as session:
        session.execute("DROP TABLE public.notes")
        row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        xid = int(row[0])
        session.commit()
    lab.commit(4)
    lab.run("SELECT pg_create_restore_point('release')")
    lab.switch()
    index_wal(lab.installation)

    by_name = RecoveryTarget(TargetKind.NAME, name="release")
    assert noted_places(lab.installation, by_name, made.system_identifier) == (
        NotedPlace(made.timeline, parse_lsn(made.lsn), made.at),
    )
    assert noted_places(lab.installation, by_name, "0") == ()
    by_number = RecoveryTarget(TargetKind.XID, xid=xid, inclusive=False)
    assert len(noted_places(lab.installation, by_number, None)) == 1
    assert noted_places(lab.installation, RecoveryTarget(TargetKind.XID, xid=xid + 1), None) == ()

    for target, newest in ((by_name, 2), (by_number, 3)):
        place, followed = lab.root / target.kind, Followed()
        order = RestoreOrder(target, RestoreTo.parse(f"new:{place}"))
        report = run_restore(lab.installation, order, followed.phase, followed.amount)
        assert followed.searched == []
        with lab.opened(place) as dsn:
            assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == newest, report.landing
            assert lab.value("SELECT to_regclass('public.notes') IS NOT NULL", dsn)


def test_what_was_not_noted_is_searched_for_from_the_end(lab: RecoveryLab) -> None:
    for number in (1, 2):
        lab.commit(number)
        lab.run("SELECT pg_create_restore_point('by hand')")
    lab.commit(3)
    lab.switch()
    place, followed = lab.root / "restored", Followed()
    order = RestoreOrder(RecoveryTarget(TargetKind.NAME, name="by hand"), RestoreTo.parse(f"new:{place}"))
    run_restore(lab.installation, order, followed.phase, followed.amount)
    assert followed.searched
    assert all(each.total_bytes and each.done_bytes <= each.total_bytes for each in followed.searched)
    with lab.opened(place) as dsn:
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 2
