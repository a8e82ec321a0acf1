"""An encrypted repository, with spaces in the paths of all that pgBackRest and the server's commands touch."""

from pathlib import Path

import pytest

from lifeboat.operations.backup.expire import apply_retention, plan_retention
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.postgres.folders import make_private_dir
from lifeboat.recovery.targets import RecoveryTarget, TargetKind
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from tests.drills.test_restore_pgbackrest import Story, newest_in
from tests.support.pgbackrest import BackedUp, Pair, archive, engine_for, fast_folder, new_server
from tests.support.postgres import reachable_dir


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_an_encrypted_repository_is_restored_from_and_expired(pair: Pair, pair_template: Path) -> None:
    with reachable_dir("life boat of pgbackrest ", parent=fast_folder()) as root:
        engine_settings: dict[str, object] = {
            "archive_timeout_seconds": 20,
            "repository_path": make_private_dir(root / "the safe", pair.tools.user) / "repo",
            "cipher_type": "aes-256-cbc",
            "cipher_passphrase": 'words that nobody % "knows"',
        }
        store = make_private_dir(root / "my store", pair.tools.user)
        server = new_server(root, pair_template, pair.tools)
        settings = {
            "state_dir": root / "state",
            "platform": {"cluster": "studio", "dsn": server.dsn(), "bin_dir": pair.tools.bin_dir},
            "destinations": {"primary": {"path": store, "minimum_free_bytes": 0}},
            "backup": {"engine": "pgbackrest"},
            "retention": {"keep_last": 1, "keep_days": 0},
            "engines": {"pgbackrest": {"program": pair.program, **engine_settings}},
        }
        installation = Installation(Settings.model_validate(settings))
        engine = engine_for(server, root, store, pair.program, **engine_settings)
        archive(server, engine)
        repository = installation.writable_repository()
        story = Story(BackedUp(engine, server, root, store, repository))
        old = take_backup(installation, BackupOrder(BackupType.FULL))
        story.beat()
        story.beat()
        story.archive()
        target = RecoveryTarget(TargetKind.TIME, at=story.at[1])
        report = run_restore(installation, RestoreOrder(target, RestoreTo.parse(f"new:{root / 'restored here'}")))
        assert newest_in(Path(report.place), pair, root) == 1
        listing = wal_archive(installation).listing()
        assert (listing.damaged, listing.unknown) == ((), ())
        new = take_backup(installation, BackupOrder(BackupType.FULL))
        expired = apply_retention(installation, plan_retention(installation))
        assert [label for label, _ in expired.expired] == [old.label]
        info = installation.pgbackrest().info()
        assert [item.label for item in info.backup] == [new.label]
        assert info.archive[0].min == info.backup[0].archive.start
        stored = next((engine.folders.repository / "archive").rglob("0000*-*.gz"))
        assert stored.read_bytes().startswith(b"Salted__")
