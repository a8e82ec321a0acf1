"""Scratch clusters: folders for restored data that never stay behind."""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from lifeboat.errors import PermanentError
from lifeboat.postgres import postmaster
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.folders import check_reachable, make_private_dir, socket_dir_for
from lifeboat.postgres.owners import owner_lives, owner_record

_PREFIX = "scratch-"
_OWNER_SUFFIX = ".owner"
_PARENT_LOCK_NAME = ".scratch.lock"


class ScratchNotRemoved(PermanentError):
    """A scratch folder could not be removed."""


@dataclass(frozen=True)
class ScratchCluster:
    """A private folder for one restored cluster; everything in it goes when its context ends."""

    directory: Path
    tools: PgTools
    port: int = 5432
    data_dir: Path = field(init=False)
    socket_dir: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", self.directory / "data")
        object.__setattr__(self, "socket_dir", socket_dir_for(self.directory))

    @property
    def cluster(self) -> Cluster:
        """The cluster on the restored data; isolate it before it is started."""
        return Cluster(self.data_dir, self.tools, self.socket_dir, self.port)


@contextmanager
def scratch_cluster(
    tools: PgTools, parent_dir: Path, *, purpose: str = "drill", port: int = 5432
) -> Iterator[ScratchCluster]:
    """A scratch folder below `parent_dir`, owned by the server's account; its `data_dir` does not exist yet.

    In the end the server is stopped and the folder removed. Raises FolderUnreachable, ScratchNotRemoved.
    """
    if not parent_dir.is_dir():
        parent_dir.mkdir(parents=True)
        parent_dir.chmod(0o711)
    check_reachable(parent_dir, tools.user)
    directory, claim = _create(parent_dir, tools, purpose)
    try:
        yield ScratchCluster(directory, tools, port)
    finally:
        try:
            _remove(directory)
        finally:
            os.close(claim)


def remove_abandoned(parent_dir: Path) -> list[Path]:
    """Remove the scratch folders whose owner died, with the servers in them; returns what was removed.

    A folder whose owner lives is not touched. Raises ScratchNotRemoved.
    """
    if not parent_dir.is_dir():
        return []
    removed: list[Path] = []
    with _parent_lock(parent_dir):
        for owner_path in sorted(parent_dir.glob(f"{_PREFIX}*{_OWNER_SUFFIX}")):
            claim = _claim_abandoned(owner_path)
            if claim is None:
                continue
            directory = owner_path.with_suffix("")
            try:
                _remove(directory)
            finally:
                os.close(claim)
            removed.append(directory)
    return removed


@contextmanager
def _parent_lock(parent_dir: Path) -> Iterator[None]:
    # Held while a folder gets its owner, so that nobody takes a newborn one for an abandoned one.
    descriptor = os.open(parent_dir / _PARENT_LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(parent_dir: Path, tools: PgTools, purpose: str) -> tuple[Path, int]:
    now = datetime.now(UTC)
    directory = parent_dir / f"{_PREFIX}{purpose}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"
    with _parent_lock(parent_dir):
        # The owner file lies beside the folder: it comes first and goes last, so no folder is without one.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        claim = os.open(_owner_path(directory), flags, 0o600)
        fcntl.flock(claim, fcntl.LOCK_EX)
        os.write(claim, json.dumps({**owner_record(), "created_at": now.isoformat(), "purpose": purpose}).encode())
        make_private_dir(directory, tools.user)
    return directory, claim


def _owner_path(directory: Path) -> Path:
    return directory.with_name(directory.name + _OWNER_SUFFIX)


def _claim_abandoned(owner_path: Path) -> int | None:
    """The lock on a dead owner's folder, or None when its owner lives or has just removed it."""
    try:
        claim = os.open(owner_path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock decides on local disks; on a network mount without locks the recorded process does.
        if os.fstat(claim).st_nlink and not _owner_lives(os.pread(claim, 4096, 0)):
            return claim
    except BlockingIOError:
        pass
    os.close(claim)
    return None


def _owner_lives(record: bytes) -> bool:
    try:
        return owner_lives(json.loads(record)) is not False
    except ValueError:
        return False  # killed before it could write its name


def _remove(directory: Path) -> None:
    postmaster.end_servers_in(directory)
    for folder in (socket_dir_for(directory), directory):
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise ScratchNotRemoved(
                f"the scratch folder {folder} could not be removed: {error.strerror}",
                hint="Remove it by hand: it holds restored data and takes space.",
            ) from error
    _owner_path(directory).unlink(missing_ok=True)
