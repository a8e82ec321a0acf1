"""Tablespaces of a restored cluster: in folders of their own, named or beside it, never in the original's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.values import RestoreStatus
from lifeboat.errors import SettingsError
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.folders import give_to
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source with two tablespaces, a chain of two backups, and a catalog."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        migrate(made.installation.source)
        for name in ("fast", "slow"):
            (root / name).mkdir()
            give_to(root / name, pg_tools.user)
            made.run(
                f"CREATE TABLESPACE {name} LOCATION '{root / name}'",
                f"CREATE TABLE public.on_{name} TABLESPACE {name} AS SELECT i FROM generate_series(1, 1000) i",
            )
        made.back_up()
        made.run("DELETE FROM public.on_fast WHERE i > 500")
        made.back_up(BackupType.INCREMENTAL)
        yield made
        made.cluster.stop(mode="immediate")


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_tablespaces_go_where_they_are_told(lab: RecoveryLab) -> None:
    lab.commit(1)
    at = lab.moment()
    lab.run("DROP TABLE public.on_slow")
    lab.switch()
    target = RecoveryTarget(TargetKind.TIME, at=at)
    lab.run("CHECKPOINT")
    before = contents(lab.root / "fast"), contents(lab.root / "slow")
    mapped = lab.root / "elsewhere" / "slow"
    place = RestoreTo.parse(f"new:{lab.root / 'restored'}")
    with pytest.raises(SettingsError, match="no tablespace at"):
        run_restore(lab.installation, RestoreOrder(target, place, tablespaces={Path("/nowhere"): mapped}))
    with pytest.raises(SettingsError, match="not empty"):
        run_restore(lab.installation, RestoreOrder(target, place, tablespaces={lab.root / "slow": lab.root / "fast"}))
    within = lab.root / "restored" / "slow"
    with pytest.raises(SettingsError, match="lie within each other"):
        run_restore(lab.installation, RestoreOrder(target, place, tablespaces={lab.root / "slow": within}))
    mapped.mkdir(parents=True)
    order = RestoreOrder(target, place, tablespaces={lab.root / "slow": mapped})
    report = run_restore(lab.installation, order)
    links = [Path(os.readlink(path)) for path in (lab.root / "restored" / "pg_tblspc").iterdir()]
    assert mapped in links
    assert all(path.is_relative_to(lab.root / "restored.tablespaces") for path in links if path != mapped)
    with lab.opened(lab.root / "restored") as dsn:
        assert lab.value("SELECT count(*) FROM public.on_fast", dsn) == 500
        assert lab.value("SELECT count(*) FROM public.on_slow", dsn) == 1000
        lab.rows("DELETE FROM public.on_slow RETURNING i", dsn)
        lab.rows("DELETE FROM public.on_fast RETURNING i", dsn)
        lab.rows("SELECT pg_reload_conf()", dsn)
    assert (contents(lab.root / "fast"), contents(lab.root / "slow")) == before
    # The catalog could be reached here, so it knows.
    (row,) = [row for row in lab.installation.catalog.restores.list_restores().rows if row.id == report.id]
    assert row.status is RestoreStatus.COMPLETED
    assert row.recovery_target_at == at
    assert row.phases_json["replay"] > 0
    assert not any("catalog does not know" in note for note in report.notes)
    failed = lab.installation.catalog.restores.list_restores().rows[-1]
    assert failed.status is RestoreStatus.FAILED
    assert failed.error is not None
