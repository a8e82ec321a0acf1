"""The integrity check on what pg_basebackup really writes: plain, tar, incremental, with a tablespace."""

from pathlib import Path

import pytest

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_to
from lifeboat.verification.integrity import check_directory, check_tar


def take(cluster: Cluster, target: Path, *options: str | Path) -> Path:
    """A base backup with SHA-256 checksums."""
    fixed: list[str | Path] = ["-D", target, "-c", "fast", "--manifest-checksums=SHA256", "--no-sync"]
    cluster.tools.run(
        "pg_basebackup",
        [*fixed, *options],
        connection=ConnectionInfo.parse(cluster.dsn()),
        timeout_seconds=120,
    )
    return target


def test_a_plain_backup_and_its_damage(each_cluster: Cluster, reachable_tmp: Path) -> None:
    folder = take(each_cluster, reachable_tmp / "plain")
    report = check_directory(folder)
    assert report.problems == ()
    assert report.files > 900
    assert report.unhashed_files == 0

    (folder / "standby.signal").touch()
    (folder / "base/1/1259").unlink()
    with (folder / "global/pg_control").open("r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    (folder / "PG_VERSION").write_text("1")
    (folder / "base/4711").write_text("new")
    assert list(map(str, check_directory(folder).problems)) == [
        "PG_VERSION: 1 bytes instead of 3",
        "base/1/1259: missing",
        "base/4711: not in the backup manifest",
        "global/pg_control: checksum differs",
    ]


@pytest.mark.parametrize("compression", ["none", "client-gzip:1"])
def test_a_tar_backup_with_a_tablespace(
    each_cluster: Cluster, each_database: str, reachable_tmp: Path, compression: str
) -> None:
    space = reachable_tmp / "space"
    space.mkdir()
    give_to(space, each_cluster.tools.user)
    with connect(each_database, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE spare LOCATION '{space}'")
        connection.execute("CREATE TABLE public.t TABLESPACE spare AS SELECT generate_series(1, 5000) AS a")
        try:
            folder = take(each_cluster, reachable_tmp / "tar", "-Ft", f"--compress={compression}")
            archives = {path.name: path for path in folder.iterdir() if ".tar" in path.name}
            assert len(archives) == 3  # base, the tablespace, pg_wal
            report = check_tar(archives, folder / "backup_manifest")
            assert report.problems == ()
            (tablespace,) = (name for name in archives if name.split(".")[0].isdigit())
            del archives[tablespace]
            missing = check_tar(archives, folder / "backup_manifest").problems
            assert missing
            assert all(problem.path.startswith(f"pg_tblspc/{tablespace.split('.')[0]}/PG_") for problem in missing)
            whole = f"{space}={reachable_tmp / 'moved'}"
            plain = take(each_cluster, reachable_tmp / "plain", "-T", whole)
            assert check_directory(plain).problems == ()
        finally:
            connection.execute("DROP TABLE public.t")
            connection.execute("DROP TABLESPACE spare")


def test_an_incremental_backup(each_cluster: Cluster, each_database: str, reachable_tmp: Path) -> None:
    if each_cluster.tools.major < 17:
        pytest.skip("PostgreSQL takes incremental backups since 17")
    with connect(each_cluster.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET summarize_wal = on")
        connection.execute("SELECT pg_reload_conf()")
        full = take(each_cluster, reachable_tmp / "full")
        with connect(each_database, autocommit=True) as other:
            other.execute("CREATE TABLE public.t AS SELECT generate_series(1, 100)")
        manifest = f"--incremental={full / 'backup_manifest'}"
        folder = take(each_cluster, reachable_tmp / "incremental", "-Ft", manifest)
        connection.execute("ALTER SYSTEM RESET summarize_wal")
        connection.execute("SELECT pg_reload_conf()")
    report = check_tar({"base.tar": folder / "base.tar"}, folder / "backup_manifest")
    assert report.problems == ()
    assert "INCREMENTAL." in (folder / "backup_manifest").read_text()
