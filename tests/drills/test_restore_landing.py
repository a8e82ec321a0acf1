"""What a restore says of its landing, against what the source says of its transactions, for each engine."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lifeboat.operations.restore.planning import read_material, wal_reader
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import path_to
from tests.support.protected import BASEBACKUP, PGBACKREST, protected
from tests.support.recovery import RecoveryLab


@dataclass(frozen=True)
class History:
    """A heartbeat, a DROP, a rollback and a heartbeat: transactions by number, and a moment behind the rollback."""

    lab: RecoveryLab
    dropped: int
    rolled_back: int
    after_rollback: datetime
    following: int

    def committed_at(self, xid: int) -> datetime:
        """When the source says that it was committed."""
        at = self.lab.value(f"SELECT pg_xact_commit_timestamp('{xid}'::xid)")
        assert isinstance(at, datetime)
        return at.astimezone(UTC)

    def lsn_of(self, xid: int) -> int:
        """Where the record of its end begins."""
        material = read_material(self.lab.installation)
        folder = self.lab.root / "read"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
        found = wal_reader(self.lab.installation, material, folder).find_commit(xid, path_to(1, {}, {1}))
        assert found is not None
        return found.lsn

    def restored(self, target: RecoveryTarget, name: str) -> RestoreReport:
        """The report of a restore into a new folder of that name."""
        place = RestoreTo.parse(f"new:{self.lab.root / name}")
        return run_restore(self.lab.installation, RestoreOrder(target, place, full_read=False))

    def drop_is_there(self, report: RestoreReport) -> bool:
        """Whether the restored cluster has the DROP."""
        with self.lab.opened(Path(report.place)) as dsn:
            return bool(self.lab.value("SELECT to_regclass('public.notes') IS NULL", dsn))


def transaction(lab: RecoveryLab, statement: str, *, commits: bool = True) -> int:
    """Run a statement in a transaction of its own, which is rolled back unless it `commits`; its number."""
    with connect(lab.cluster.dsn()) as session:
        session.execute(statement.encode())
        row = session.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert row is not None
        session.commit() if commits else session.rollback()
    return int(row[0])


@pytest.fixture(scope="module", params=(BASEBACKUP, PGBACKREST[0]))
def history(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[History]:
    """Lived through once for each engine; nothing of it is changed by a restore."""
    with protected(request.param, runtime_dir) as lab:
        lab.back_up()
        lab.commit(1)
        dropped = transaction(lab, "DROP TABLE public.notes")
        rolled_back = transaction(lab, "TRUNCATE public.segments", commits=False)
        after = lab.moment()
        following = transaction(lab, "INSERT INTO public.heartbeats VALUES (2, clock_timestamp())")
        lab.switch()
        lab.switch()
        yield History(lab, dropped, rolled_back, after, following)


def test_behind_a_position_the_commit_there_is_the_last_one(history: History) -> None:
    """PostgreSQL's log names the one before: it stops before it takes the moment from the record."""
    lsn = history.lsn_of(history.dropped)
    report = history.restored(RecoveryTarget(TargetKind.LSN, lsn=lsn), "behind the drop")
    assert history.drop_is_there(report)
    assert report.last_commit_at == history.committed_at(history.dropped)
    before = history.restored(RecoveryTarget(TargetKind.LSN, lsn=lsn, inclusive=False), "before the drop")
    assert not history.drop_is_there(before)
    assert before.last_commit_at is not None
    assert before.last_commit_at < history.committed_at(history.dropped)


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_rollback_is_not_called_a_commit(history: History, inclusive: bool) -> None:
    target = RecoveryTarget(TargetKind.XID, xid=history.rolled_back, inclusive=inclusive)
    report = history.restored(target, f"at the rollback, {inclusive}")
    assert report.last_commit_at == history.committed_at(history.dropped)
    assert report.next_commit_at == (None if inclusive else history.committed_at(history.following))
    side = "after" if inclusive else "before"
    assert str(report.landing).endswith(f"; stopped {side} the rollback of transaction {history.rolled_back}")


def test_to_a_moment_behind_a_rollback_the_commit_before_it_is_the_last(history: History) -> None:
    report = history.restored(RecoveryTarget(TargetKind.TIME, at=history.after_rollback), "by time")
    assert report.last_commit_at == history.committed_at(history.dropped)
    assert report.next_commit_at == history.committed_at(history.following)
