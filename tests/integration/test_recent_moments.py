"""What was a minute ago: names that only a backup has seen, and moments that are not archived yet."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.operations.points.restore_points import PointsOrder, list_restore_points
from lifeboat.operations.restore.planning import plan_for, read_material
from lifeboat.operations.wal.index import index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from tests.support.agent import running_agent, soon
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A server that archives and was backed up, with a catalog in its database; nothing observes it."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        migrate(made.installation.catalog_connection)
        yield made
        made.cluster.stop()


def test_a_backup_sees_the_names_of_tables_that_are_gone_before_the_index_looks(lab: RecoveryLab) -> None:
    lab.run("CREATE TABLE public.trailers (id int)", "INSERT INTO public.trailers SELECT generate_series(1, 7)")
    lab.back_up()
    before = lab.moment()
    lab.run("DROP TABLE public.trailers")
    lab.switch()
    index_wal(lab.installation)

    events = lab.installation.catalog.activity.events("studio", before)
    assert [event.text for event in events if event.at > before] == ["DROP of public.trailers"]


def test_a_moment_that_is_not_archived_yet_says_how_to_have_it_archived(lab: RecoveryLab) -> None:
    lab.back_up()
    lab.run("INSERT INTO public.notes VALUES (1, 'not archived')")
    material = read_material(lab.installation)

    with pytest.raises(TargetRefused) as recent:
        plan_for(lab.installation, material, RecoveryTarget(TargetKind.TIME, at=datetime.now(UTC)))
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(TargetRefused) as future:
        plan_for(lab.installation, material, RecoveryTarget(TargetKind.TIME, at=later))

    assert recent.value.earlier is not None
    assert "lifeboat restore point add NAME" in str(recent.value.hint)
    assert str(recent.value.hint).startswith("The nearest moment that can be had is ")
    assert "restore point add" not in str(future.value.hint)


def test_on_a_quiet_server_the_agent_moves_the_latest_moment_on(lab: RecoveryLab) -> None:
    """Nothing else commits: without the heartbeat no moment after the backup could be aimed at."""
    lab.back_up()
    lab.run("DROP TABLE lifeboat.heartbeat", "ALTER SYSTEM SET archive_timeout = '1s'", "SELECT pg_reload_conf()")

    def later_than(moment: datetime) -> bool:
        (reach,) = list_restore_points(lab.installation, PointsOrder()).timelines
        assert reach.latest is not None
        return reach.latest > moment

    with running_agent(lab.cluster.dsn(), lab.installation.catalog):
        for _ in range(3):
            before = lab.moment()
            soon(partial(later_than, before))
