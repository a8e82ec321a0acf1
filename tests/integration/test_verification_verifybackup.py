"""PostgreSQL's own pg_verifybackup: what it complains about is named, and where it does not work it says nothing."""

import shutil
from pathlib import Path

import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_to
from lifeboat.verification.verifybackup import PROGRAM, verify_directory


def take(cluster: Cluster, target: Path, *options: str | Path) -> Path:
    """A plain base backup with its WAL, as unpacking leaves it."""
    fixed: list[str | Path] = ["-D", target, "-c", "fast", "-X", "fetch", "--manifest-checksums=SHA256", "--no-sync"]
    connection = ConnectionInfo.parse(cluster.dsn())
    cluster.tools.run("pg_basebackup", [*fixed, *options], connection=connection, timeout_seconds=120)
    return target


def works(tools: PgTools) -> bool:
    """Whether the program runs at all: the embedded PostgreSQL's crashes."""
    return "pginstall18" not in str(tools.bin_dir)


def test_a_sound_backup_and_its_damage(each_cluster: Cluster, reachable_tmp: Path) -> None:
    tools, folder = each_cluster.tools, take(each_cluster, reachable_tmp / "backup")
    sound = verify_directory(tools, folder, timeout_seconds=60)
    with (folder / "global/pg_control").open("r+b") as file:
        file.seek(100)
        file.write(b"damaged")
    (folder / "base/1/1259").unlink()
    damaged = verify_directory(tools, folder, timeout_seconds=60)
    if not works(tools):
        assert sound == damaged
        assert sound.problems == ()
        assert "crashes (signal 11)" in str(sound.reason)
        return
    assert (sound.problems, sound.reason, damaged.reason) == ((), None, None)
    assert len(damaged.problems) == 2
    assert any("1259" in problem for problem in damaged.problems)
    assert any("checksum mismatch" in problem and "pg_control" in problem for problem in damaged.problems)


def test_it_reads_the_wal_of_the_backup_too(each_cluster: Cluster, reachable_tmp: Path) -> None:
    if not works(each_cluster.tools):
        pytest.skip("the embedded PostgreSQL's pg_verifybackup crashes at its start")
    folder = take(each_cluster, reachable_tmp / "backup")
    for segment in (folder / "pg_wal").glob("0*"):
        if segment.is_file():
            segment.write_bytes(bytes(segment.stat().st_size))
    assert any(
        "WAL parsing failed" in line
        for line in verify_directory(each_cluster.tools, folder, timeout_seconds=60).problems
    )


def test_tablespaces_that_were_unpacked_in_place(
    each_cluster: Cluster, each_database: str, reachable_tmp: Path
) -> None:
    if not works(each_cluster.tools):
        pytest.skip("the embedded PostgreSQL's pg_verifybackup crashes at its start")
    space = reachable_tmp / "space"
    space.mkdir()
    give_to(space, each_cluster.tools.user)
    with connect(each_database, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE in_place LOCATION '{space}'")
        connection.execute("CREATE TABLE public.t TABLESPACE in_place AS SELECT generate_series(1, 5000) AS a")
        try:
            folder = take(each_cluster, reachable_tmp / "plain", "-T", f"{space}={reachable_tmp / 'moved'}")
            (link,) = (path for path in (folder / "pg_tblspc").iterdir() if path.is_symlink())
            link.unlink()
            shutil.move(reachable_tmp / "moved", link)
            assert verify_directory(each_cluster.tools, folder, timeout_seconds=60).problems == ()
        finally:
            connection.execute("DROP TABLE public.t")
            connection.execute("DROP TABLESPACE in_place")


@pytest.mark.parametrize(
    ("end", "reason", "problems"),
    [
        ("kill -SEGV $$", "it crashes (signal 11)", ()),
        (
            "echo 'pg_verifybackup: error: out of luck' >&2; exit 3",
            "exit code 3: pg_verifybackup: error: out of luck",
            (),
        ),
        ("exit 1", None, ("it found a problem and did not name it",)),
    ],
    ids=["signal", "another exit code", "silent complaint"],
)
def test_only_a_complaint_speaks_against_the_backup(
    reachable_tmp: Path, end: str, reason: str | None, problems: tuple[str, ...]
) -> None:
    """A stand-in that starts well: which program would crash in mid-run cannot be had."""
    program = reachable_tmp / PROGRAM
    program.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{PROGRAM} (PostgreSQL) 18.4"; exit 0; }}\n{end}\n'
    )
    program.chmod(0o755)
    result = verify_directory(PgTools(reachable_tmp), reachable_tmp, timeout_seconds=60)
    assert result.problems == problems
    assert (result.reason or "").endswith(reason or "")
    assert (result.reason is None) == (reason is None)


def test_a_program_that_is_not_there_is_no_fault(reachable_tmp: Path) -> None:
    result = verify_directory(PgTools(reachable_tmp), reachable_tmp, timeout_seconds=60)
    assert result.problems == ()
    assert result.reason == f"there is no {PROGRAM} in {reachable_tmp}"
