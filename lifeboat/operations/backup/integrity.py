"""Checks what a tool left behind before it counts as a backup."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from lifeboat.engines.basebackup_restore import PAYLOAD_FOLDER, PG_MANIFEST
from lifeboat.errors import LifeboatError
from lifeboat.settings.root import Settings
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.manifest import Manifest
from lifeboat.storage.repository import BackupRepository
from lifeboat.verification.following import ArchiveFollower
from lifeboat.verification.integrity import check_tar
from lifeboat.verification.tar_stream import Readable


@contextmanager
def payload_check(settings: Settings, directory: Path, engine: str) -> Iterator[Callable[[], None]]:
    """While an engine fills `directory`, check what it writes; calling the result afterwards ends the check.

    A base backup is compared with PostgreSQL's own manifest of it. The call raises BackupDamaged naming the faults.
    """
    if engine != "basebackup" or not settings.engines.basebackup.check_after:
        yield lambda: None
        return
    folder = directory / PAYLOAD_FOLDER
    with ArchiveFollower(folder) as follower:

        def finish() -> None:
            report = follower.finish(folder / "backup_manifest")
            if not report.passed:
                raise BackupDamaged(
                    "the base backup differs from PostgreSQL's manifest of it: "
                    + "; ".join(str(problem) for problem in report.problems[:5]),
                    hint="Take it again; if it happens twice, look at the disks and the memory of this host.",
                )

        yield finish


def check_backup(
    repository: BackupRepository,
    manifest: Manifest,
    on_amount: Callable[[int, int], None] | None = None,
    *,
    check_elsewhere: Callable[[list[Manifest]], list[str]] | None = None,
) -> list[str]:
    """Read a stored backup and its chain and name all that is not as its manifests say, Lifeboat's and PostgreSQL's.

    `on_amount` is told how many bytes of how many were read; base backups are read once for each of the two manifests.
    `check_elsewhere` looks after backups whose objects are in a repository of their tool's own.
    """
    faults: list[str] = []
    try:
        chain = repository.chain(manifest.label)
    except LifeboatError as error:
        return [error.message]
    if not manifest.objects:
        if check_elsewhere is None:
            return [f"{manifest.label} has no objects at the destination: only {manifest.engine} can check it"]
        return check_elsewhere(chain)
    total, done = sum(link.size_bytes * (2 if link.engine == "basebackup" else 1) for link in chain), 0

    def count(read_bytes: int) -> None:
        nonlocal done
        done += read_bytes
        if on_amount is not None:
            on_amount(done, total)

    for link in chain:
        found = list(repository.check_objects(link, count))
        # What differs from our manifest needs no second opinion; what does not may have been damaged before.
        faults += found or _postgres_faults(repository, link, count)
    return faults


@dataclass(frozen=True)
class _Counted:
    stream: Readable
    on_bytes: Callable[[int], None]

    def read(self, size: int = -1, /) -> bytes:
        block = self.stream.read(size)
        self.on_bytes(len(block))
        return block


def _postgres_faults(repository: BackupRepository, manifest: Manifest, on_bytes: Callable[[int], None]) -> list[str]:
    if manifest.engine != "basebackup":
        return []
    with ExitStack() as stack, TemporaryDirectory(prefix="lifeboat-check-") as folder:
        path = Path(folder) / "backup_manifest"
        with repository.open_object(manifest.label, PG_MANIFEST) as stream:
            path.write_bytes(stream.read())
        archives = {
            item.name.removeprefix(f"{PAYLOAD_FOLDER}/"): _Counted(
                stack.enter_context(repository.open_object(manifest.label, item.name)), on_bytes
            )
            for item in manifest.objects
            if item.name != PG_MANIFEST
        }
        return [f"{manifest.label}: {problem}" for problem in check_tar(archives, path).problems]
