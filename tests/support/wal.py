"""WAL archives for tests: synthetic segments, a prepared archive, its listing."""

import hashlib
import pwd
import random
import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lifeboat.postgres.folders import give_to
from lifeboat.wal.archive_program.layout import Config
from lifeboat.wal.install import WalConfig, prepare_archive
from lifeboat.wal.names import parse_segment

SEGMENT_BYTES = 1 << 20
SYSTEM = "7301234567890123456"


def make_segment(
    name: str,
    *,
    system: str = SYSTEM,
    size_bytes: int = SEGMENT_BYTES,
    filling: int = 0,
    timeline: int | None = None,
    compressible: bool = True,
) -> bytes:
    """The bytes of a segment with a true long page header (XLogLongPageHeaderData); `filling` tells two apart."""
    segment = parse_segment(name[:24], size_bytes)
    header = struct.pack(
        "=HHIQI4xQII",
        *(0xD10D, 0x0002, timeline or segment.timeline, segment.start_lsn, 0),
        *(int(system), size_bytes, 8192),
    )
    rest = size_bytes - len(header)
    if compressible:
        return header + filling.to_bytes(4, "big") * (rest // 4) + bytes(rest % 4)
    return header + random.Random(filling).randbytes(rest)  # noqa: S311 - reproducible, not secret


@dataclass(frozen=True)
class ArchiveForTest:
    """A prepared archive and a folder beside it, where sources and targets lie."""

    config: WalConfig
    work: Path

    @property
    def folder(self) -> Path:
        """The archive itself."""
        return Path(self.config.path, self.config.cluster, "wal")

    @property
    def program_config(self) -> Config:
        """What the archive program makes of wal.json."""
        return Config(self.config.model_dump())

    def source(self, name: str, content: bytes) -> str:
        """A file to push."""
        path = self.work / name
        path.write_bytes(content)
        return str(path)

    def stored(self) -> dict[str, str]:
        """Names of the files in the archive with the SHA-256 of what is stored; locks and the marker are left out."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        shown = (path for path in files if path.name not in {".lock", "archive.json"})
        return {str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}

    def stored_path(self, name: str) -> Path:
        """The one stored file of an archive file's name."""
        (found,) = self.folder.rglob(f"{name}-*.gz")
        return found


def start_as(user: str | None, argv: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Start a program as the server's account (None: as ours), its output in pipes."""
    return subprocess.Popen(
        argv,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else (),
    )


def run_as_server(command: str, path: Path | str, name: str, user: str | None) -> subprocess.CompletedProcess[str]:
    """Run an archive_command or restore_command as the server does: placeholders replaced, by a shell."""
    values = {"%p": str(path), "%f": name, "%%": "%"}
    argv = ["/bin/sh", "-c", re.sub("%[pf%]", lambda match: values[match[0]], command)]
    with start_as(user, argv) as process:
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


@contextmanager
def with_mode(path: Path, mode: int = 0) -> Iterator[None]:
    """Close a file or folder for the block."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def make_archive(root: Path, *, user: str | None = None, **changes: object) -> ArchiveForTest:
    """An archive below `root` with segments of 1 MB; `changes` replace values of wal.json."""
    destination, work = root / "destination", root / "work"
    for folder in (destination, work):
        folder.mkdir(exist_ok=True)
        give_to(folder, user)
    values: dict[str, object] = {
        "path": str(destination),
        "cluster": "studio",
        "system_identifier": SYSTEM,
        "segment_size_bytes": SEGMENT_BYTES,
        "compression_level": 1,
        "retries": 0,
        "retry_delay_seconds": 0.01,
        "minimum_free_bytes": 0,
    }
    config = WalConfig.model_validate(values | changes)
    prepare_archive(config, user=user)
    return ArchiveForTest(config, work)
