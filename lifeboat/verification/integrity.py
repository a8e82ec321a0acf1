"""The integrity check of a base backup against PostgreSQL's backup_manifest, as pg_verifybackup does it.

Ours, because the embedded PostgreSQL's pg_verifybackup crashes on start and before version 18 it cannot read tar.
The WAL of the backup is not covered by the manifest.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lifeboat.verification.backup_manifest import (
    MANIFEST_NAME,
    BackupManifest,
    BackupManifestDamaged,
    ManifestFile,
    read_backup_manifest,
)
from lifeboat.verification.tar_stream import BLOCK_BYTES, ArchiveDamaged, Readable, opened, tar_files

# What pg_verifybackup leaves out: made or changed after the server sent the files.
_IGNORED = frozenset((MANIFEST_NAME, "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"))
_ARCHIVE_NAME = re.compile(r"(?P<stem>.+)\.(?:tar|tar\.gz|tgz)")
_CONTROL_FILE = "global/pg_control"
_HASHES = {"SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
_MAX_WORKERS = 4


@dataclass(frozen=True)
class IntegrityProblem:
    """A file that is not as it was sent."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class IntegrityReport:
    """What was checked; `unhashed_files` have no checksum in the manifest that we can compute: only their size was."""

    problems: tuple[IntegrityProblem, ...]
    files: int
    size_bytes: int
    unhashed_files: int
    duration_seconds: float

    @property
    def passed(self) -> bool:
        """Whether every file is there, and as it was sent."""
        return not self.problems


OnBytes = Callable[[int], None]


def check_directory(
    data_dir: Path, manifest_path: Path | None = None, *, on_bytes: OnBytes | None = None
) -> IntegrityReport:
    """Check a plain base backup, whole or incremental, before a server was started in it.

    `on_bytes` is told, from several threads, how many bytes more were read. Tablespaces are followed through their
    links. Never raises for what is wrong with the backup.
    """

    def check(checking: "_Checking") -> None:
        found = dict(_files_below(data_dir, checking))
        for name in checking.unexpected(found):
            checking.problem(name, "not in the backup manifest")
        wanted = [(name, path) for name, path in found.items() if name in checking.files]
        with ThreadPoolExecutor(min(_MAX_WORKERS, os.cpu_count() or 1), "integrity") as pool:
            for _ in pool.map(lambda item: _check_path(checking, *item), wanted):
                pass

    return _report(manifest_path or data_dir / MANIFEST_NAME, on_bytes, check)


@dataclass(frozen=True)
class HashedFile:
    """A file of an archive that was read before the manifest was there; `head` is its first 8 bytes."""

    name: str
    size_bytes: int
    sha256: str
    head: bytes


def check_hashed(
    files: Iterable[HashedFile], faults: Iterable[IntegrityProblem], manifest_path: Path
) -> IntegrityReport:
    """As check_tar, for files that were hashed already; `faults` are what was wrong with reading them.

    A file whose manifest entry has another checksum than SHA-256 counts as not hashed.
    """

    def check(checking: "_Checking") -> None:
        checking.problems += faults
        for file in files:
            if file.name in checking.files:
                if file.name in checking.seen:
                    checking.problem(file.name, "twice in the archives")
                checking.hashed(file)
            elif checking.unexpected({file.name: None}):
                checking.problem(file.name, "not in the backup manifest")

    return _report(manifest_path, None, check)


def archive_prefix(archive: str) -> str | None:
    """Where an archive's files lie in the data directory; None for one that is no part of it."""
    match = _ARCHIVE_NAME.fullmatch(archive)
    if match is None or match["stem"] == "pg_wal":
        return None
    return f"pg_tblspc/{match['stem']}/" if match["stem"].isdigit() else ""


def check_tar(
    archives: Mapping[str, Path | Readable], manifest_path: Path, *, on_bytes: OnBytes | None = None
) -> IntegrityReport:
    """Check a base backup in tar format: `archives` are its files or streams by name, such as "base.tar.gz".

    `<oid>.tar` is a tablespace, and pg_wal.tar is left out. Each stream is read once, in turn, with bounded memory.
    `on_bytes` is told how many bytes of files more were read. Never raises for what is wrong with the backup.
    """

    def check(checking: "_Checking") -> None:
        for archive, source in archives.items():
            match = _ARCHIVE_NAME.fullmatch(archive)
            if match is None:
                checking.problem(archive, "is neither .tar nor .tar.gz, so it was not read")
            elif match["stem"] != "pg_wal":
                prefix = f"pg_tblspc/{match['stem']}/" if match["stem"].isdigit() else ""
                _check_archive(checking, archive, prefix, source)

    return _report(manifest_path, on_bytes, check)


def _report(manifest_path: Path, on_bytes: OnBytes | None, check: "Callable[[_Checking], None]") -> IntegrityReport:
    began = time.monotonic()
    try:
        manifest = read_backup_manifest(manifest_path)
    except (BackupManifestDamaged, OSError) as error:
        said = error.message if isinstance(error, BackupManifestDamaged) else str(error)
        return IntegrityReport((IntegrityProblem(MANIFEST_NAME, said),), 0, 0, 0, time.monotonic() - began)
    checking = _Checking(manifest, on_bytes or (lambda count: None))
    check(checking)
    for name in sorted(checking.files.keys() - checking.seen):
        checking.problem(name, "missing")
    return IntegrityReport(
        problems=tuple(sorted(checking.problems, key=lambda problem: problem.path)),
        files=len(checking.seen),
        size_bytes=sum(checking.files[name].size_bytes for name in checking.seen),
        unhashed_files=sum(1 for name in checking.seen if checking.files[name].algorithm not in _HASHES),
        duration_seconds=time.monotonic() - began,
    )


@dataclass
class _Checking:
    """One check under way."""

    manifest: BackupManifest
    on_bytes: OnBytes
    problems: list[IntegrityProblem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    files: dict[str, ManifestFile] = field(init=False)

    def __post_init__(self) -> None:
        self.files = {name: file for name, file in self.manifest.files.items() if not _is_ignored(name)}

    def problem(self, path: str, what: str) -> None:
        """Note a problem."""
        self.problems.append(IntegrityProblem(path, what))

    def unexpected(self, names: Mapping[str, object]) -> list[str]:
        """Those names that the manifest does not know and that matter."""
        return [name for name in names if name not in self.files and not _is_ignored(name)]

    def content(self, name: str, size_bytes: int, stream: Readable) -> None:
        """Compare a file of the manifest with what it should be."""
        expected = self.files[name]
        self.seen.add(name)
        if size_bytes != expected.size_bytes:
            self.problem(name, f"{size_bytes} bytes instead of {expected.size_bytes}")
            return
        head, checksum = _hash(stream, expected, self.on_bytes)
        self._compare(name, head, checksum)

    def hashed(self, file: HashedFile) -> None:
        """Compare a file that was hashed before."""
        expected = self.files[file.name]
        self.seen.add(file.name)
        if file.size_bytes != expected.size_bytes:
            self.problem(file.name, f"{file.size_bytes} bytes instead of {expected.size_bytes}")
            return
        self._compare(file.name, file.head, file.sha256 if expected.algorithm == "SHA256" else None)

    def _compare(self, name: str, head: bytes, checksum: str | None) -> None:
        if checksum is not None and checksum != self.files[name].checksum:
            self.problem(name, "checksum differs")
        identifier = self.manifest.system_identifier
        if name == _CONTROL_FILE and identifier is not None and int.from_bytes(head[:8], "little") != identifier:
            self.problem(name, f"belongs to another cluster than the manifest's {identifier}")


def _is_ignored(name: str) -> bool:
    return name in _IGNORED or name.split("/", 1)[0] in _IGNORED


def _hash(stream: Readable, expected: ManifestFile, on_bytes: OnBytes) -> tuple[bytes, str | None]:
    """The first block, and the checksum; None where the manifest has none that we know."""
    digest = hashlib.new(_HASHES[expected.algorithm]) if expected.algorithm in _HASHES else None
    head = block = stream.read(BLOCK_BYTES)
    while block:
        if digest is not None:
            digest.update(block)
        on_bytes(len(block))
        block = stream.read(BLOCK_BYTES)
    return head, digest.hexdigest() if digest is not None else None


def _files_below(data_dir: Path, checking: _Checking) -> Iterator[tuple[str, Path]]:
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            names = [os.path.join(folder, name) for name in os.listdir(data_dir / folder)]
        except OSError as error:
            checking.problem(folder or ".", f"cannot be read: {error.strerror or error}")
            continue
        for name in names:
            if not (data_dir / name).is_dir():  # links are followed: tablespaces
                yield name, data_dir / name
            elif not _is_ignored(name):
                folders.append(name)


def _check_path(checking: _Checking, name: str, path: Path) -> None:
    try:
        with path.open("rb", buffering=0) as stream:
            checking.content(name, os.fstat(stream.fileno()).st_size, stream)
    except OSError as error:
        checking.seen.add(name)
        checking.problem(name, f"cannot be read: {error.strerror or error}")


def _check_archive(checking: _Checking, archive: str, prefix: str, source: Path | Readable) -> None:
    try:
        with opened(source) as stream:
            for name, size, content in tar_files(stream):
                _check_member(checking, prefix + name, size, content)
    except (ArchiveDamaged, OSError) as error:
        checking.problem(archive, f"cannot be read to its end: {error}")


def _check_member(checking: _Checking, name: str, size_bytes: int, stream: Readable) -> None:
    if name in checking.files:
        if name in checking.seen:
            checking.problem(name, "twice in the archives")
        checking.content(name, size_bytes, stream)
    elif checking.unexpected({name: None}):
        checking.problem(name, "not in the backup manifest")
