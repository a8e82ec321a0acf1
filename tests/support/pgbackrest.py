"""pgBackRest for tests: each version of it on this machine with a PostgreSQL that it knows, and servers it backs up."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from lifeboat.engines.engine import Parent, Taken, Watch
from lifeboat.engines.pgbackrest.configuration import Folders
from lifeboat.engines.pgbackrest.engine import PgBackRestEngine
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_tree_to, make_private_dir
from lifeboat.settings.pgbackrest import PgBackRestSettings
from lifeboat.storage.filesystem import FilesystemDestination
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.storage.signing import Signer, TrustedKeys
from tests.support.postgres import DEBIAN_15, absent, reachable_dir, tools_for

CLUSTER = "studio"
_MEMORY = Path("/dev/shm")  # noqa: S108 - the folders in it are private
_MEMORY_BYTES = 2 << 30
CACHE = Path(os.environ.get("TRIXIE_CACHE") or "/var/cache/lifeboat-tests")


@dataclass(frozen=True)
class Pair:
    """A pgBackRest and the PostgreSQL that it is tested with."""

    name: str
    program: Path
    tools: PgTools


@dataclass(frozen=True)
class BackedUp:
    """A running server that archives with pgBackRest, and a destination for its backups."""

    engine: PgBackRestEngine
    server: Cluster
    root: Path
    destination: Path
    repository: BackupRepository

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A connection to its database."""
        return connect(self.server.dsn(), autocommit=True)

    def with_settings(self, **changes: object) -> PgBackRestEngine:
        """The engine with other settings, for the same server; it needs `archive` again."""
        values = {**self.engine.settings.model_dump(), **changes}
        settings = PgBackRestSettings.model_validate(values)
        folders = Folders.of(settings, cluster=CLUSTER, destination=self.destination, state_dir=self.root / "state")
        return replace(self.engine, settings=settings, folders=folders)


def archive(server: Cluster, engine: PgBackRestEngine) -> None:
    """Make the stanza and have the server archive to it; archive_mode is on already."""
    command = engine.prepare().archive_command
    engine.ensure_stanza()
    with connect(server.dsn(), autocommit=True) as session:
        session.execute(sql.SQL("ALTER SYSTEM SET archive_command = {}").format(command))
    server.reload()


def new_server(root: Path, template: Path, tools: PgTools, *, port: int = 5433) -> Cluster:
    """A started server with archive_mode on and no archive_command yet."""
    server = Cluster(root / "data", tools, root / "run", port)
    shutil.copytree(template, server.data_dir, symlinks=True)
    give_tree_to(server.data_dir, tools.user)
    server.write_settings(
        {
            "listen_addresses": "",
            "fsync": False,
            "archive_mode": True,
            "archive_command": "false",
            "wal_level": "logical",
        }
    )
    server.start()
    return server


def engine_for(server: Cluster, root: Path, destination: Path, program: Path, **settings: object) -> PgBackRestEngine:
    """The engine for a server, its destination below `root`."""
    made = PgBackRestSettings.model_validate({"program": program, "archive_timeout_seconds": 20, **settings})
    return PgBackRestEngine(
        tools=server.tools,
        connection=ConnectionInfo.parse(server.dsn()),
        settings=made,
        folders=Folders.of(made, cluster=CLUSTER, destination=destination, state_dir=root / "state"),
        cluster=CLUSTER,
        timeout_seconds=120,
        cluster_folder=destination / CLUSTER,
    )


def fast_folder() -> Path | None:
    """Memory where there is some: pgBackRest flushes each of a thousand files, and nothing here has to survive."""
    try:
        enough = shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES and os.access(_MEMORY, os.W_OK)
    except OSError:
        return None
    return _MEMORY if enough else None


@contextmanager
def backed_up(pair: Pair, template: Path, *, signer_dir: Path, **settings: object) -> Iterator[BackedUp]:
    """A new server with a stanza of its own, all of it below one folder that goes in the end."""
    with reachable_dir("lifeboat-pgbackrest-", parent=fast_folder()) as root:
        destination = make_private_dir(root / "store", pair.tools.user)
        server = new_server(root, template, pair.tools)
        engine = engine_for(server, root, destination, pair.program, **settings)
        archive(server, engine)
        signer = Signer.load_or_create(signer_dir / "signing.pem")
        repository = BackupRepository(
            FilesystemDestination("primary", destination, owner=pair.tools.user),
            CLUSTER,
            signer,
            TrustedKeys.of(signer, []),
        )
        yield BackedUp(engine, server, root, destination, repository)


def pair_of(name: str, runtime_dir: Path) -> Pair:
    """pgBackRest 2.45 with PostgreSQL 15 (`debian 12`), or 2.55 with 17 (`debian 13`); skips where it is not here."""
    if name == "debian 13":
        tree = CACHE / "trixie"
        if not (tree / ".ready").exists():
            absent(f"there is no Debian 13 tree in {CACHE} (tests/support/trixie.sh makes one)")
        return Pair(name, tree / "usr/bin/pgbackrest", tools_for(tree / "usr/lib/postgresql/17/bin", runtime_dir))
    program = shutil.which("pgbackrest")
    if program is None or not (DEBIAN_15 / "postgres").exists():
        absent("pgbackrest or PostgreSQL 15 is not installed")
    return Pair(name, Path(program), tools_for(DEBIAN_15, runtime_dir))


@pytest.fixture(scope="session", params=["debian 12", "debian 13"])
def pair(request: pytest.FixtureRequest, runtime_dir: Path) -> Pair:
    """pgBackRest 2.45 with PostgreSQL 15, then 2.55 with PostgreSQL 17 from the tree that trixie.sh makes."""
    return pair_of(request.param, runtime_dir)


@pytest.fixture(scope="session")
def pair_template(pair: Pair) -> Iterator[Path]:
    """The data directory of a new cluster of the pair's PostgreSQL, to be copied: faster than initdb."""
    with reachable_dir() as path:
        template = Cluster(path / "data", pair.tools, path / "run")
        template.init(extra_args=["--no-sync", "--wal-segsize=1", "--data-checksums"])
        yield template.data_dir


@pytest.fixture
def source(pair: Pair, pair_template: Path, tmp_path: Path) -> Iterator[BackedUp]:
    """A server of its own for one test."""
    with backed_up(pair, pair_template, signer_dir=tmp_path) as made:
        yield made


def take(source: BackedUp, kind: BackupType, watch: Watch | None = None, *, parent: Parent | None = None) -> Taken:
    """A backup by the engine alone; without a parent it builds on what pgBackRest chooses."""
    return source.engine.take(source.root, kind, "20260101-000000F", parent, watch or Watch())


def parent_of(source: BackedUp, taken: Taken) -> Parent:
    """The parent that take_backup would name."""
    return Parent(manifest_of(source, taken), None)


def manifest_of(source: BackedUp, taken: Taken) -> Manifest:
    """The manifest that take_backup would write."""
    now = datetime.now(UTC)
    identifier = uuid4()
    return Manifest(
        id=identifier,
        label=str(taken.label),
        set_id=identifier,
        type=taken.type,
        engine=taken.engine,
        cluster=CLUSTER,
        started_at=now,
        completed_at=now,
        pg_version=taken.pg_version,
        system_identifier=taken.system_identifier,
        timeline=taken.timeline,
        start_lsn=taken.start_lsn,
        stop_lsn=taken.stop_lsn,
        objects=[],
        compression=taken.compression,
        restore=taken.restore,
        tools=dict(taken.tools),
        details=dict(taken.details),
        lifeboat_version="test",
        signed_by=source.repository.signer.key_id if source.repository.signer else "",
    )
