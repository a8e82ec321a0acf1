"""What a preview says of size, needs, time and space: as restores have it, and by what was measured."""

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.pages import DEFAULT_LIMIT
from lifeboat.catalog.values import RestoreStatus, RestoreTarget
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.preview.needs import restore_needs
from lifeboat.operations.preview.quick import PreviewOrder, RestorePreview, preview_restore
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.needed_space import certain_bytes, needed_bytes
from lifeboat.operations.restore.planning import plan_for, read_material
from lifeboat.operations.restore.recovered_cluster import require_room
from lifeboat.operations.restore.room import NoRoomForRestore
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture(scope="module")
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A server that archives, with a catalog, a full backup and WAL behind it."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        migrate(made.installation.catalog_connection)
        made.back_up()
        made.switch()
        yield made
        made.cluster.stop(mode="immediate")


def preview_at(lab: RecoveryLab, at: datetime) -> RestorePreview:
    return preview_restore(lab.installation, PreviewOrder(RecoveryTarget(TargetKind.TIME, at=at)))


def test_size_needs_and_time(lab: RecoveryLab) -> None:
    at = lab.moment()
    lab.run("UPDATE public.segments SET approved = true WHERE id = 1")
    lab.switch()
    before = preview_at(lab, at)
    assert before.time.seconds is None
    assert "restore files" in before.time.not_measured
    assert run_drill(lab.installation, DrillOrder()).passed
    found = preview_at(lab, at)
    (manifest,) = [lab.installation.repository().manifest(label) for label in found.chain]
    assert found.size.backups_bytes == manifest.size_bytes
    assert found.size.wal_segments >= 1
    assert 0 < found.size.wal_stored_bytes < found.size.wal_bytes
    assert found.needs.disk_bytes >= manifest.size_bytes
    assert found.needs.postgresql == manifest.pg_version
    assert "plpgsql" in found.needs.extensions
    assert found.needs.problems == ()
    assert found.time.seconds is not None
    assert found.time.phases["restore files"] > 0
    assert found.time.not_measured == ("replay",)
    with explored(lab.installation, RecoveryTarget(TargetKind.TIME, at=at)):
        pass
    record = partial(
        lab.installation.catalog.restores.record,
        target="a longer one",
        status=RestoreStatus.COMPLETED,
        actor="ada",
        completed_at=lab.moment(),
        label=manifest.label,
        phases={"replay": 1000.0},
        report={"replayed_bytes": 500 << 20},
    )
    measured = preview_at(lab, at).time.phases
    record(uuid4(), cluster="other", target_kind=RestoreTarget.EXPLORE, started_at=at)
    record(uuid4(), cluster="studio", target_kind=RestoreTarget.DATABASE, started_at=at)
    assert preview_at(lab, at).time.phases == measured
    record(uuid4(), cluster="studio", target_kind=RestoreTarget.IN_PLACE, started_at=at - timedelta(days=1))
    for _ in range(DEFAULT_LIMIT):
        record(uuid4(), cluster="other", target_kind=RestoreTarget.EXPLORE, started_at=at)
    after = preview_at(lab, at).time
    assert after.not_measured == ()
    assert after.phases["replay"] >= 1


def test_too_little_space_is_named_where_a_restore_is_refused(
    lab: RecoveryLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_for(lab.installation, read_material(lab.installation), RecoveryTarget())
    usage, least = shutil.disk_usage(lab.root), certain_bytes(planned)
    assert least < needed_bytes(planned)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=least))
    assert restore_needs(lab.installation, planned, None).problems == ()
    require_room(planned, lab.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=least - 1))
    (problem,) = restore_needs(lab.installation, planned, None).problems
    assert problem.endswith("1 bytes too few are free")
    with pytest.raises(NoRoomForRestore):
        require_room(planned, lab.root)
