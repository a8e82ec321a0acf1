"""What applying an archive would change, found out without changing anything."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lifeboat.configuration.archive import encode_index
from lifeboat.configuration.content import Archive, FileItem, Key
from lifeboat.configuration.diff import FieldChange
from lifeboat.configuration.index import Finding, Target
from lifeboat.settings.configuration import ConfigurationSettings


@dataclass(frozen=True)
class RowChange:
    """One row to insert or update: JSON texts of `columns`, absent ones NULL; `changes` are fit to be shown.

    `before` has the live texts that an update replaces, with their secrets.
    """

    key: Key
    item: str
    columns: tuple[str, ...]
    values: Mapping[str, str] = field(repr=False)
    changes: tuple[FieldChange, ...] = ()
    before: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RowsPlan:
    """The changes of one table."""

    section: str
    target: Target
    key_columns: tuple[str, ...]
    inserts: tuple[RowChange, ...]
    updates: tuple[RowChange, ...]
    removals: tuple[Key, ...]
    unchanged_count: int

    @property
    def is_empty(self) -> bool:
        """Whether the table stays as it is."""
        return not (self.inserts or self.updates or self.removals)


@dataclass(frozen=True)
class FileAction:
    """One change of a file: `now` is what is there, None where there is nothing."""

    action: Literal["write", "mode", "remove"]
    item: FileItem
    now: FileItem | None


@dataclass(frozen=True)
class FilesPlan:
    """The changes below one folder."""

    section: str
    root: Path
    actions: tuple[FileAction, ...]
    unchanged_count: int


@dataclass(frozen=True)
class ByHand:
    """Something that only an administrator does: statements to run, differences to look at."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ApplyPlan:
    """Everything that applying an archive would do; `live_sha256` stands for the state it was made for."""

    archive: Archive = field(repr=False)
    settings: ConfigurationSettings = field(repr=False)
    folders: Mapping[str, Path]
    only: Collection[str] | None
    prune: bool
    rows: tuple[RowsPlan, ...]
    files: tuple[FilesPlan, ...]
    by_hand: tuple[ByHand, ...]
    notes: tuple[Finding, ...]
    live_sha256: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return all(each.is_empty for each in self.rows) and not any(each.actions for each in self.files)

    @property
    def sha256(self) -> str:
        """The identity of the plan, for an approval: the same archive, choices and live state give the same."""
        choices = [str(self.prune), repr(sorted(self.only)) if self.only is not None else ""]
        folders = [f"{each.section}={each.root}" for each in self.files]
        tables = [f"{each.section}={each.target.schema_name}.{each.target.table_name}" for each in self.rows]
        text = "\n".join([*choices, *folders, *tables, self.live_sha256]).encode()
        return hashlib.sha256(encode_index(self.archive.index) + text).hexdigest()
