"""PostgreSQL for tests: an embedded server a session, fresh databases in it, folders it can reach."""

import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from psycopg import sql

from lifeboat import commands
from lifeboat.postgres.binaries import PgTools, discover_bin_dir, find_embedded_bin_dir, reachable_bin_dir
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.embedded import EmbeddedServer
from lifeboat.postgres.folders import give_to, give_tree_to
from lifeboat.postgres.postmaster import end_servers_in

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
REQUIRED_VARIABLE = "REQUIRE_PGBACKREST"


def absent(why: str) -> NoReturn:
    """Skip; or fail, where the gate runs as root and could have installed it (`.ci/run` sets the variable)."""
    if os.environ.get(REQUIRED_VARIABLE):
        pytest.fail(f"{why}, and {REQUIRED_VARIABLE} is set", pytrace=False)
    pytest.skip(why)


@contextmanager
def reachable_dir(prefix: str = "lifeboat-test-", *, parent: Path | None = None) -> Iterator[Path]:
    """A folder that belongs to the server's account, removed with every server that runs in it.

    Pytest's own tmp_path lies below a folder of mode 0700, closed to that account when root runs the tests.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o711)
    give_to(path, commands.effective_user(None))
    try:
        yield path
    finally:
        end_servers_in(path)
        _remove(path)


def _remove(path: Path, *, attempts: int = 100) -> None:
    """Remove a folder into which a tool that outlives its server, as an asynchronous archiver does, may still write."""
    for attempt in range(attempts):
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or attempt == attempts - 1:
                raise
            time.sleep(0.1)
        else:
            return


def tools_for(bin_dir: Path, runtime_dir: Path) -> PgTools:
    """The programs in `bin_dir`, where the server's account can execute them."""
    user = commands.effective_user(None)
    return PgTools(reachable_bin_dir(bin_dir, user, runtime_dir), user)


@pytest.fixture(scope="session")
def runtime_dir() -> Iterator[Path]:
    """Where programs are copied to when the Python environment is closed to the server's account."""
    path = Path(tempfile.mkdtemp(prefix="lifeboat-programs-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def pg_tools(runtime_dir: Path) -> PgTools:
    """The embedded PostgreSQL's programs; TEST_BIN_DIR names others."""
    named = os.environ.get("TEST_BIN_DIR")
    return tools_for(discover_bin_dir(Path(named)) if named else find_embedded_bin_dir(), runtime_dir)


@pytest.fixture(scope="session", params=["embedded 18", "debian 15"])
def each_pg_tools(request: pytest.FixtureRequest, runtime_dir: Path) -> PgTools:
    """The programs of each PostgreSQL version on this machine, one after the other."""
    if request.param == "embedded 18":
        return tools_for(find_embedded_bin_dir(), runtime_dir)
    if not (DEBIAN_15 / "postgres").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    return tools_for(DEBIAN_15, runtime_dir)


@pytest.fixture(scope="session")
def each_template(each_pg_tools: PgTools) -> Iterator[Path]:
    """The data directory of a new cluster of each version, to be copied: faster than initdb."""
    with reachable_dir() as path:
        template = Cluster(path / "data", each_pg_tools, path / "run")
        template.init(extra_args=["--no-sync"])
        yield template.data_dir


def spare_the_disk(cluster: Cluster) -> None:
    """Only for speed: what tests write need not survive a power cut. Base backups take the setting with them."""
    with connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
    cluster.reload()


@pytest.fixture
def each_stopped_cluster(each_pg_tools: PgTools, each_template: Path, reachable_tmp: Path) -> Cluster:
    """A new cluster of each version, not started; `reachable_tmp` ends its server."""
    made = Cluster(reachable_tmp / "data", each_pg_tools, reachable_tmp / "run", 5433)
    shutil.copytree(each_template, made.data_dir, symlinks=True)
    give_tree_to(made.data_dir, each_pg_tools.user)
    made.write_settings({"listen_addresses": "", "fsync": False})
    return made


@pytest.fixture(scope="session")
def embedded_cluster(pg_tools: PgTools) -> Iterator[Cluster]:
    """One running server for the whole session; tests take databases in it from `fresh_database`."""
    with reachable_dir() as state_dir:
        # Settings that only make tests fast: what they write need not survive a power cut.
        settings = {"fsync": False, "max_connections": 200}
        server = EmbeddedServer(state_dir, settings=settings, bin_dir=pg_tools.bin_dir)
        yield server.start()
        server.stop()


@pytest.fixture
def fresh_database(embedded_cluster: Cluster) -> Iterator[str]:
    """The DSN of a new, empty database, dropped afterwards with every session in it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with connect(embedded_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield embedded_cluster.dsn(name)
    with connect(embedded_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def platform_dsn(fresh_database: str) -> str:
    """The platform's database: another name for `fresh_database`."""
    return fresh_database


@pytest.fixture
def reachable_tmp() -> Iterator[Path]:
    """A folder for one test that belongs to the server's account; servers in it are ended."""
    with reachable_dir() as path:
        yield path
