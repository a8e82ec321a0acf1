"""How much space a restore is told to take, and below how much it is refused: from lists of files and positions."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from lifeboat.operations.restore.needed_space import certain_bytes, needed_bytes
from lifeboat.operations.restore.planning import PlannedRestore, RecoveryMaterial
from lifeboat.operations.restore.room import NoRoomForRestore
from lifeboat.operations.restore.tablespaces import TablespaceMap
from lifeboat.recovery.planning import RestorePlan
from lifeboat.recovery.spans import ArchivedWal, BackupPoint, Span, SpanEnd
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.recovery.timelines import path_to
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.storage.signing import Signer, TrustedKeys
from lifeboat.wal.names import Segment
from tests.support.catalog import NOON

GIGABYTE = 1 << 30
SEGMENT = 16 << 20
# It took two segments, and the archive goes on for a thousand: 16 GB.
POINT = BackupPoint("B", "basebackup", 1, 4 * SEGMENT, 6 * SEGMENT, NOON, ("B",))
SPAN = Span(POINT, path_to(1, {}, {1}), 5, 1005, Segment(1, 1006, SEGMENT), SpanEnd.ARCHIVE)
OWN = 2 * SEGMENT
Make = Callable[..., PlannedRestore]


@pytest.fixture
def plan(tmp_path: Path) -> Make:
    """Plans a restore to a target from backups with these files, by path and size in bytes."""
    signer = Signer.load_or_create(tmp_path / "signing.pem")
    destination = FilesystemDestination("primary", tmp_path / "store")
    destination.check()
    repository = BackupRepository(destination, "studio", signer, TrustedKeys.of(signer))

    def publish(files: dict[str, int]) -> Manifest:
        backup = repository.begin(BackupType.FULL, NOON)
        lines = [f'{{ "Path": "{path}", "Size": {size}, "Last-Modified": "x" }},\n' for path, size in files.items()]
        folder = backup.directory / "base"
        folder.mkdir(parents=True)
        (folder / "backup_manifest").write_text("".join(lines))
        assert repository.signer is not None
        manifest = Manifest(
            id=uuid4(),
            label=backup.label,
            set_id=uuid4(),
            type=BackupType.FULL,
            engine="basebackup",
            cluster="studio",
            started_at=NOON,
            completed_at=NOON,
            objects=backup.seal(),
            compression="none",
            restore=[],
            tools={},
            lifeboat_version="0",
            signed_by=repository.signer.key_id,
        )
        repository.publish(backup, manifest)
        return manifest

    def make(target: RecoveryTarget, *backups: dict[str, int]) -> PlannedRestore:
        wal = ArchivedWal.of((), (), {}, SEGMENT)
        settings = target.settings(1)
        restore = RestorePlan(target, POINT, SPAN, settings, NOON, None)
        return PlannedRestore(restore, [publish(files) for files in backups], RecoveryMaterial(repository, (), wal))

    return make


def test_the_end_of_a_backup_replays_nothing(plan: Make) -> None:
    planned = plan(RecoveryTarget(TargetKind.BACKUP, backup="B"), {"base/1/1": 10 * GIGABYTE})
    assert certain_bytes(planned) == 10 * GIGABYTE + OWN
    assert certain_bytes(planned) < needed_bytes(planned) <= 10 * GIGABYTE + OWN + 2 * SEGMENT


def test_no_guess_of_what_replay_adds_or_leaves_refuses_a_restore(plan: Make) -> None:
    planned = plan(RecoveryTarget(), {"base/1/1": 10 * GIGABYTE})
    assert certain_bytes(planned) == 10 * GIGABYTE + OWN
    assert needed_bytes(planned) > 20 * GIGABYTE


def test_only_wal_that_a_backup_brings_along_is_certain(plan: Make) -> None:
    planned = plan(RecoveryTarget(), {"base/1/1": 10 * GIGABYTE})
    fetched = replace(planned, plan=replace(planned.plan, backup=replace(POINT, own_wal=False)))
    assert certain_bytes(fetched) == 10 * GIGABYTE
    known = planned.manifest.model_copy(update={"details": {"cluster_bytes": 3 * GIGABYTE}})
    assert certain_bytes(replace(planned, chain=[known])) == 3 * GIGABYTE


def test_wal_counts_up_to_where_replay_stops(plan: Make) -> None:
    planned = plan(RecoveryTarget(TargetKind.LSN, lsn=9 * SEGMENT + 100), {"base/1/1": GIGABYTE})
    assert certain_bytes(planned) == GIGABYTE + OWN
    assert needed_bytes(planned) == GIGABYTE + OWN + (4 + 4 + 2) * SEGMENT
    latest = replace(planned, plan=replace(planned.plan, target=RecoveryTarget(), settings={}))
    assert needed_bytes(latest, landing_lsn=9 * SEGMENT + 100) == needed_bytes(planned)


def test_a_chain_is_there_twice_until_it_is_combined_and_only_then(plan: Make) -> None:
    full = {"base/1/1": 10 * GIGABYTE, "base/1/2": 4 * GIGABYTE, "base/1/gone": 2 * GIGABYTE}
    changed = {"base/1/INCREMENTAL.1": GIGABYTE, "base/1/INCREMENTAL.2": 4096, "base/1/3": GIGABYTE}
    planned = plan(RecoveryTarget(), full, changed)
    unpacked = sum(full.values()) + sum(changed.values())
    assert certain_bytes(planned) == unpacked + 15 * GIGABYTE + OWN
    # What replay adds comes when the parts are gone.
    assert needed_bytes(planned) == 2 * unpacked + OWN
    long = replace(planned.plan, span=replace(SPAN, last_number=2005))
    replayed = min(2000 * SEGMENT, unpacked)
    assert needed_bytes(replace(planned, plan=long)) == unpacked + replayed + 2 * GIGABYTE + 2 * SEGMENT + OWN


def test_a_list_that_cannot_be_read_refuses_by_what_is_stored(plan: Make, tmp_path: Path) -> None:
    planned = plan(RecoveryTarget(TargetKind.BACKUP, backup="B"), {"base/1/1": 10 * GIGABYTE})
    stored = planned.manifest.size_bytes
    (found,) = tmp_path.rglob("backup_manifest")
    found.unlink()
    assert certain_bytes(planned) == stored + OWN
    assert needed_bytes(planned) > certain_bytes(planned)


def test_a_tool_that_knows_the_clusters_size_is_asked_for_it(plan: Make) -> None:
    planned = plan(RecoveryTarget(TargetKind.BACKUP, backup="B"), {}, {})
    known = planned.manifest.model_copy(update={"details": {"cluster_bytes": 7 * GIGABYTE}})
    assert certain_bytes(replace(planned, chain=[planned.chain[0], known])) == 7 * GIGABYTE


def test_a_tablespace_must_fit_in_the_volume_that_it_goes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "data.tablespaces" / "16385", tmp_path / "data" / "pg_tblspc" / "16385"
    for folder in (real, link.parent):
        folder.mkdir(parents=True)
    (real / "file").write_bytes(bytes(2000))
    link.symlink_to(real)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1999))
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        if Path(elsewhere).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is one filesystem only")
        spaces = TablespaceMap({"16385": Path(elsewhere) / "fast"})
        with pytest.raises(NoRoomForRestore, match="needs about 2,000 bytes below"):
            spaces.place(tmp_path / "data", None)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2000))
        spaces.place(tmp_path / "data", None)
        assert (link / "file").read_bytes() == bytes(2000)
    assert not real.exists()
