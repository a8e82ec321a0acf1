"""How many rows a dropped table had, where the quick preview has to estimate it."""

from datetime import datetime

from lifeboat.catalog.migrate import migrate
from lifeboat.operations.preview.quick import PreviewOrder, RestorePreview, preview_restore
from lifeboat.operations.wal.index import index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


def preview_at(lab: RecoveryLab, at: datetime) -> RestorePreview:
    return preview_restore(lab.installation, PreviewOrder(RecoveryTarget(TargetKind.TIME, at=at)))


def test_rows_of_the_minute_of_the_backup_are_counted_once(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        migrate(lab.installation.catalog_connection)
        lab.back_up(BackupType.FULL)
        for _ in range(5):
            lab.run("CREATE TABLE public.young AS SELECT generate_series(1, 12) AS id")
            lab.switch()
            label = lab.back_up(BackupType.FULL)
            taken = lab.installation.repository().manifest(label).fingerprint
            assert taken is not None
            lab.run("INSERT INTO public.young VALUES (13)")
            at = lab.moment()
            if at.minute == taken.taken_at.minute and taken.taken_at.second > 2:
                break
            lab.run("DROP TABLE public.young")  # the minute changed meanwhile: it says nothing
        lab.run("DROP TABLE public.young")
        lab.switch()
        (found,) = [item for item in preview_at(lab, at).tables if item.table == "public.young"]
        assert (found.estimated, found.rows_at_target) == (True, 13)
        lab.cluster.stop()


def test_a_table_whose_first_rows_are_counted_no_more_is_not_estimated(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        migrate(lab.installation.catalog_connection)
        lab.back_up(BackupType.FULL)
        lab.run("CREATE TABLE public.ancient (a int)", "INSERT INTO public.ancient SELECT generate_series(1, 40)")
        lab.switch()
        index_wal(lab.installation)
        # As after months: its creation is noted still, the counts of that time are gone.
        file = lab.value("SELECT pg_relation_filenode('public.ancient')")
        lab.run(
            "UPDATE lifeboat.annotations SET at = at - interval '90 days' WHERE kind = 'wal'",
            f"DELETE FROM lifeboat.wal_activity WHERE relfilenode = {file}",
        )
        at = lab.moment()
        lab.run("DROP TABLE public.ancient")
        lab.switch()
        (found,) = [item for item in preview_at(lab, at).tables if item.table == "public.ancient"]
        assert (found.estimated, found.rows_at_target) == (True, None)
        lab.cluster.stop()
