"""A repository on a real folder: what counts as a backup, and what does not."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from lifeboat.storage.destination import ObjectMissing
from lifeboat.storage.events import Event, EventKind
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.storage.manifest import BackupType, Manifest, ManifestError
from lifeboat.storage.repository import BackupRepository
from lifeboat.storage.signing import Signer, TrustedKeys
from lifeboat.storage.unfinished import UnfinishedBackup

AT = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path: Path) -> BackupRepository:
    """An empty repository with a key of its own."""
    signer = Signer.load_or_create(tmp_path / "keys" / "signing.pem")
    destination = FilesystemDestination("primary", tmp_path / "store")
    destination.check()
    return BackupRepository(destination, "studio", signer, TrustedKeys.of(signer))


def publish(repository: BackupRepository, backup: UnfinishedBackup, payload: bytes = b"payload") -> Manifest:
    """Fill and publish a backup."""
    (backup.directory / "data").mkdir()
    (backup.directory / "data" / "payload.bin").write_bytes(payload)
    assert repository.signer is not None
    manifest = Manifest(
        id=uuid4(),
        label=backup.label,
        set_id=uuid4(),
        type=BackupType.FULL,
        engine="basebackup",
        cluster="studio",
        started_at=AT,
        completed_at=AT,
        objects=backup.seal(),
        compression="none",
        restore=[],
        tools={},
        lifeboat_version="0",
        signed_by=repository.signer.key_id,
    )
    repository.publish(backup, manifest)
    return manifest


def test_a_published_backup_reads_back_as_it_was_written(repository: BackupRepository) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    assert repository.labels() == ["20261122-190000F"]
    assert repository.manifest(manifest.label) == manifest
    assert list(repository.check_objects(manifest)) == []
    assert repository.unfinished_labels() == []


def test_a_folder_without_manifest_is_no_backup_and_a_living_writer_keeps_it(repository: BackupRepository) -> None:
    backup = repository.begin(BackupType.FULL, AT)
    assert repository.labels() == []
    assert repository.unfinished_labels() == [backup.label]
    assert repository.remove_unfinished(backup.label) is False
    backup.release()
    assert repository.remove_unfinished(backup.label) is True
    assert repository.unfinished_labels() == []


def test_two_backups_of_one_second_get_two_labels(repository: BackupRepository) -> None:
    backups = [repository.begin(BackupType.FULL, AT) for _ in range(3)]
    assert [backup.label for backup in backups] == ["20261122-190000F", "20261122-190001F", "20261122-190002F"]
    for backup in backups:
        backup.abandon()
    assert repository.unfinished_labels() == []


def test_an_abandoned_backup_leaves_nothing(repository: BackupRepository) -> None:
    backup = repository.begin(BackupType.FULL, AT)
    (backup.directory / "half").write_bytes(b"x")
    backup.abandon()
    assert repository.destination.names("studio") == []


@pytest.mark.parametrize("change", [b"0", b""], ids=["changed", "emptied"])
def test_a_changed_manifest_is_refused(repository: BackupRepository, tmp_path: Path, change: bytes) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    path = tmp_path / "store" / "studio" / manifest.label / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"20261122", b"2026112" + change) if change else b"")
    with pytest.raises(ManifestError, match="not signed by a trusted key"):
        repository.manifest(manifest.label)


def test_a_manifest_of_another_key_is_refused(repository: BackupRepository, tmp_path: Path) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    other = Signer.load_or_create(tmp_path / "other.pem")
    stranger = BackupRepository(repository.destination, "studio", other, TrustedKeys.of(other))
    with pytest.raises(ManifestError, match="trusted key"):
        stranger.manifest(manifest.label)
    trusting = TrustedKeys.of(other, [tmp_path / "keys" / "signing.pem.pub"])
    reader = BackupRepository(repository.destination, "studio", other, trusting)
    assert reader.manifest(manifest.label) == manifest


def test_a_manifest_moved_to_another_label_is_refused(repository: BackupRepository, tmp_path: Path) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    folder = tmp_path / "store" / "studio"
    (folder / manifest.label).rename(folder / "20261123-190000F")
    with pytest.raises(ManifestError, match="describes studio/20261122-190000F"):
        repository.manifest("20261123-190000F")


def test_damage_to_the_payload_is_named(repository: BackupRepository, tmp_path: Path) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT), b"0123456789")
    path = tmp_path / "store" / "studio" / manifest.label / "data" / "payload.bin"
    path.write_bytes(b"012345678X")
    assert "has changed" in next(iter(repository.check_objects(manifest)))
    path.write_bytes(b"012")
    assert "has 3 bytes instead of 10" in next(iter(repository.check_objects(manifest)))
    path.unlink()
    assert "is missing" in next(iter(repository.check_objects(manifest)))


def test_events_add_up_to_a_state(repository: BackupRepository) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))

    def happen(kind: EventKind, minute: int) -> None:
        at = AT.replace(minute=minute)
        repository.append_event(Event(kind=kind, at=at, backup_id=manifest.id, label=manifest.label))

    happen(EventKind.VERIFIED, 1)
    happen(EventKind.PINNED, 2)
    state = repository.load(manifest.label).state
    assert state.verified
    assert state.pinned
    happen(EventKind.DRILL_FAILED, 3)
    happen(EventKind.UNPINNED, 4)
    happen(EventKind.SUSPECT, 5)
    state = repository.load(manifest.label).state
    assert not state.verified
    assert not state.pinned
    assert state.suspect


def test_a_forged_event_is_refused(repository: BackupRepository, tmp_path: Path) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    event = Event(kind=EventKind.VERIFIED, at=AT, backup_id=manifest.id, label=manifest.label)
    folder = tmp_path / "store" / "studio" / manifest.label / "events"
    folder.mkdir()
    (folder / event.object_name()).write_text(event.model_dump_json())
    with pytest.raises(ManifestError, match="has no signature"):
        repository.load(manifest.label)


def test_an_expired_backup_is_none_but_its_record_stays(repository: BackupRepository) -> None:
    manifest = publish(repository, repository.begin(BackupType.FULL, AT))
    repository.append_event(Event(kind=EventKind.EXPIRED, at=AT, backup_id=manifest.id, label=manifest.label))
    repository.expire(manifest.label)
    repository.expire(manifest.label)
    assert repository.labels() == []
    assert repository.unfinished_labels() == []
    (left,) = repository.expired()
    assert left.manifest == manifest
    assert left.state.expired_at == AT
    with pytest.raises(ObjectMissing):
        repository.open_object(manifest.label, "data/payload.bin")


def test_a_chain_without_its_parent_is_told(repository: BackupRepository) -> None:
    full = publish(repository, repository.begin(BackupType.FULL, AT))
    backup = repository.begin(BackupType.INCREMENTAL, AT, full.label)
    assert backup.label == "20261122-190000F_20261122-190000I"
    (backup.directory / "x").write_bytes(b"x")
    child = full.model_copy(
        update={"id": uuid4(), "label": backup.label, "parent_label": full.label, "objects": backup.seal()}
    )
    repository.publish(backup, child)
    assert [manifest.label for manifest in repository.chain(child.label)] == [full.label, child.label]
    repository.expire(full.label)
    with pytest.raises(ObjectMissing):
        repository.chain(child.label)
