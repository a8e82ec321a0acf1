"""The content of a configuration archive in memory: sections of rows and sections of files."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import TypeAlias

from lifeboat.configuration.index import (
    ArchiveIndex,
    ConfigurationError,
    FileKind,
    FileRecord,
    SectionIndex,
    Source,
    Target,
)
from lifeboat.configuration.jsontext import JsonInvalid, Number, Row, parse, render_row, split_row

Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class FileItem:
    """One file, link or directory; `content` is empty but for files."""

    path: str
    kind: FileKind
    mode: int
    content: bytes = field(default=b"", repr=False)
    target: str | None = None

    @property
    def record(self) -> FileRecord:
        """What the index says about it."""
        is_file = self.kind == "file"
        return FileRecord(
            path=self.path,
            kind=self.kind,
            mode=self.mode,
            size_bytes=len(self.content),
            sha256=hashlib.sha256(self.content).hexdigest() if is_file else None,
            target=self.target,
        )


@dataclass(frozen=True)
class RowsSection:
    """Rows in the order of their keys."""

    source: Source
    kind: str
    columns: Mapping[str, str]
    key_columns: tuple[str, ...]
    rows: tuple[Row, ...] = field(repr=False)
    target: Target | None = None

    @property
    def data(self) -> bytes:
        """The section's file: a JSON array with one item per line."""
        return encode_rows(self.rows)

    @property
    def index(self) -> SectionIndex:
        """What the index says about it."""
        return SectionIndex(
            source=self.source,
            kind=self.kind,
            item_count=len(self.rows),
            sha256=hashlib.sha256(self.data).hexdigest(),
            columns=dict(self.columns),
            key_columns=list(self.key_columns),
            target=self.target,
        )

    def by_key(self) -> dict[Key, Row]:
        """The rows under their keys."""
        return {key_of(row, self.key_columns): row for row in self.rows}


@dataclass(frozen=True)
class FilesSection:
    """Files in the order of their paths; `path` is the folder that they came from."""

    source: Source
    kind: str
    path: str
    files: tuple[FileItem, ...] = field(repr=False)

    @property
    def index(self) -> SectionIndex:
        """What the index says about it."""
        count = sum(item.kind != "directory" for item in self.files)
        records = [item.record for item in self.files]
        return SectionIndex(source=self.source, kind=self.kind, item_count=count, path=self.path, files=records)


AnyContent: TypeAlias = RowsSection | FilesSection


@dataclass(frozen=True)
class Archive:
    """A whole archive: its index and the content of every section that the index names."""

    index: ArchiveIndex
    sections: Mapping[str, AnyContent] = field(repr=False)

    def rows(self, name: str) -> RowsSection | None:
        """The section of rows with this name, if there is one."""
        found = self.sections.get(name)
        return found if isinstance(found, RowsSection) else None

    def files(self, name: str) -> FilesSection | None:
        """The section of files with this name, if there is one."""
        found = self.sections.get(name)
        return found if isinstance(found, FilesSection) else None


def key_of(row: Row, key_columns: Sequence[str]) -> Key:
    """The JSON texts of the key columns. Raises ConfigurationError where one is NULL."""
    try:
        return tuple(row[name] for name in key_columns)
    except KeyError as error:
        raise ConfigurationError(
            f"an item has no value in its key column {error}",
            hint="Choose key columns that are never NULL, best the primary key.",
        ) from None


def label_of(key: Key) -> str:
    """A key as people read it: `42` or `studio/7`."""
    values = [parse(text) for text in key]
    return "/".join(value if isinstance(value, str) else text for value, text in zip(values, key, strict=True))


def in_key_order(name: str, rows: Iterable[Row], key_columns: Sequence[str]) -> tuple[Row, ...]:
    """The rows sorted by key, numbers by value. Raises ConfigurationError where two have the same key."""
    keyed = [(key_of(row, key_columns), row) for row in rows]
    keyed.sort(key=lambda pair: [_rank(text) for text in pair[0]])
    for (key, _), (following, _) in pairwise(keyed):
        if key == following:
            raise ConfigurationError(
                f"the section {name} has two items with the key {label_of(key)}",
                hint=f"Choose `key_columns` that tell all rows apart; now they are {', '.join(key_columns)}.",
            )
    return tuple(row for _, row in keyed)


def _rank(text: str) -> tuple[int, Decimal, str]:
    value = parse(text)
    if isinstance(value, Number):
        return 0, Decimal(value), ""
    return 1, Decimal(), value if isinstance(value, str) else text


def encode_rows(rows: Sequence[Row]) -> bytes:
    """A JSON array, one item per line."""
    return ("[\n" + ",\n".join(render_row(row) for row in rows) + ("\n" if rows else "") + "]\n").encode()


def decode_rows(data: bytes) -> tuple[Row, ...]:
    """The rows of a section's file. Raises JsonInvalid for anything that `encode_rows` would not write."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise JsonInvalid(f"not UTF-8: {error}") from None
    if lines[0] != "[" or lines[-2:] != ["]", ""]:
        raise JsonInvalid("not a JSON array with one item per line")
    body = lines[1:-2]
    if any(line.endswith(",") != (at < len(body) - 1) for at, line in enumerate(body)):
        raise JsonInvalid("not a JSON array with one item per line")
    return tuple(split_row(line.removesuffix(",")) for line in body)
