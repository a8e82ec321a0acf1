"""Archives hashed while they grow come out as those hashed afterwards."""

import gzip
import hashlib
import io
import json
import tarfile
import threading
import time
from pathlib import Path

import pytest

from lifeboat.verification.following import ArchiveFollower
from lifeboat.verification.integrity import check_tar

FILES = {f"base/5/{number}": bytes([number % 256]) * (1 + number * 997) for number in range(60)}


def archive(files: dict[str, bytes]) -> bytes:
    """A tar.gz of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def manifest(files: dict[str, bytes]) -> bytes:
    """PostgreSQL's backup manifest of these files."""
    entries = [
        {
            "Path": name,
            "Size": len(content),
            "Last-Modified": "2026-11-23 06:27:05 GMT",
            "Checksum-Algorithm": "SHA256",
            "Checksum": hashlib.sha256(content).hexdigest(),
        }
        for name, content in files.items()
    ]
    head = '{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n'
    body = head + ",\n".join(json.dumps(entry) for entry in entries) + '\n],\n"WAL-Ranges": [\n],\n'
    return f'{body}"Manifest-Checksum": "{hashlib.sha256(body.encode()).hexdigest()}"}}\n'.encode()


def write_slowly(path: Path, data: bytes, pieces: int = 40) -> None:
    """Append the data in pieces, as a tool would."""
    step = len(data) // pieces + 1
    with path.open("wb", buffering=0) as file:
        for first in range(0, len(data), step):
            file.write(data[first : first + step])
            time.sleep(0.002)


@pytest.mark.parametrize("tablespaces", [0, 2])
def test_growing_archives_pass(tmp_path: Path, tablespaces: int) -> None:
    folder = tmp_path / "base"
    files = dict(FILES)
    with ArchiveFollower(folder) as follower:
        folder.mkdir()
        for number in range(tablespaces):
            name = f"pg_tblspc/{16384 + number}/PG_18/5/1"
            files[name] = b"in a tablespace" * 1000
            write_slowly(folder / f"{16384 + number}.tar.gz", archive({"PG_18/5/1": files[name]}))
        write_slowly(folder / "base.tar.gz", archive(FILES))
        (folder / "backup_manifest").write_bytes(manifest(files))
        report = follower.finish(folder / "backup_manifest")
    assert report.problems == ()
    assert report.files == len(files)
    archives = {path.name: path for path in folder.glob("*.tar.gz")}
    assert check_tar(archives, folder / "backup_manifest").files == report.files


def test_what_differs_is_named(tmp_path: Path) -> None:
    changed = {**FILES, "base/5/7": b"other content of no matching length"}
    del changed["base/5/9"]
    changed["base/5/8"] = FILES["base/5/8"][:-1] + b"!"
    with ArchiveFollower(tmp_path) as follower:
        write_slowly(tmp_path / "base.tar.gz", archive(changed))
        (tmp_path / "backup_manifest").write_bytes(manifest(FILES))
        report = follower.finish(tmp_path / "backup_manifest")
    assert {problem.path: problem.what.split()[-1] for problem in report.problems} == {
        "base/5/7": str(len(FILES["base/5/7"])),
        "base/5/8": "differs",
        "base/5/9": "missing",
    }


def test_an_archive_that_ends_too_early_is_a_problem(tmp_path: Path) -> None:
    with ArchiveFollower(tmp_path) as follower:
        write_slowly(tmp_path / "base.tar.gz", archive(FILES)[:-5000])
        (tmp_path / "backup_manifest").write_bytes(manifest(FILES))
        report = follower.finish(tmp_path / "backup_manifest")
    assert any("cannot be read to its end" in problem.what for problem in report.problems)


def test_an_archive_without_end_is_given_up_when_the_backup_fails(tmp_path: Path) -> None:
    before = threading.active_count()
    with ArchiveFollower(tmp_path):
        (tmp_path / "base.tar.gz").write_bytes(gzip.compress(b"not even a tar")[:-8])
        time.sleep(0.1)
    assert threading.active_count() == before
