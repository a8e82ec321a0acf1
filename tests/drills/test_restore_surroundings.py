"""Restores in their surroundings: what runs beside the original, and how long an archive may take."""

import subprocess
from pathlib import Path

import pytest

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import install_archiving
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.needed_space import certain_bytes, needed_bytes
from lifeboat.operations.restore.place import PlaceTaken
from lifeboat.operations.restore.preparation import prepare_restore
from lifeboat.operations.restore.recovered_cluster import RecoveryFailed
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.restore.scratch import RecoveryStuck
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


def order(lab: RecoveryLab, target: RecoveryTarget, name: str) -> RestoreOrder:
    return RestoreOrder(target, RestoreTo.parse(f"new:{lab.root / name}"))


def test_a_cluster_beside_its_original_runs_none_of_its_jobs(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        try:
            lab.run("ALTER SYSTEM SET shared_preload_libraries = 'vector', 'dict_snowball'")
            lab.cluster.stop()
            # In a file that postgresql.conf includes.
            lab.start(synchronous_standby_names="standby_1", synchronous_commit="local")
            lab.back_up()
            lab.cluster.stop()
            report = run_restore(
                lab.installation, order(lab, RecoveryTarget(TargetKind.BACKUP, backup="latest"), "beside")
            )
            history = Path(report.place, "pg_wal", "00000002.history").read_text().split("\t")
            assert history[2].strip() == "reached consistency"
            assert any("not preloaded beside the original: dict_snowball" in note for note in report.notes)
            assert any("ALTER SYSTEM RESET shared_preload_libraries;" in step for step in report.next_steps)
            with lab.opened(Path(report.place)) as dsn:
                assert lab.value("SHOW shared_preload_libraries", dsn) == "vector"
                assert lab.value("SHOW synchronous_standby_names", dsn) == ""
            run_restore(
                lab.installation,
                RestoreOrder(RecoveryTarget(), RestoreTo.parse("in-place"), data_dir=lab.cluster.data_dir),
            )
            lab.cluster.start()
            assert lab.value("SHOW shared_preload_libraries") == "vector, dict_snowball"
        finally:
            lab.cluster.stop(mode="immediate")


def test_what_is_printed_starts_it_and_it_fits_in_what_was_estimated(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        try:
            lab.back_up()
            lab.run("CREATE TABLE public.more AS SELECT i, repeat('x', 500) AS x FROM generate_series(1, 20000) i")
            lab.switch()
            # Backups would take it along, or others would clear it away.
            for folder in (lab.cluster.data_dir, lab.destination, lab.root / "state"):
                with pytest.raises(PlaceTaken, match=f"is inside of .*{folder}"):
                    run_restore(lab.installation, RestoreOrder(RecoveryTarget(), RestoreTo.parse(f"new:{folder}/x")))
            # As /srv is: the server's account may go through it, and not write there.
            folder = root / "srv of root"
            folder.mkdir()
            folder.chmod(0o755)
            wanted = order(lab, RecoveryTarget(), "srv of root/it's restored")
            planned = prepare_restore(lab.installation, wanted).planned
            least, most = certain_bytes(planned), needed_bytes(planned)
            report = run_restore(lab.installation, wanted)
            place = Path(report.place)
            taken = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
            assert least <= taken <= most <= 2 * taken
            assert report.replayed_bytes >= 10_000_000
            start, look = (step.partition(": ")[2] for step in report.next_steps[:2])
            try:
                subprocess.run(start, shell=True, check=True, timeout=120, stdout=subprocess.DEVNULL)  # noqa: S602 - as it is printed
                asked = f"{look} -Atc 'SELECT count(*) FROM public.more'"
                found = subprocess.run(asked, shell=True, check=True, timeout=120, capture_output=True, text=True)  # noqa: S602
                assert found.stdout.strip() == "20000"
            finally:
                Cluster(place, pg_tools, place, 5433).stop(mode="immediate")
        finally:
            lab.cluster.stop(mode="immediate")


def test_a_database_and_a_superuser_that_were_renamed_since_the_backup(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        try:
            lab.run("CREATE DATABASE studio", "CREATE ROLE admin SUPERUSER LOGIN")
            given = lab.installation.settings.model_dump(exclude_unset=True)
            given["platform"]["dsn"] = lab.cluster.dsn("studio", "admin")
            installation = Installation(Settings.model_validate(given))
            take_backup(installation, BackupOrder(BackupType.FULL, engine="basebackup"))
            with connect(lab.cluster.dsn(user="admin"), autocommit=True) as session:
                session.execute("ALTER DATABASE studio RENAME TO archived")
                session.execute("ALTER ROLE postgres RENAME TO chief")
                session.execute("SELECT pg_create_restore_point('renamed')")
                session.execute("ALTER ROLE chief RENAME TO postgres")
            lab.switch()
            target = RecoveryTarget(TargetKind.NAME, name="renamed")
            with explored(installation, target) as there, connect(there.found.connection) as session:
                row = session.execute("SELECT current_user, current_database()").fetchone()
                assert row == ("chief", "postgres")
            # Where none of the roles that could be there is, nobody waits for one.
            with pytest.raises(RecoveryFailed, match="nobody can ask the restored server"):
                run_restore(lab.installation, order(lab, target, "refused"))
        finally:
            lab.cluster.stop(mode="immediate")


SLOW_PYTHON = """\
#!/bin/sh
case "$*" in *" fetch "*) sleep 2; while [ -e {hang} ]; do sleep 1; done;; esac
exec {python} "$@"
"""


def test_replay_takes_as_long_as_it_moves(pg_tools: PgTools) -> None:
    """Each segment takes two seconds and more to come; six may pass without one."""
    with reachable_dir() as root:
        python, hang = root / "slow_python", root / "hang"
        lab = make_lab(pg_tools, root, drills={"timeout_seconds": 15, "full_read": False})
        archive = lab.archive.listing()
        fast = install_archiving(
            lab.installation,
            system_identifier=archive.system_identifier,
            segment_size_bytes=archive.segment_size_bytes,
        )
        python.write_text(SLOW_PYTHON.format(hang=hang, python=fast.python))
        python.chmod(0o755)
        try:
            lab.back_up()
            for number in range(1, 11):
                lab.commit(number)
                lab.run("SELECT pg_switch_wal()")
            lab.switch()
            given = lab.installation.settings.model_dump(exclude_unset=True)
            given["wal"]["python"] = python
            slow = Installation(Settings.model_validate(given))
            report = run_restore(slow, order(lab, RecoveryTarget(), "slow"))
            assert report.phases["replay"] > 15
            with pytest.raises(RecoveryStuck, match="has replayed nothing for 15 s") as stuck:
                run_restore(
                    slow, order(lab, RecoveryTarget(), "stuck"), lambda _: hang.touch() if _ == "replay" else None
                )
            assert "drills.timeout_seconds" in str(stuck.value.hint)
        finally:
            hang.unlink(missing_ok=True)
            lab.cluster.stop(mode="immediate")
