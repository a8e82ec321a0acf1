"""A repository that has backups already gets manifests for them."""

from uuid import uuid4

from lifeboat.engines.engine import Watch
from lifeboat.engines.pgbackrest.adoption import adopt_backups, adopted_id
from lifeboat.engines.pgbackrest.restoring import restore_backup
from lifeboat.storage.manifest import BackupType
from tests.support.pgbackrest import BackedUp, take

F, D, I = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL  # noqa: E741


def test_backups_of_pgbackrest_itself_get_manifests_once(source: BackedUp) -> None:
    program = source.engine.prepare()
    for kind in ("full", "diff", "incr"):
        program.run("backup", f"--type={kind}", doing="backing up by hand")
    labels = [item.label for item in source.engine.info().backup]
    system = source.engine.identity().system_identifier
    source.server.stop()
    found = adopt_backups(source.engine.reader(), source.engine.where, source.repository, superuser="postgres")
    assert [manifest.label for manifest in found.adopted] == labels
    assert found.left == {}
    stored = [item.manifest for item in source.repository.backups()]
    assert stored == list(found.adopted)
    assert [manifest.id for manifest in stored] == [adopted_id(system, label) for label in labels]
    assert [manifest.type for manifest in stored] == [F, D, I]
    assert [manifest.parent_id for manifest in stored] == [None, stored[0].id, stored[1].id]
    assert [manifest.label for manifest in source.repository.chain(labels[-1])] == labels
    assert all(manifest.size_bytes > 0 and manifest.objects == [] for manifest in stored)
    restore_backup(source.engine.reader(), stored[-1], source.root / "restored")
    again = adopt_backups(source.engine.reader(), source.engine.where, source.repository, superuser="postgres")
    assert (again.adopted, again.left) == ((), {})


def test_a_backup_of_ours_without_a_manifest_keeps_its_id(source: BackedUp) -> None:
    identifier = uuid4()
    full = take(source, F, Watch(identifier=identifier))
    take(source, I)
    found = adopt_backups(source.engine.reader(), source.engine.where, source.repository, superuser="postgres")
    assert found.adopted[0].id == identifier
    assert found.adopted[1].parent_id == identifier
    # An expired one does not come back.
    source.repository.expire(str(found.adopted[1].label))
    source.repository.expire(str(full.label))
    again = adopt_backups(source.engine.reader(), source.engine.where, source.repository, superuser="postgres")
    assert again.adopted == ()
