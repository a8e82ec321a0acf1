"""PostgreSQL's programs: found, run with the connection in the environment, moved where the account reaches them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat import commands
from lifeboat.postgres.binaries import (
    EMBEDDED_PACKAGE,
    BinariesMissing,
    PgTools,
    discover_bin_dir,
    find_embedded_bin_dir,
    reachable_bin_dir,
)
from lifeboat.postgres.connections import ConnectionInfo
from tests.support.postgres import DEBIAN_15

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs programs as another account")


def test_the_embedded_server_is_found_without_importing_its_package() -> None:
    found = find_embedded_bin_dir()

    assert (found / "pg_combinebackup").is_file()
    assert PgTools(found).version("pg_dump").major == 18
    assert PgTools(found).version("pg_dump").text.startswith("18.")


def test_a_setting_comes_first(tmp_path: Path) -> None:
    assert discover_bin_dir() == find_embedded_bin_dir()
    with pytest.raises(BinariesMissing, match=f"no PostgreSQL programs in {tmp_path}"):
        discover_bin_dir(tmp_path)
    if DEBIAN_15.is_dir():
        assert discover_bin_dir(DEBIAN_15) == DEBIAN_15
        assert PgTools(DEBIAN_15).version() == PgTools(DEBIAN_15).version("pg_dump")


def test_debian_then_path_stand_in_for_a_missing_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifeboat.postgres.binaries.EMBEDDED_PACKAGE", "no_such_package")
    for version in ("9", "14", "17"):
        (tmp_path / version / "bin").mkdir(parents=True)
        (tmp_path / version / "bin" / "pg_dump").touch(mode=0o755)
    monkeypatch.setattr("lifeboat.postgres.binaries._DEBIAN_ROOT", tmp_path)
    assert discover_bin_dir() == tmp_path / "17" / "bin"

    monkeypatch.setattr("lifeboat.postgres.binaries._DEBIAN_ROOT", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path / "14" / "bin"))
    assert discover_bin_dir() == tmp_path / "14" / "bin"

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BinariesMissing, match="not installed"):
        discover_bin_dir()


def test_tls_support_is_known() -> None:
    assert not PgTools(find_embedded_bin_dir()).supports_tls()
    if DEBIAN_15.is_dir():
        assert PgTools(DEBIAN_15).supports_tls()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    tools = PgTools(tmp_path)

    assert not tools.has("pg_dump")
    with pytest.raises(commands.ToolMissing, match="pg_dump"):
        tools.path("pg_dump")


def test_the_connection_travels_in_the_environment(pg_tools: PgTools, fresh_database: str) -> None:
    info = ConnectionInfo.parse(fresh_database)

    done = pg_tools.run("psql", ["-AtXc", "SELECT current_database()"], connection=info, timeout_seconds=30)

    assert done.stdout.strip() == info.database
    assert "dbname" not in " ".join(done.argv)


def test_a_password_is_redacted_from_what_a_program_prints(pg_tools: PgTools, fresh_database: str) -> None:
    info = ConnectionInfo.parse(fresh_database).with_parameters(password="hunter2")

    with pytest.raises(commands.CommandFailed) as caught:
        pg_tools.run("psql", ["-Xc", "hunter2"], connection=info, timeout_seconds=30)

    assert "***" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def closed_install() -> Iterator[Path]:
    """The embedded installation in a folder that only root may enter, as in an environment under /root."""
    closed = Path(tempfile.mkdtemp())
    install = find_embedded_bin_dir().parent
    libraries = install.parent.with_name(f"{EMBEDDED_PACKAGE}.libs")
    shutil.copytree(install, closed / EMBEDDED_PACKAGE / install.name, symlinks=True)
    shutil.copytree(libraries, closed / libraries.name)
    yield closed / EMBEDDED_PACKAGE / install.name / "bin"
    shutil.rmtree(closed)


@ROOT_ONLY
def test_programs_under_roots_home_are_copied_once(closed_install: Path, reachable_tmp: Path) -> None:
    user = commands.effective_user(None)
    with pytest.raises(commands.CommandFailed):
        PgTools(closed_install, user).version("pg_dump")

    copied = reachable_bin_dir(closed_install, user, reachable_tmp / "programs")

    assert PgTools(copied, user).version("pg_dump").major == 18
    assert PgTools(copied, user).version("postgres").major == 18
    before = (copied / "postgres").stat().st_mtime_ns, (copied / "postgres").stat().st_ino
    assert reachable_bin_dir(closed_install, user, reachable_tmp / "programs") == copied
    assert ((copied / "postgres").stat().st_mtime_ns, (copied / "postgres").stat().st_ino) == before
    assert [path.name for path in (reachable_tmp / "programs").iterdir()] == [copied.parents[2].name]
    assert not list(copied.parents[2].rglob("*.a"))


@ROOT_ONLY
def test_a_copy_that_others_can_change_is_not_run(closed_install: Path, reachable_tmp: Path) -> None:
    user = commands.effective_user(None)
    copied = reachable_bin_dir(closed_install, user, reachable_tmp / "programs")
    copied.parents[2].chmod(0o777)

    with pytest.raises(BinariesMissing, match="could be changed by another account"):
        reachable_bin_dir(closed_install, user, reachable_tmp / "programs")


@ROOT_ONLY
def test_a_closed_runtime_folder_is_a_clear_error(closed_install: Path) -> None:
    user = commands.effective_user(None)
    closed = closed_install.parents[2] / "programs"

    with pytest.raises(BinariesMissing, match="either") as caught:
        reachable_bin_dir(closed_install, user, closed)

    assert str(closed) in (caught.value.hint or "")


def test_our_own_account_needs_no_copy(pg_tools: PgTools, tmp_path: Path) -> None:
    assert reachable_bin_dir(find_embedded_bin_dir(), None, tmp_path) == find_embedded_bin_dir()
    assert list(tmp_path.iterdir()) == []
