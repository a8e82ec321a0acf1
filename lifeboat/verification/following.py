"""Hashes what is in the archives of a base backup while pg_basebackup still writes them.

Unpacking and hashing take about as long as compressing did; on a second core, meanwhile, they cost no time.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from lifeboat.verification.integrity import (
    HashedFile,
    IntegrityProblem,
    IntegrityReport,
    archive_prefix,
    check_hashed,
)
from lifeboat.verification.tar_stream import BLOCK_BYTES, ArchiveDamaged, Readable, tar_files

_POLL_SECONDS = 0.02
_HEAD_BYTES = 8


class ArchiveFollower:
    """Follows every archive that appears in `folder`, one after the other, as pg_basebackup writes them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = threading.Event()
        self._given_up = threading.Event()
        self._files: list[HashedFile] = []
        self._faults: list[IntegrityProblem] = []
        self._thread = threading.Thread(target=self._run, name="archive follower", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._given_up.set()
        self._written.set()
        self._thread.join()

    def finish(self, manifest_path: Path) -> IntegrityReport:
        """Say that the archives are written; wait, and compare what was read with PostgreSQL's manifest."""
        self._written.set()
        self._thread.join()
        return check_hashed(self._files, self._faults, manifest_path)

    def _run(self) -> None:
        done: set[Path] = set()
        while not self._given_up.is_set():
            written = self._written.is_set()
            waiting = [path for path in self._archives() if path not in done]
            if waiting:
                self._follow(waiting[0], done)
                done.add(waiting[0])
            elif written:
                return
            else:
                self._written.wait(_POLL_SECONDS)

    def _archives(self) -> list[Path]:
        found = [path for path in self._folder.glob("*.tar*") if archive_prefix(path.name) is not None]
        return sorted(found, key=lambda path: path.stat().st_ctime_ns)

    def _follow(self, path: Path, done: set[Path]) -> None:
        def ended() -> bool:
            # pg_basebackup writes one archive at a time: another one beside it says that this one is whole.
            others = [other for other in self._archives() if other not in done and other != path]
            return self._written.is_set() or bool(others)

        prefix = archive_prefix(path.name) or ""
        try:
            with path.open("rb", buffering=0) as file:
                for name, size_bytes, content in tar_files(_Growing(file, ended, self._given_up)):
                    self._files.append(_hashed(prefix + name, size_bytes, content))
        except (ArchiveDamaged, OSError) as error:
            if not self._given_up.is_set():
                self._faults.append(IntegrityProblem(path.name, f"cannot be read to its end: {error}"))


class _Growing:
    """A file that somebody still appends to: its end is only the end once the writer is done."""

    def __init__(self, file: BinaryIO, ended: Callable[[], bool], given_up: threading.Event) -> None:
        self._file, self._ended, self._given_up = file, ended, given_up

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none only at the end."""
        while True:
            # Asked before the read: what is written between the two must not be taken for nothing.
            ended = self._given_up.is_set() or self._ended()
            block = self._file.read(size)
            if block or ended:
                return block
            self._given_up.wait(_POLL_SECONDS)


def _hashed(name: str, size_bytes: int, content: Readable) -> HashedFile:
    digest, head = hashlib.sha256(), b""
    while block := content.read(BLOCK_BYTES):
        head = head or block[:_HEAD_BYTES]
        digest.update(block)
    return HashedFile(name, size_bytes, digest.hexdigest(), head)
