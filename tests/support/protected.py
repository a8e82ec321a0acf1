"""A RecoveryLab whichever engine protects its server: our own archive and base backups, or pgBackRest's repository."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomlkit

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.postgres.binaries import find_embedded_bin_dir
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to, make_private_dir
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.archive import WalArchive
from lifeboat.wal.names import parse_lsn, segment_before
from tests.support.agent import soon
from tests.support.pgbackrest import Pair, archive, fast_folder, pair_of
from tests.support.postgres import reachable_dir, tools_for
from tests.support.recovery import SCHEMA, SEGMENT_BYTES, RecoveryLab, make_lab

BASEBACKUP = "basebackup of the embedded 18"
PGBACKREST = ("debian 12", "debian 13")
ENGINES = (BASEBACKUP, *PGBACKREST)


class PgBackRestLab(RecoveryLab):
    """The same with pgBackRest: it keeps backups and WAL in one repository."""

    @property
    def archive(self) -> WalArchive:  # type: ignore[override]  # the tests read it as a WalArchive only
        """The WAL of the repository."""
        return wal_archive(self.installation)

    @property
    def wal_folder(self) -> Path:
        """Where the archive's files are."""
        return self.installation.pgbackrest().folders.repository / "archive"

    def switch(self) -> str:
        """Commit something, have the current segment archived, wait until it is; returns its name."""
        with connect(self.cluster.dsn(), autocommit=True) as session:
            session.execute("SELECT pg_logical_emit_message(true, 'lab', 'switch')")
            row = session.execute("SELECT pg_walfile_name(pg_current_wal_lsn()), pg_switch_wal()").fetchone()
            assert row is not None
            name = segment_before(parse_lsn(row[1]), int(row[0][:8], 16), SEGMENT_BYTES).name
            soon(lambda: bool(list(self.wal_folder.rglob(f"{name}-*"))), timeout_seconds=120)
        return name

    def back_up(self, kind: BackupType = BackupType.FULL, engine: str = "pgbackrest") -> str:
        """Take a backup; returns its label."""
        return take_backup(self.installation, BackupOrder(kind, engine=engine)).label

    def stored(self, name: str) -> Path:
        """The archived file of a WAL file's name."""
        (found,) = self.wal_folder.rglob(f"{name}-*")
        return found


def make_pgbackrest_lab(pair: Pair, root: Path, **sections: object) -> PgBackRestLab:
    """A running source with the tables of SCHEMA that pgBackRest protects."""
    cluster = Cluster(root / "source" / "data", pair.tools, root / "run", 5434)
    (root / "source").mkdir()
    give_to(root / "source", pair.tools.user)
    cluster.init(extra_args=["--wal-segsize=1", "--no-sync"])
    make_private_dir(root / "store", pair.tools.user)
    cluster.write_settings(
        {
            "listen_addresses": "",
            "fsync": False,
            "max_wal_size": "256MB",
            "track_commit_timestamp": True,
            "wal_level": "replica",
            "archive_mode": True,
            "archive_command": "false",
        }
    )
    cluster.start()
    given: dict[str, object] = {
        "state_dir": root / "state",
        "platform": {"cluster": "studio", "dsn": cluster.dsn(), "bin_dir": pair.tools.bin_dir},
        "destinations": {"primary": {"path": root / "store", "minimum_free_bytes": 0}},
        "backup": {"engine": "pgbackrest"},
        "wal": {"archive_timeout_seconds": 0, "segment_timeout_seconds": 120},
        "engines": {"pgbackrest": {"program": pair.program, "archive_timeout_seconds": 60}},
        "catalog": {"connect_timeout_seconds": 2},
    }
    installation = Installation(Settings.model_validate({**given, **sections}))
    archive(cluster, installation.pgbackrest())
    made = PgBackRestLab(root, cluster, installation)
    made.run(SCHEMA)
    return made


@contextmanager
def protected(engine: str, runtime_dir: Path, **sections: object) -> Iterator[RecoveryLab]:
    """A lab for one of ENGINES; its folders and servers go at the end."""
    pair = None if engine == BASEBACKUP else pair_of(engine, runtime_dir)
    with reachable_dir("lifeboat-lab-", parent=fast_folder() if pair is not None else None) as root:
        if pair is None:
            made = make_lab(tools_for(find_embedded_bin_dir(), runtime_dir), root, **sections)
        else:
            made = make_pgbackrest_lab(pair, root, **sections)
        yield made
        made.cluster.stop(mode="immediate")


def write_settings_of(lab: RecoveryLab, **sections: object) -> Path:
    """The lab's settings as a file; `sections` replace or add some."""
    path = lab.root / "lifeboat.toml"
    given = lab.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    given["platform"]["dsn"] = lab.cluster.dsn()
    path.write_text(tomlkit.dumps({**given, **sections}))
    path.chmod(0o600)
    return path
