"""A receiver beside archive_command: pg_receivewal streams WAL into a spool, whole segments go on into the archive.

The slot keeps WAL on the server until it is on disk in the spool, and a file leaves the spool when it is durable in
the archive, by the same push that archive_command calls: what both deliver is the same, and accepted once more.
"""

import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from lifeboat.storage.durable import fsync_directory
from lifeboat.wal.archive_program.layout import ArchiveError, Config
from lifeboat.wal.archive_program.push import push

LOG = logging.getLogger("lifeboat")
_FINISHED = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_RETRY_SECONDS = 5.0


@dataclass
class Spool:
    """The folder that pg_receivewal writes to, and the archive that its finished files are pushed to."""

    folder: Path
    config: Config
    pushed: int = 0
    _silent_until: float = field(default=0.0, repr=False)

    def finished(self) -> list[str]:
        """The files that will not change any more, in the order in which they are needed: histories first."""
        return [path.name for path in finished_files(self.folder)]

    def push_finished(self) -> bool:
        """Push what is finished; false where the archive did not take it, which is tried again after a pause."""
        if time.monotonic() < self._silent_until:
            return False
        name = "WAL"
        try:
            for name in self.finished():
                path = self.folder / name
                remark = push(self.config, str(path), name)
                if remark is not None:
                    LOG.warning("%s: %s", name, remark)
                path.unlink()
                self.pushed += 1
                fsync_directory(self.folder)
        except (ArchiveError, OSError) as error:
            LOG.warning("%s stays in the spool %s: %s", name, self.folder, error)
            self._silent_until = time.monotonic() + _RETRY_SECONDS
            return False
        return True

    def set_aside(self) -> list[str]:
        """Rename what is not finished, so that pg_receivewal goes on where its slot stands; returns its old names."""
        names = []
        for path in sorted(self.folder.glob("*.partial")):
            path.rename(path.with_name(f"{path.name}.old"))
            names.append(path.name)
        fsync_directory(self.folder)
        return names


def finished_files(folder: Path) -> list[Path]:
    """The files of a spool that will not change any more, in the order in which they are needed; raises OSError."""
    return sorted(path for path in folder.iterdir() if _FINISHED.fullmatch(path.name))
