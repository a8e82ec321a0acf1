"""The installed archive program as the server runs it: another account, a shell, kills, full disks, closed folders."""

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lifeboat import commands
from lifeboat.postgres.folders import FolderUnreachable, give_to
from lifeboat.wal.archive_program import durable, layout
from lifeboat.wal.coverage import scan_archive
from lifeboat.wal.install import (
    InstalledProgram,
    check_archive,
    install_archive_program,
    prepare_archive,
)
from lifeboat.wal.interpreter import ArchiveProgramUnusable, choose_python
from tests.support.wal import (
    ArchiveForTest,
    make_archive,
    make_segment,
    run_as_server,
    start_as,
    with_mode,
)

SIZE_BYTES = 4 << 20
NAME = "000000010000000000000007"
OTHER = "000000010000000000000008"


@dataclass(frozen=True)
class Installation:
    """An archive, the program installed for it, and the account that runs it."""

    archive: ArchiveForTest
    program: InstalledProgram

    @property
    def user(self) -> str | None:
        return self.program.user

    def source(self, name: str, *, filling: int = 0) -> Path:
        path = self.archive.work / f"{name}.{filling}"
        path.write_bytes(make_segment(name, size_bytes=SIZE_BYTES, filling=filling, compressible=False))
        give_to(path, self.user)
        return path

    def push(self, source: Path, name: str) -> subprocess.CompletedProcess[str]:
        return run_as_server(self.program.archive_command, source, name, self.user)

    def fetch(self, name: str) -> subprocess.CompletedProcess[str]:
        return run_as_server(self.program.restore_command, self.target, name, self.user)

    @property
    def target(self) -> Path:
        return self.archive.work / "RECOVERYXLOG"

    def start_push(self, source: Path, name: str) -> subprocess.Popen[str]:
        """A push without a shell around it, so that a signal reaches Python."""
        program = self.program
        call = [program.python, "-I", "-S", program.program, "push", "--config", program.config]
        return start_as(self.user, [*map(str, call), str(source), name])

    def unfinished(self) -> list[Path]:
        return [path for path in self.archive.folder.rglob("*") if durable.is_temporary(path.name)]


@pytest.fixture
def installation(reachable_tmp: Path) -> Installation:
    user = commands.effective_user(None)
    archive = make_archive(reachable_tmp, user=user, segment_size_bytes=SIZE_BYTES, compression_level=9)
    program = install_archive_program(reachable_tmp / "it's 100%p", archive.config, user=user)
    check_archive(program)
    return Installation(archive, program)


def test_segment_goes_there_and_back_as_the_servers_account(installation: Installation) -> None:
    source = installation.source(NAME)
    for _ in range(2):
        pushed = installation.push(source, NAME)
        assert (pushed.returncode, pushed.stdout, pushed.stderr) == (0, "", "")
    fetched = installation.fetch(NAME)
    assert (fetched.returncode, fetched.stdout, fetched.stderr) == (0, "", "")
    assert installation.target.read_bytes() == source.read_bytes()
    assert installation.unfinished() == []


@pytest.mark.skipif(shutil.which("gzip") is None, reason="gzip is not installed")
def test_stock_gzip_gives_the_segment(installation: Installation) -> None:
    source = installation.source(NAME)
    installation.push(source, NAME)
    stored = installation.archive.stored_path(NAME)
    done = subprocess.run(["gzip", "-dc", stored], capture_output=True, check=True)
    assert done.stdout == source.read_bytes()


def test_push_killed_at_any_moment_leaves_nothing_that_looks_whole(installation: Installation) -> None:
    source = installation.source(NAME)
    archive = installation.archive
    killed = 0
    for _ in range(16):
        push = installation.start_push(source, NAME)
        time.sleep(random.uniform(0, 0.35))  # noqa: S311 - any moment will do
        push.kill()
        push.communicate()
        killed += push.returncode == -signal.SIGKILL
        listing = scan_archive(Path(archive.config.path), archive.config.cluster)
        assert (listing.damaged, listing.unknown) == ((), ())
        for item in listing.files:
            assert b"".join(layout.read_entry(str(item.path), SIZE_BYTES)) == source.read_bytes()
            item.path.unlink()
    assert killed > 0
    for path in installation.unfinished():
        os.utime(path, (time.time() - 2 * durable.LEFTOVER_AGE_SECONDS,) * 2)
    assert installation.push(source, NAME).returncode == 0
    assert installation.unfinished() == []
    assert installation.fetch(NAME).returncode == 0
    assert installation.target.read_bytes() == source.read_bytes()


def test_push_that_is_asked_to_stop_cleans_up(installation: Installation) -> None:
    push = installation.start_push(installation.source(NAME), NAME)
    deadline = time.monotonic() + 20
    while not installation.unfinished() and time.monotonic() < deadline:
        time.sleep(0.002)
    push.send_signal(signal.SIGTERM)
    _, said = push.communicate(timeout=20)
    assert push.returncode == 1
    assert "stopped by signal 15" in said
    assert (installation.unfinished(), installation.archive.stored()) == ([], {})


def test_identical_pushes_at_once_all_succeed(installation: Installation) -> None:
    source = installation.source(NAME)
    pushes = [installation.start_push(source, NAME) for _ in range(5)]
    assert [push.communicate()[1] for push in pushes] == [""] * 5
    assert [push.returncode for push in pushes] == [0] * 5
    assert len(installation.archive.stored()) == 1


def test_of_different_pushes_at_once_one_succeeds(installation: Installation) -> None:
    sources = [installation.source(NAME, filling=filling) for filling in range(5)]
    pushes = [installation.start_push(source, NAME) for source in sources]
    said = [push.communicate()[1] for push in pushes]
    assert sorted(push.returncode for push in pushes) == [0, 1, 1, 1, 1]
    winner = next(source for source, push in zip(sources, pushes, strict=True) if push.returncode == 0)
    assert installation.fetch(NAME).returncode == 0
    assert installation.target.read_bytes() == winner.read_bytes()
    assert sum("a different file of this name is archived" in text for text in said) == 4
    assert len(installation.archive.stored()) == 1


def test_look_and_rename_happen_under_the_folders_lock(installation: Installation) -> None:
    installation.push(installation.source(OTHER), OTHER)
    (stored,) = installation.archive.stored()
    lock = os.open(installation.archive.folder / NAME[:16] / durable.LOCK_NAME, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pushes = [installation.start_push(installation.source(NAME, filling=filling), NAME) for filling in (1, 2)]
        deadline = time.monotonic() + 20
        while len(installation.unfinished()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1)
        assert [push.poll() for push in pushes] == [None, None]
        assert set(installation.archive.stored()) - set(map(archive_name, installation.unfinished())) == {stored}
    finally:
        os.close(lock)
    for push in pushes:
        push.communicate()
    assert sorted(push.returncode for push in pushes) == [0, 1]


def archive_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_absence_is_answered_only_when_it_is_certain(installation: Installation) -> None:
    for absent in (OTHER, "00000002.history", f"{OTHER}.partial", "0000000A0000000900000009"):
        answer = installation.fetch(absent)
        assert (answer.returncode, answer.stderr) == (1, "")
    installation.push(installation.source(NAME), NAME)
    assert installation.fetch(OTHER).returncode == 1
    assert not installation.target.exists()


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone from disk"])
def test_damaged_segment_stops_recovery(installation: Installation, damage: str) -> None:
    installation.push(installation.source(NAME), NAME)
    stored = installation.archive.stored_path(NAME)
    content = stored.read_bytes()
    if damage == "gone from disk":
        stored.unlink()
        stored.symlink_to("/nowhere")
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 4
        stored.write_bytes({"bit": bytes(flipped), "cut": content[:-9], "empty": b""}[damage])
    answer = installation.fetch(NAME)
    assert answer.returncode == 255
    assert "HINT: " in answer.stderr
    assert not installation.target.exists()


@pytest.mark.parametrize("closed", ["wal", "wal/0000000100000000", "wal/archive.json", "segment"])
def test_what_may_not_be_read_stops_recovery(installation: Installation, closed: str) -> None:
    installation.push(installation.source(NAME), NAME)
    archive = installation.archive
    path = archive.stored_path(NAME) if closed == "segment" else archive.folder.parent / closed
    with with_mode(path, 0):
        answers = [installation.fetch(name) for name in (NAME, OTHER)]
    # With the segment alone closed, another one is certainly absent.
    assert [answer.returncode for answer in answers] == [255, 1 if closed == "segment" else 255]
    assert "Permission denied" in answers[0].stderr
    assert "`lifeboat doctor`" in answers[0].stderr


@pytest.mark.parametrize("lost", ["archive", "cluster", "destination", "config", "program", "python"])
def test_what_is_lost_stops_recovery_and_archiving(installation: Installation, lost: str) -> None:
    source = installation.source(NAME)
    installation.push(source, NAME)
    program = installation.program
    folder = installation.archive.folder
    if lost == "python":
        program = InstalledProgram(program.program, program.config, Path("/nowhere/python3"), program.user)
    else:
        path = {
            "archive": folder,
            "cluster": folder.parent,
            "destination": folder.parent.parent,
            "config": program.config,
            "program": program.program,
        }[lost]
        path.rename(path.with_name(f"{path.name} away"))
    fetched = run_as_server(program.restore_command, installation.target, OTHER, installation.user)
    assert fetched.returncode == 255
    assert fetched.stderr
    pushed = run_as_server(program.archive_command, source, NAME, installation.user)
    assert pushed.returncode == 1
    assert pushed.stderr
    if lost == "destination":
        assert not folder.parent.parent.exists()


def test_archive_without_write_access_refuses_the_segment(installation: Installation) -> None:
    folder = installation.archive.folder
    with with_mode(folder, 0o550), with_mode(folder / "history", 0o550):
        pushed = installation.push(installation.source(NAME), NAME)
        assert pushed.returncode == 1
        assert "Permission denied" in pushed.stderr
        with pytest.raises(ArchiveProgramUnusable, match="Permission denied"):
            check_archive(installation.program)
        check_archive(installation.program, for_push=False)


@pytest.fixture
def small_disk(reachable_tmp: Path) -> Iterator[Path]:
    """A destination of 10 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    path = reachable_tmp / "destination"
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=10m", "lifeboat-test", path], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", path], check=True)


def test_full_destination_fails_loudly_and_recovers(small_disk: Path, reachable_tmp: Path) -> None:
    user = commands.effective_user(None)
    archive = make_archive(reachable_tmp, user=user, segment_size_bytes=SIZE_BYTES)
    assert Path(archive.config.path) == small_disk
    installation = Installation(archive, install_archive_program(reachable_tmp / "state", archive.config, user=user))
    names = [f"0000000100000000000000{number:02X}" for number in range(16, 20)]
    results = [installation.push(installation.source(name), name) for name in names]
    assert [done.returncode for done in results] == [0, 0, 1, 1]
    assert "No space left on device" in results[-1].stderr
    assert "HINT: Free or add space" in results[-1].stderr
    assert results[-1].stderr.count("\n") == 1
    assert installation.unfinished() == []
    archive.stored_path(names[0]).unlink()
    assert installation.push(installation.source(names[3]), names[3]).returncode == 0


def test_nothing_is_written_below_the_minimum_of_free_space(small_disk: Path, reachable_tmp: Path) -> None:
    user = commands.effective_user(None)
    archive = make_archive(reachable_tmp, user=user, segment_size_bytes=SIZE_BYTES, minimum_free_bytes=8 << 20)
    assert Path(archive.config.path) == small_disk
    installation = Installation(archive, install_archive_program(reachable_tmp / "state", archive.config, user=user))
    assert installation.push(installation.source(NAME), NAME).returncode == 0
    refused = installation.push(installation.source(OTHER), OTHER)
    assert refused.returncode == 1
    assert "below the minimum of 8388608" in refused.stderr
    assert len(archive.stored()) == 1


def test_python_that_the_account_cannot_execute_is_not_chosen(installation: Installation, reachable_tmp: Path) -> None:
    closed = reachable_tmp / "closed"
    closed.mkdir()
    python = closed / "python3"
    shutil.copy(installation.program.python, python)
    with (
        with_mode(closed, 0),
        pytest.raises(ArchiveProgramUnusable, match="no Python runs the archive program") as caught,
    ):
        choose_python(installation.program.program, user=installation.user, configured=python)
    assert str(python) in caught.value.message
    assert "[wal]" in str(caught.value.hint)


@pytest.mark.parametrize("script", ["exit 3", "echo 1 3.8", "echo", "echo hello", "echo 1 x.y"])
def test_program_that_is_no_python_is_not_chosen(installation: Installation, reachable_tmp: Path, script: str) -> None:
    impostor = reachable_tmp / "python3"
    impostor.write_text(f"#!/bin/sh\n{script}\n")
    impostor.chmod(0o755)
    with pytest.raises(ArchiveProgramUnusable):
        choose_python(installation.program.program, user=installation.user, configured=impostor)


def test_state_folder_that_the_account_cannot_reach_is_refused(reachable_tmp: Path) -> None:
    user = commands.effective_user(None)
    if user is None:
        pytest.skip("our own account reaches its own folders")
    archive = make_archive(reachable_tmp, user=user)
    private = reachable_tmp / "private"
    private.mkdir(mode=0o700)
    with pytest.raises(FolderUnreachable, match="private"):
        install_archive_program(private / "wal", archive.config, user=user)


def test_installing_again_replaces_the_files_under_a_running_server(installation: Installation) -> None:
    before = {path: path.stat() for path in (installation.program.program, installation.program.config)}
    prepare_archive(installation.archive.config, user=installation.user)
    again = install_archive_program(
        installation.program.program.parent, installation.archive.config, user=installation.user
    )
    assert again == installation.program
    for path, status in before.items():
        assert path.stat().st_ino != status.st_ino
        assert path.stat().st_mode & 0o777 == 0o644
    assert installation.push(installation.source(NAME), NAME).returncode == 0


def test_root_pushing_by_hand_leaves_the_archive_to_the_server(installation: Installation) -> None:
    if installation.user is None:
        pytest.skip("only root writes for another account")
    by_hand = InstalledProgram(
        installation.program.program, installation.program.config, installation.program.python, None
    )
    source = installation.source(NAME)
    assert run_as_server(by_hand.archive_command, source, NAME, None).returncode == 0
    assert installation.push(source, NAME).returncode == 0
    assert installation.push(installation.source(OTHER), OTHER).returncode == 0
    assert installation.fetch(NAME).returncode == 0


def test_fast_path_imports_nothing_heavy() -> None:
    code = (
        "import sys; import lifeboat.wal.command_line as c;"
        "code = c.main(['lifeboat', 'wal', 'fetch', '--config', '/nowhere/wal.json', 'x', 'y']);"
        "print(code, [n for n in ('pydantic', 'typer', 'psycopg', 'rich', 'logging') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "255 []\n"
