"""How WAL archives are read, whatever holds them: one interface, and the archive at a filesystem destination."""

import os
from pathlib import Path
from typing import Protocol

from lifeboat.errors import PermanentError
from lifeboat.wal.archive_program import layout
from lifeboat.wal.coverage import ArchiveListing, ArchiveUnreadable, scan_archive
from lifeboat.wal.names import TimelineSwitch, history_name, parse_archive_name, parse_history


class WalFileMissing(PermanentError):
    """The archive was listed and does not hold the file: positively absent."""


class WalDamaged(PermanentError):
    """The archive holds the file, but not what its name and checksum promise."""


class WalArchive(Protocol):
    """What reads an archive: coverage, index, preview, restore."""

    def listing(self) -> ArchiveListing:
        """All that the archive holds; raises ArchiveUnreadable."""
        ...

    def fetch(self, name: str, target: Path) -> None:
        """Write the plain, checked file to `target`.

        Raises WalFileMissing only when it is positively absent, WalDamaged, ArchiveUnreadable for any doubt.
        """
        ...

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        """The ancestors of a timeline, oldest first, none for the first; raises as `fetch` does."""
        ...

    def describe(self) -> str:
        """The archive in a few words, for messages."""
        ...


class FilesystemArchive:
    """The archive of `cluster` at the destination folder `root`."""

    def __init__(self, root: Path, cluster: str) -> None:
        self._root, self._cluster = root, cluster
        self._folder = Path(layout.archive_folder(str(root), cluster))

    def listing(self) -> ArchiveListing:
        """All that the archive holds; raises ArchiveUnreadable."""
        return scan_archive(self._root, self._cluster)

    def fetch(self, name: str, target: Path) -> None:
        """Write the plain, checked file to `target`; raises WalFileMissing, WalDamaged, ArchiveUnreadable."""
        stored, size_bytes = self._locate(name)
        try:
            with target.open("wb") as stream:
                for plain in layout.read_entry(str(stored), size_bytes):
                    stream.write(plain)
        except layout.ArchiveError as error:
            raise WalDamaged(str(error), hint=error.hint) from error
        except FileNotFoundError as error:
            self._locate(name)  # raises WalFileMissing where it has expired since it was listed
            raise self._unreadable(error) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        """The ancestors of a timeline, oldest first; raises WalFileMissing, WalDamaged, ArchiveUnreadable."""
        if timeline == 1:
            return ()
        name = history_name(timeline)
        stored, size_bytes = self._locate(name)
        try:
            text = b"".join(layout.read_entry(str(stored), size_bytes)).decode("utf-8", "replace")
        except layout.ArchiveError as error:
            raise WalDamaged(str(error), hint=error.hint) from error
        except OSError as error:
            raise self._unreadable(error) from error
        return parse_history(name, text)

    def describe(self) -> str:
        """The archive in a few words."""
        return f"the WAL archive {self._folder}"

    def _locate(self, name: str) -> tuple[Path, int]:
        try:
            size_bytes = layout.read_marker(str(self._folder))[1]
            parse_archive_name(name, size_bytes)
            leaf = layout.folder_name(name)
            # Only listings prove absence: what is listed and cannot be opened is an error.
            entries = self._entries(leaf, name) if leaf in os.listdir(self._folder) else []
        except (OSError, layout.ArchiveError) as error:
            raise self._unreadable(error) from error
        if not entries:
            raise WalFileMissing(
                f"{name} is not in {self.describe()}", hint="`lifeboat wal status` lists what is there and gaps."
            )
        if len(entries) > 1:
            raise WalDamaged(
                f"{self.describe()} holds different versions of {name}: {', '.join(entries)}",
                hint="Move the wrong ones away.",
            )
        return self._folder / leaf / entries[0], size_bytes

    def _entries(self, leaf: str, name: str) -> list[str]:
        try:
            return layout.find_entries(str(self._folder / leaf), name)
        except FileNotFoundError:
            if leaf in os.listdir(self._folder):
                raise
            return []  # all of it has expired this moment

    def _unreadable(self, error: OSError | layout.ArchiveError) -> ArchiveUnreadable:
        hint = error.hint if isinstance(error, layout.ArchiveError) else None
        return ArchiveUnreadable(
            f"cannot read {self.describe()}: {error}",
            hint=hint or "Check that the destination is mounted and that this account may read it.",
        )
