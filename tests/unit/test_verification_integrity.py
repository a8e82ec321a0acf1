"""The integrity check: each kind of damage is named, in a directory and in tar archives."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lifeboat.verification.integrity import IntegrityReport, check_directory, check_tar

CONTROL = (77).to_bytes(8, "little") + b"control"
FILES = {
    "PG_VERSION": b"18\n",
    "global/pg_control": CONTROL,
    "base/5/1259": b"table" * 300_000,
    "base/5/INCREMENTAL.1260": b"blocks",
    "base/5/empty": b"",
    "pg_tblspc/16400/PG_18_202506291/5/16401": b"spaced",
}
Damage = Callable[[dict[str, bytes]], object]


def manifest_of(files: dict[str, bytes], algorithm: str = "SHA256", more: dict[str, Any] | None = None) -> bytes:
    """A backup_manifest as the server writes it."""
    entries = []
    for name, content in files.items():
        entry = {"Path": name, "Size": len(content), "Last-Modified": "2026-11-22 19:00:00 GMT"}
        if algorithm != "NONE":
            digest = hashlib.new(algorithm.lower(), content).hexdigest() if algorithm != "CRC32C" else "00000000"
            entry |= {"Checksum-Algorithm": algorithm, "Checksum": digest}
        entries.append(entry)
    facts = {"PostgreSQL-Backup-Manifest-Version": 2, "System-Identifier": 77, "Files": entries, "WAL-Ranges": []}
    facts |= more or {}
    head = (json.dumps(facts, indent=0)[:-2] + ",\n").encode()
    return head + f'"Manifest-Checksum": "{hashlib.sha256(head).hexdigest()}"}}\n'.encode()


def write_tree(root: Path, files: dict[str, bytes]) -> None:
    """The files below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tar_of(files: dict[str, bytes], *, compressed: bool) -> bytes:
    """A tar archive with folders and a link, as pg_basebackup makes it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        folder = tarfile.TarInfo("base")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        link = tarfile.TarInfo("pg_tblspc/16400")
        link.type, link.linkname = tarfile.SYMTYPE, "/somewhere"
        archive.addfile(link)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), 1) if compressed else stream.getvalue()


def in_directory(tmp_path: Path, files: dict[str, bytes], manifest: bytes) -> IntegrityReport:
    """Check as a plain backup."""
    write_tree(tmp_path / "data", files)
    (tmp_path / "data" / "backup_manifest").write_bytes(manifest)
    return check_directory(tmp_path / "data")


def in_tar(tmp_path: Path, files: dict[str, bytes], manifest: bytes, *, compressed: bool = False) -> IntegrityReport:
    """Check as a tar backup with a tablespace of its own archive."""
    prefix = "pg_tblspc/16400/"
    base = {name: content for name, content in files.items() if not name.startswith(prefix)}
    space = {name.removeprefix(prefix): content for name, content in files.items() if name.startswith(prefix)}
    path = tmp_path / "backup_manifest"
    path.write_bytes(manifest)
    suffix = ".tar.gz" if compressed else ".tar"
    (tmp_path / f"base{suffix}").write_bytes(tar_of(base, compressed=compressed))
    archives: dict[str, Any] = {
        f"base{suffix}": tmp_path / f"base{suffix}",
        f"16400{suffix}": io.BytesIO(tar_of(space, compressed=compressed)),
        f"pg_wal{suffix}": io.BytesIO(b"never read"),
    }
    return check_tar(archives, path)


def in_gzip(tmp_path: Path, files: dict[str, bytes], manifest: bytes) -> IntegrityReport:
    """Check as a compressed tar backup."""
    return in_tar(tmp_path, files, manifest, compressed=True)


EACH_FORM = pytest.mark.parametrize("check", [in_directory, in_tar, in_gzip])
Check = Callable[[Path, dict[str, bytes], bytes], IntegrityReport]


@EACH_FORM
def test_a_whole_backup_passes(tmp_path: Path, check: Check) -> None:
    ignored = {"postgresql.auto.conf": b"changed", "pg_wal/000000010000000000000001": b"x", "standby.signal": b""}
    report = check(tmp_path, FILES | ignored, manifest_of(FILES | {"postgresql.auto.conf": b"as sent"}))
    assert report.problems == ()
    assert report.passed
    assert (report.files, report.unhashed_files) == (len(FILES), 0)
    assert report.size_bytes == sum(map(len, FILES.values()))


DAMAGES: dict[str, Damage] = {
    "base/5/1259: checksum differs": lambda f: f.update({"base/5/1259": b"tabLe" + FILES["base/5/1259"][5:]}),
    "base/5/1259: 6 bytes instead of 1500000": lambda f: f.update({"base/5/1259": b"tab\0\0\0"}),
    "base/5/INCREMENTAL.1260: missing": lambda f: f.pop("base/5/INCREMENTAL.1260"),
    "base/5/9999: not in the backup manifest": lambda f: f.update({"base/5/9999": b"x"}),
    "pg_tblspc/16400/PG_18_202506291/5/16401: checksum differs": lambda f: f.update(
        {"pg_tblspc/16400/PG_18_202506291/5/16401": b"spacer"}
    ),
    "base/5/empty: missing": lambda f: f.pop("base/5/empty"),
}


@EACH_FORM
@pytest.mark.parametrize("problem", DAMAGES)
def test_damage_is_named(tmp_path: Path, check: Check, problem: str) -> None:
    files = dict(FILES)
    DAMAGES[problem](files)
    report = check(tmp_path, files, manifest_of(FILES))
    assert list(map(str, report.problems)) == [problem]
    assert not report.passed


@EACH_FORM
def test_another_clusters_control_file_is_named(tmp_path: Path, check: Check) -> None:
    manifest = manifest_of(FILES, more={"System-Identifier": 78})
    report = check(tmp_path, FILES, manifest)
    assert [problem.path for problem in report.problems] == ["global/pg_control"]
    assert "another cluster" in report.problems[0].what


@pytest.mark.parametrize("algorithm", ["SHA224", "SHA384", "SHA512"])
def test_other_hashes_are_known(tmp_path: Path, algorithm: str) -> None:
    manifest = manifest_of(FILES, algorithm=algorithm)
    assert in_directory(tmp_path, FILES, manifest).passed
    (tmp_path / "data" / "base/5/empty").unlink()
    (tmp_path / "data" / "PG_VERSION").write_bytes(b"17\n")
    report = check_directory(tmp_path / "data")
    assert list(map(str, report.problems)) == ["PG_VERSION: checksum differs", "base/5/empty: missing"]


@pytest.mark.parametrize("algorithm", ["NONE", "CRC32C"])
def test_files_without_a_usable_checksum_are_counted(tmp_path: Path, algorithm: str) -> None:
    report = in_directory(tmp_path, FILES, manifest_of(FILES, algorithm=algorithm))
    assert report.passed
    assert report.unhashed_files == len(FILES)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data.replace(b"1259", b"1250"), "its own checksum differs"),
        (lambda data: data[:-150], "its end is missing"),
        (lambda data: b"", "end is missing"),
        (lambda data: manifest_of(FILES, more={"PostgreSQL-Backup-Manifest-Version": 9}), "its version 9 is not known"),
        (lambda data: manifest_of(FILES, more={"Files": [{"Path": "x"}]}), "not what the format says"),
        (lambda data: manifest_of(FILES, more={"Files": [{"Path": "x", "Size": 1}] * 2}), "lists a file twice"),
    ],
)
def test_a_damaged_manifest_is_the_only_problem(tmp_path: Path, spoil: Callable[[bytes], bytes], said: str) -> None:
    report = in_directory(tmp_path, FILES, spoil(manifest_of(FILES)))
    assert [problem.path for problem in report.problems] == ["backup_manifest"]
    assert said in report.problems[0].what


def test_a_missing_manifest_is_a_problem(tmp_path: Path) -> None:
    report = check_directory(tmp_path)
    assert "No such file" in report.problems[0].what


def test_encoded_paths_are_read(tmp_path: Path) -> None:
    name = "base/\xe9".encode("latin-1")
    entry = {"Encoded-Path": name.hex(), "Size": 0, "Checksum-Algorithm": "NONE"}
    folder = tmp_path / "data" / "base"
    folder.mkdir(parents=True)
    (folder / b"\xe9".decode("utf-8", "surrogateescape")).touch()
    (tmp_path / "data" / "backup_manifest").write_bytes(manifest_of({}, more={"Files": [entry]}))
    assert check_directory(tmp_path / "data").problems == ()


@pytest.mark.parametrize("cut", [100, 5000, 20_000])
def test_a_truncated_archive_is_named(tmp_path: Path, cut: int) -> None:
    noise = {"base/5/noise": bytes(hashlib.shake_256(b"seed").digest(100_000))}
    (tmp_path / "backup_manifest").write_bytes(manifest_of(noise))
    data = tar_of(noise, compressed=True)
    report = check_tar({"base.tar.gz": io.BytesIO(data[:-cut])}, tmp_path / "backup_manifest")
    assert "base.tar.gz" in {problem.path for problem in report.problems}


def test_a_flipped_bit_in_the_archive_is_found(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if not name.startswith("pg_tblspc")}
    (tmp_path / "backup_manifest").write_bytes(manifest_of(files))
    data = bytearray(tar_of(files, compressed=True))
    assert check_tar({"base.tar.gz": io.BytesIO(bytes(data))}, tmp_path / "backup_manifest").passed
    for position in range(20, len(data), max(1, len(data) // 23)):
        data[position] ^= 16
        report = check_tar({"base.tar.gz": io.BytesIO(bytes(data))}, tmp_path / "backup_manifest")
        assert not report.passed
        data[position] ^= 16


def test_several_gzip_members_are_one_archive(tmp_path: Path) -> None:
    files = {"base/5/1": b"abc" * 5000}
    (tmp_path / "backup_manifest").write_bytes(manifest_of(files))
    plain = tar_of(files, compressed=False)
    data = gzip.compress(plain[:7000]) + gzip.compress(plain[7000:])
    assert check_tar({"base.tar.gz": io.BytesIO(data)}, tmp_path / "backup_manifest").problems == ()


def test_an_archive_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "backup_manifest").write_bytes(manifest_of({}))
    report = check_tar({"base.tar.zst": io.BytesIO(b"")}, tmp_path / "backup_manifest")
    assert list(map(str, report.problems)) == ["base.tar.zst: is neither .tar nor .tar.gz, so it was not read"]


def test_an_unreadable_file_is_named_and_the_rest_checked(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {name: content for name, content in FILES.items() if name != "PG_VERSION"})
    (tmp_path / "data" / "PG_VERSION").symlink_to("PG_VERSION")  # a loop: opening it fails, as a bad sector does
    (tmp_path / "data" / "backup_manifest").write_bytes(manifest_of(FILES))
    report = check_directory(tmp_path / "data")
    assert list(map(str, report.problems)) == ["PG_VERSION: cannot be read: Too many levels of symbolic links"]


def test_progress_adds_up(tmp_path: Path) -> None:
    read: list[int] = []
    in_directory(tmp_path, FILES, manifest_of(FILES))
    check_directory(tmp_path / "data", on_bytes=read.append)
    assert sum(read) == sum(map(len, FILES.values()))
