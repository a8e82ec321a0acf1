"""Compares two configuration archives, or one with the live platform: items by key, fields by path, files by hash."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lifeboat.configuration.content import AnyContent, Archive, FileItem, FilesSection, RowsSection, label_of
from lifeboat.configuration.jsontext import Json, Number, Row, parse, render

_TEXT_DIFF_MAX_BYTES = 1024**2
_TEXT_DIFF_MAX_LINES = 2_000


@dataclass(frozen=True)
class FieldChange:
    """One value that differs: the path inside the item, and both JSON texts (None where there is no such value)."""

    path: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class ItemChange:
    """One item that both sides have, with different values."""

    item: str
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True)
class FileChange:
    """One file that both sides have: its hashes, modes or link targets, and a unified diff where it is text."""

    path: str
    old: FileItem
    new: FileItem
    text_diff: str | None

    @property
    def content_changed(self) -> bool:
        """Whether more than the mode differs."""
        return (self.old.kind, self.old.content, self.old.target) != (self.new.kind, self.new.content, self.new.target)


@dataclass(frozen=True)
class SectionDiff:
    """What differs in one section; items and files are named as people read them."""

    name: str
    kind: str
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[ItemChange, ...] = ()
    changed_files: tuple[FileChange, ...] = ()
    changed_types: tuple[FieldChange, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.removed or self.changed or self.changed_files or self.changed_types)


@dataclass(frozen=True)
class ConfigurationDiff:
    """The sections that differ, and those that only one side has. Redacted values are not compared."""

    sections: tuple[SectionDiff, ...]
    added_sections: tuple[str, ...]
    removed_sections: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether both sides are the same."""
        return not (self.sections or self.added_sections or self.removed_sections)


def diff(old: Archive, new: Archive) -> ConfigurationDiff:
    """What changes from one archive to the other. For the live platform, give an archive exported just now."""
    both = [name for name in old.sections if name in new.sections]
    found = [_diff_section(name, old.sections[name], new.sections[name]) for name in both]
    return ConfigurationDiff(
        sections=tuple(each for each in found if not each.is_empty),
        added_sections=tuple(name for name in new.sections if name not in old.sections),
        removed_sections=tuple(name for name in old.sections if name not in new.sections),
    )


def _diff_section(name: str, old: AnyContent, new: AnyContent) -> SectionDiff:
    if isinstance(old, FilesSection) and isinstance(new, FilesSection):
        return diff_files(name, old, new)
    if isinstance(old, RowsSection) and isinstance(new, RowsSection) and old.key_columns == new.key_columns:
        return diff_rows(name, old, new)
    # Rows became files, or other columns name an item: nothing corresponds to anything.
    return SectionDiff(name, new.kind, added=_labels(new), removed=_labels(old))


def _labels(content: AnyContent) -> tuple[str, ...]:
    if isinstance(content, RowsSection):
        return tuple(label_of(key) for key in content.by_key())
    return tuple(item.path for item in content.files)


def diff_rows(name: str, old: RowsSection, new: RowsSection) -> SectionDiff:
    """What differs between two sections of rows with the same key columns."""
    before, after = old.by_key(), new.by_key()
    changed = ((key, tuple(diff_fields(before[key], row))) for key, row in after.items() if key in before)
    return SectionDiff(
        name,
        new.kind,
        added=tuple(label_of(key) for key in after if key not in before),
        removed=tuple(label_of(key) for key in before if key not in after),
        changed=tuple(ItemChange(label_of(key), fields) for key, fields in changed if fields),
        changed_types=tuple(_changed_types(old.columns, new.columns)),
    )


def _changed_types(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[FieldChange]:
    for column in dict.fromkeys([*old, *new]):
        if old.get(column) != new.get(column):
            yield FieldChange(column, old.get(column), new.get(column))


def diff_fields(old: Row, new: Row) -> Iterator[FieldChange]:
    """The fields of a row that differ, JSON ones down to the value; absent means NULL."""
    for column in sorted({*old, *new}):
        before, after = old.get(column), new.get(column)
        if before == after:
            continue
        if before is None or after is None:
            yield FieldChange(column, before, after)
        else:
            # The texts may differ where the values do not: the type json keeps spaces and the order of names.
            inner = list(_diff_values(column, parse(before), parse(after)))
            yield from inner or [FieldChange(column, before, after)]


def _diff_values(path: str, old: Json, new: Json) -> Iterator[FieldChange]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _diff_member(f"{path}.{name}", name in old, old.get(name), name in new, new.get(name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _diff_values(f"{path}[{at}]", before, after)
    elif not _same(old, new):
        yield FieldChange(path, render(old), render(new))


def _diff_member(path: str, in_old: bool, old: Json, in_new: bool, new: Json) -> Iterator[FieldChange]:
    if in_old and in_new:
        yield from _diff_values(path, old, new)
    else:
        yield FieldChange(path, render(old) if in_old else None, render(new) if in_new else None)


def _same(old: Json, new: Json) -> bool:
    return isinstance(old, Number) == isinstance(new, Number) and old == new and type(old) is type(new)


def diff_files(name: str, old: FilesSection, new: FilesSection) -> SectionDiff:
    """What differs between two sections of files."""
    before, after = {item.path: item for item in old.files}, {item.path: item for item in new.files}
    changed = [
        FileChange(path, before[path], item, text_diff(path, before[path], item))
        for path, item in after.items()
        if path in before and before[path] != item
    ]
    return SectionDiff(
        name,
        new.kind,
        added=tuple(path for path in after if path not in before),
        removed=tuple(path for path in before if path not in after),
        changed_files=tuple(changed),
    )


def text_diff(path: str, old: FileItem, new: FileItem) -> str | None:
    """A unified diff of two files, or None where their contents are equal, not text, or too large to compare so."""
    if old.content == new.content or max(len(old.content), len(new.content)) > _TEXT_DIFF_MAX_BYTES:
        return None
    try:
        before, after = (item.content.decode().splitlines(keepends=True) for item in (old, new))
    except UnicodeDecodeError:
        return None
    if max(len(before), len(after)) > _TEXT_DIFF_MAX_LINES or b"\0" in old.content + new.content:
        return None
    lines = difflib.unified_diff(before, after, f"old/{path}", f"new/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines)
