"""The WAL archive inside the repository, read without a server (lifeboat.wal.archive.WalArchive).

Names (pgBackRest, src/command/archive/common.c): `<version>-<history id>/<first 16 digits>/<segment>-<SHA-1>[.gz]`,
history files one folder up, as they are.
"""

import hashlib
import json
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.failures import RepositoryUndecipherable
from lifeboat.engines.pgbackrest.info import Database, read_info
from lifeboat.engines.pgbackrest.stored_wal import fault_of, unpack
from lifeboat.errors import LifeboatError
from lifeboat.storage.durable import fsync_directory, fsync_file
from lifeboat.wal.archive import WalDamaged, WalFileMissing
from lifeboat.wal.archive_program.layout import name_kind
from lifeboat.wal.coverage import (
    ArchivedFile,
    ArchiveListing,
    ArchiveUnreadable,
    DamagedFile,
    contiguous_ranges,
    gaps_between,
)
from lifeboat.wal.names import (
    DEFAULT_SEGMENT_SIZE_BYTES,
    ArchiveNameKind,
    InvalidWalName,
    Segment,
    TimelineSwitch,
    history_name,
    is_segment_size,
    parse_archive_name,
    parse_history,
)

_STORED = re.compile(r"(?P<name>[0-9A-F]{24}(?:\.partial)?)-(?P<sha1>[0-9a-f]{40})(?P<suffix>\.gz|\.bz2|\.lz4|\.zst)?")
_BLOCK_BYTES = 1024 * 1024
_DAMAGED_HINT = "Restore to a moment before it, or take a full backup and restore from that."
# XLogLongPageHeaderData: the segment's size follows the system identifier.
_SEGMENT_SIZE_AT = 32


@dataclass(frozen=True)
class PgBackRestArchive:
    """The WAL of the cluster that the stanza belongs to now. `repository` only names places in what is listed."""

    pgbackrest: PgBackRest
    repository: Path

    def describe(self) -> str:
        """Where it is, for people."""
        return f"stanza {self.pgbackrest.stanza} of pgBackRest's repository {self.repository}"

    def listing(self) -> ArchiveListing:
        """What is in it, by names and sizes; raises ArchiveUnreadable."""
        files: list[ArchivedFile] = []
        damaged: list[DamagedFile] = []
        unknown: list[Path] = []
        versions: defaultdict[str, list[ArchivedFile]] = defaultdict(list)
        stored = list(self._stored())
        if "segment_size_bytes" not in self.__dict__:
            # The cached property would list everything once more.
            self.__dict__["segment_size_bytes"] = self._told_size(stored)
        for relative, size_bytes in stored:
            name = self._name_of(relative)
            path = self._root / relative
            if name is None:
                unknown.append(path)
                continue
            # Its names carry SHA-1, so there is no SHA-256 to be had without reading.
            versions[name].append(ArchivedFile(parse_archive_name(name, self.segment_size_bytes), path, size_bytes, ""))
        for name, found in sorted(versions.items()):
            several = f"{len(found)} different versions" if len(found) > 1 else None
            for item in found:
                reason = several or fault_of(item)
                if reason is None:
                    files.append(item)
                else:
                    damaged.append(DamagedFile(name, item.path, reason))
        kinds = [(item.parsed.kind, item.parsed.segment) for item in files]
        ranges = contiguous_ranges(
            segment for kind, segment in kinds if kind is ArchiveNameKind.SEGMENT and segment is not None
        )
        return ArchiveListing(
            archive=self._root,
            system_identifier=str(self._database.system_id),
            segment_size_bytes=self.segment_size_bytes,
            files=tuple(files),
            ranges=ranges,
            gaps=gaps_between(ranges),
            damaged=tuple(damaged),
            unfinished=(),
            unknown=tuple(unknown),
        )

    def holds(self, segment: Segment) -> bool:
        """Whether a sound copy of a segment is there, by name and size; only its folder is listed.

        Raises ArchiveUnreadable.
        """
        folder = f"{self._database.archive_id}/{segment.name[:16]}"
        stored = {name: entry for name, entry in self._list(folder).items() if _name_in(name) == segment.name}
        if len(stored) != 1:
            return False
        (name, entry), parsed = next(iter(stored.items())), parse_archive_name(segment.name, segment.size_bytes)
        item = ArchivedFile(parsed, self._root / folder / name, int(entry["size"]), "")
        return fault_of(item, thorough=True) is None

    def fetch(self, name: str, target: Path) -> None:
        """Write the plain text of an archived file to `target`, checked by its SHA-1 where its name has one.

        Raises WalFileMissing only where the repository was read and lacks it, WalDamaged, and ArchiveUnreadable.
        """
        parse_archive_name(name, self._known_size)
        relative = self._find(name)
        with TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
            stored, plain = Path(folder, "stored"), Path(folder, "plain")
            try:
                self.pgbackrest.run(
                    "repo-get",
                    f"{self._prefix}/{relative}",
                    doing=f"reading {relative}",
                    level="warn",
                    stdout_path=stored,
                )
            except RepositoryUndecipherable as error:
                # The passphrase was right for archive.info.
                raise WalDamaged(error.message, hint=_DAMAGED_HINT) from error
            except LifeboatError as error:
                raise _unreadable(self.describe(), error.message) from error
            unpack(stored, plain, relative)
            found = _STORED.fullmatch(relative.rpartition("/")[2])
            if found is not None and _sha1(plain) != found["sha1"]:
                raise WalDamaged(
                    f"{relative} in {self.describe()} has changed: its SHA-1 is not the one in its name",
                    hint=_DAMAGED_HINT,
                )
            fsync_file(plain)
            plain.replace(target)
        fsync_directory(target.parent)

    def history(self, timeline: int) -> tuple[TimelineSwitch, ...]:
        """The ancestors of a timeline, none for the first; raises as `fetch`, and InvalidWalName."""
        if timeline == 1:
            return ()
        name = history_name(timeline)
        with TemporaryDirectory(prefix="lifeboat-history-") as folder:
            path = Path(folder) / name
            self.fetch(name, path)
            return parse_history(name, path.read_text("utf-8"))

    @cached_property
    def segment_size_bytes(self) -> int:
        """The size that the segments say they have; PostgreSQL's default while there is none."""
        return self._told_size(self._stored())

    def _told_size(self, stored: Iterable[tuple[str, int]]) -> int:
        for relative, _ in stored:
            found = _STORED.fullmatch(relative.rpartition("/")[2])
            if found is None or found["name"].endswith(".partial"):
                continue
            with TemporaryDirectory(prefix="lifeboat-segment-") as folder:
                path = Path(folder, "segment")
                try:
                    self.fetch(found["name"], path)
                except (WalDamaged, InvalidWalName):
                    continue
                with path.open("rb") as stream:
                    (size_bytes,) = struct.unpack_from("=I", stream.read(_SEGMENT_SIZE_AT + 4), _SEGMENT_SIZE_AT)
            if is_segment_size(size_bytes):
                return int(size_bytes)
        return DEFAULT_SEGMENT_SIZE_BYTES

    @property
    def _known_size(self) -> int:
        # Of use only for names, which are those of segments of every size but for the last digits' range.
        return int(self.__dict__.get("segment_size_bytes", 1 << 20))

    @cached_property
    def _database(self) -> Database:
        try:
            current = read_info(self.pgbackrest).current
        except LifeboatError as error:
            raise _unreadable(self.describe(), error.message, error.hint) from error
        if current is None:
            raise _unreadable(self.describe(), "the repository is not there, or has no such stanza")
        return current

    @property
    def _prefix(self) -> str:
        return f"archive/{self.pgbackrest.stanza}"

    @property
    def _root(self) -> Path:
        return self.repository / self._prefix

    def _stored(self) -> Iterator[tuple[str, int]]:
        """Files of the present cluster, relative to the stanza's archive, with their sizes in bytes."""
        folder = self._database.archive_id
        for name, entry in sorted(self._list(folder, "--recurse").items()):
            if entry["type"] == "file":
                yield f"{folder}/{name}", int(entry["size"])

    def _list(self, folder: str, *options: str) -> dict[str, dict[str, Any]]:
        path = f"{self._prefix}/{folder}" if folder else self._prefix
        words = ["--output=json", *options, path]
        try:
            done = self.pgbackrest.run("repo-ls", *words, doing=f"listing {path}", level="warn")
            return cast("dict[str, dict[str, Any]]", json.loads(done.stdout))
        except (LifeboatError, ValueError) as error:
            raise _unreadable(self.describe(), str(error)) from error

    def _find(self, name: str) -> str:
        folder = self._database.archive_id
        if not name.endswith(".history"):
            folder = f"{folder}/{name[:16]}"
        found = [f"{folder}/{entry}" for entry in self._list(folder) if entry == name or _name_in(entry) == name]
        if len(found) > 1:
            raise WalDamaged(f"there are {len(found)} different versions of {name} in {self.describe()}")
        if found:
            return found[0]
        # A folder that is not there lists as an empty one: only a stanza that is there can lack a file.
        if "archive.info" not in self._list(""):
            raise _unreadable(self.describe(), "archive.info is not there")
        raise WalFileMissing(f"{name} is not in {self.describe()}")

    def _name_of(self, relative: str) -> str | None:
        folder, _, entry = relative.partition("/")[2].rpartition("/")
        name = _name_in(entry) or entry
        kind = name_kind(name, self.segment_size_bytes)
        expected = "" if kind == ArchiveNameKind.HISTORY else name[:16]
        return name if kind is not None and folder == expected else None


def _name_in(entry: str) -> str | None:
    found = _STORED.fullmatch(entry)
    return found["name"] if found else None


def _sha1(path: Path) -> str:
    # pgBackRest's choice; it protects against damage, not against somebody.
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _unreadable(where: str, why: str, hint: str | None = None) -> ArchiveUnreadable:
    return ArchiveUnreadable(
        f"{where} cannot be read: {why}",
        hint=hint or "Check that the repository is mounted and that the account that runs pgBackRest may read it.",
    )
