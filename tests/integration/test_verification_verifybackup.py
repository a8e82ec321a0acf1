"""PostgreSQL's own pg_verifybackup: what it complains about is named, and where it does not work it says nothing."""

import shutil
from pathlib import Path

import pytest

from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.folders import give_to
from lifeboat.verification.verifybackup import PROGRAM, FileCheckFailed, verify_directory

HEAD = f"{PROGRAM}: error: "
MISMATCH = 'checksum mismatch for file "base/5/1259"'
WAL = "WAL parsing failed for timeline 1"


def said(*lines: str) -> str:
    """What a stand-in does that prints these lines and ends with 1."""
    return "\n".join([*(f"echo '{line}' >&2" for line in lines), "exit 1"])


def stand_in(folder: Path, end: str) -> None:
    """A shell script in place of the program."""
    program = folder / PROGRAM
    program.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo "{PROGRAM} (PostgreSQL) 18.4"; exit 0; }}\n{end}\n'
    )
    program.chmod(0o755)


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
        ("kill -SEGV $$", "the program in this installation crashes (signal 11)", ()),
        (
            "echo 'pg_verifybackup: error: out of luck' >&2; exit 3",
            "exit code 3: pg_verifybackup: error: out of luck",
            (),
        ),
        (said(f"{HEAD}could not open file", f"{HEAD}{MISMATCH}"), None, (MISMATCH,)),
        (said(*[f"{HEAD}{MISMATCH}"] * 30), None, (MISMATCH,) * 20),
        (
            said("pg_waldump: error: could not find a valid record after 0/2000028", f"{HEAD}{WAL}"),
            None,
            (WAL, "pg_waldump: could not find a valid record after 0/2000028"),
        ),
    ],
    ids=["signal", "another exit code", "complaint beside trouble", "many complaints", "WAL"],
)
def test_only_a_complaint_speaks_against_the_backup(
    reachable_tmp: Path, end: str, reason: str | None, problems: tuple[str, ...]
) -> None:
    """A stand-in that starts well: which program would crash in mid-run cannot be had."""
    stand_in(reachable_tmp, end)
    result = verify_directory(PgTools(reachable_tmp), reachable_tmp, timeout_seconds=60)
    assert result.problems == problems
    assert (result.reason or "").endswith(reason or "")
    assert (result.reason is None) == (reason is None)


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [f"{HEAD}out of memory"],
        [f'{HEAD}could not read file "base/1/1259": Input/output error'],
        [f'{HEAD}program "pg_waldump" was found by "/bin/x" but was not the same version as pg_verifybackup'],
        [f"{HEAD}could not parse backup manifest: out of memory"],
        ["sh: 1: /bin/pg_waldump: Permission denied", f"{HEAD}{WAL}"],
        ['pg_waldump: error: could not open file "0001": Too many open files', f"{HEAD}{WAL}"],
        [
            f'{HEAD}could not open directory "base/1": Permission denied',
            *[f'{HEAD}"base/1/1259" is present in the manifest but not on disk'] * 60,
        ],
        [f'{HEAD}could not open file "{MISMATCH}": Permission denied'],
    ],
)
def test_trouble_of_its_own_is_no_answer(reachable_tmp: Path, lines: list[str]) -> None:
    stand_in(reachable_tmp, said(*lines))
    with pytest.raises(FileCheckFailed, match="could not check") as caught:
        verify_directory(PgTools(reachable_tmp), reachable_tmp, timeout_seconds=60)
    assert caught.value.transient
    assert (lines[0] if lines else "no message") in caught.value.message


def test_files_that_it_may_not_read_speak_against_nothing(each_cluster: Cluster, reachable_tmp: Path) -> None:
    """The real program, with a folder and a file closed to its account, and with every kind of damage."""
    tools = each_cluster.tools
    if not works(tools):
        pytest.skip("the embedded PostgreSQL's pg_verifybackup crashes at its start")
    folder = take(each_cluster, reachable_tmp / "backup")
    for closed in (folder / "base/1", folder / "PG_VERSION"):
        mode = closed.stat().st_mode
        closed.chmod(0)
        with pytest.raises(FileCheckFailed, match="Permission denied"):
            verify_directory(tools, folder, timeout_seconds=60)
        closed.chmod(mode)
    (folder / "base/1/more").write_bytes(b"")
    with (folder / "base/1/1259").open("ab") as file:
        file.write(b"longer")
    (folder / "base/1/1247").unlink()
    problems = verify_directory(tools, folder, timeout_seconds=60).problems
    wanted = [
        '"base/1/more" is present on disk but not in the manifest',
        '"base/1/1259" has size ',
        '"base/1/1247" is present in the manifest but not on disk',
    ]
    assert len(problems) == 3
    assert all(any(line.startswith(words) for line in problems) for words in wanted)
    text = (folder / "backup_manifest").read_text()
    (folder / "backup_manifest").write_text(text.replace("1259", "1258", 1))
    assert verify_directory(tools, folder, timeout_seconds=60).problems == ("manifest checksum mismatch",)
    (folder / "backup_manifest").write_text(text[: len(text) // 2])
    (problem,) = verify_directory(tools, folder, timeout_seconds=60).problems
    assert problem.startswith("could not parse backup manifest: ")


def test_a_program_that_is_not_there_is_no_fault(reachable_tmp: Path) -> None:
    result = verify_directory(PgTools(reachable_tmp), reachable_tmp, timeout_seconds=60)
    assert result.problems == ()
    assert result.reason == f"there is no {PROGRAM} in {reachable_tmp}"
