"""The asset check under faults: killed in mid-run, a mount that goes away, files that the account may not read."""

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifeboat import commands
from lifeboat.assets.findings import AssetProgress, Finding
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.resume import ResumeFile
from lifeboat.assets.roots import AssetRootMissing, AssetRoots
from tests.support.assets import behind, flip_byte, record_of, write_assets

FILES, SIZE_BYTES = 600, 4000
# Reads at a rate that takes several times as long as the state needs to be saved.
CHECK = """
import json, sys
from pathlib import Path
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.records import AssetRecord
from lifeboat.assets.resume import ResumeFile

root, state, rate = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
records = [AssetRecord(**values) for values in json.load(sys.stdin)]
with ResumeFile(state) as resume:
    verify_assets(records, [root], workers=2, resume=resume, bytes_per_second=rate)
"""


def test_a_killed_check_goes_on_and_loses_no_finding(tmp_path: Path) -> None:
    root, state_file = tmp_path / "assets", tmp_path / "state.json"
    records = write_assets(root, FILES, size_bytes=SIZE_BYTES)
    damaged = records[3::100]
    for record in damaged:
        flip_byte(root / record.path)
    listing = json.dumps([{name: getattr(record, name) for name in record.__slots__} for record in records])
    process = subprocess.Popen(
        [sys.executable, "-c", CHECK, root, state_file, str(FILES * SIZE_BYTES // 12)], stdin=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    process.stdin.write(listing)
    process.stdin.close()
    wait_for(lambda: state_file.exists() and json.loads(state_file.read_text())["corrupt"] > 0)

    process.send_signal(signal.SIGKILL)

    assert process.wait() == -signal.SIGKILL
    # The files are repaired: what was found before the kill is known only from the journal.
    with ResumeFile(state_file) as resume:
        kept = list(resume.findings())
        rest = behind(records, resume.position)
        report = verify_assets(rest, [root], resume=resume)
    assert kept
    assert 0 < len(rest) < FILES
    assert report.resumed
    assert report.checked == FILES
    assert report.corrupt == len(damaged)
    assert [finding.asset_id for finding in report.findings] == [record.id for record in damaged]
    assert report.bytes_checked == sum(record.size_bytes or 0 for record in records)


def wait_for(condition: Callable[[], bool], timeout_seconds: float = 30) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def as_server_account() -> Iterator[None]:
    """Work without root's right to read everything."""
    account = commands.effective_user(None)
    if account is None:
        yield
        return
    os.seteuid(pwd.getpwnam(account).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_that_the_account_may_not_read_are_unreadable(reachable_tmp: Path) -> None:
    root = reachable_tmp / "assets"
    records = write_assets(root, 120)
    closed_file, closed_folder = root / records[7].path, root / "001"
    closed_file.chmod(0)
    closed_folder.chmod(0)
    try:
        with as_server_account():
            report = verify_assets(records, [root])
    finally:
        closed_folder.chmod(0o755)

    assert report.checked == 120
    assert (report.missing, report.corrupt, report.unreadable) == (0, 0, 51)
    assert {finding.detail for finding in report.findings} == {"permission denied"}


def test_a_root_that_the_account_may_not_list_is_an_error(reachable_tmp: Path) -> None:
    root = reachable_tmp / "assets"
    records = write_assets(root, 3)
    root.chmod(0)
    try:
        with as_server_account(), pytest.raises(AssetRootMissing, match="Permission denied"):
            verify_assets(records, [root])
    finally:
        root.chmod(0o755)


@pytest.fixture
def mounted_root(tmp_path: Path) -> Iterator[Path]:
    """An asset root that is a mount of its own."""
    root = tmp_path / "mounted"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root], capture_output=True, check=False).returncode != 0:
        pytest.skip("this account may not mount")
    yield root
    subprocess.run(["umount", "--lazy", root], capture_output=True, check=False)


def test_a_mount_lost_in_mid_check_is_an_error_and_the_check_goes_on_later(mounted_root: Path, tmp_path: Path) -> None:
    records = write_assets(mounted_root, 400)
    size_bytes = sum(record.size_bytes or 0 for record in records)
    backing = {record.path: (mounted_root / record.path).read_bytes() for record in records}
    found: list[Finding] = []

    def lose_the_mount(progress: AssetProgress) -> None:
        if progress.checked >= 64 and os.path.ismount(mounted_root):
            subprocess.run(["umount", "--lazy", mounted_root], check=True)

    with ResumeFile(tmp_path / "state.json") as resume, pytest.raises(AssetRootMissing):
        verify_assets(
            records,
            [mounted_root],
            workers=2,
            resume=resume,
            bytes_per_second=size_bytes // 3,
            on_progress=lose_the_mount,
            on_finding=found.append,
        )
    assert found == []
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mounted_root], check=True)
    for path, content in backing.items():
        (mounted_root / path).parent.mkdir(exist_ok=True)
        (mounted_root / path).write_bytes(content)

    with ResumeFile(tmp_path / "state.json") as resume:
        rest = behind(records, resume.position)
        report = verify_assets(rest, [mounted_root], resume=resume)

    assert len(rest) < 400
    assert report.sound
    assert report.checked == 400


def test_mount_is_asked_for_where_settings_say_so(mounted_root: Path) -> None:
    (mounted_root / "below").mkdir()
    (mounted_root / "below" / "a.mp4").write_bytes(b"a")

    assert verify_assets([record_of("1", "a.mp4", b"a")], AssetRoots([mounted_root / "below"], mount=True)).sound
    subprocess.run(["umount", "--lazy", mounted_root], check=True)
    (mounted_root / "below").mkdir()
    (mounted_root / "below" / "a.mp4").write_bytes(b"a")

    if not os.path.ismount(mounted_root.parents[-2]):
        with pytest.raises(AssetRootMissing, match="nothing is mounted"):
            AssetRoots([mounted_root / "below"], mount=True)
