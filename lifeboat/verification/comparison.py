"""What differs between a backup's fingerprint and the restored database's: pure, no I/O."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from lifeboat.storage.manifest import Fingerprint, SchemaObject, TableFingerprint, TableKind

# The name by which `touched_tables` says: DDL was committed, nothing tells on what.
UNKNOWN_CATALOG = "pg_catalog.*"

_CATALOG = "pg_catalog."
# Catalog tables that hold no definitions.
_NO_DEFINITIONS = frozenset(
    f"{_CATALOG}{name}"
    for name in ("pg_statistic", "pg_statistic_ext_data", "pg_largeobject", "pg_largeobject_metadata")
)
_RELATION_KINDS = frozenset({"table", "view", "materialized view", "sequence"})
_PART_KINDS = frozenset({"column", "index", "constraint", "trigger", "policy", "rule"})
_ACCESS_WORDS = {kind: "relation" for kind in _RELATION_KINDS} | {
    "procedure": "function",
    "aggregate": "function",
    "domain": "type",
}
_NOT_COMPARABLE = {
    TableKind.MATERIALIZED: "a materialized view may be stale",
    TableKind.UNLOGGED: "an unlogged table is empty after recovery",
    TableKind.FOREIGN: "a foreign table's rows are elsewhere",
}


@dataclass(frozen=True)
class Difference:
    """One thing that is not as in the backup: `what` reads like "row count 10 → 9", "missing"."""

    kind: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.what}"


@dataclass(frozen=True)
class NotCompared:
    """A table whose rows were not compared, and why."""

    table: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The outcome.

    `matched_tables` have the same row count and, where both fingerprints have one, content; `counted_tables` are those
    among them whose content was not hashed. `changed_during_backup` are definitions that differ while DDL ran between
    the fingerprint and the recovery's stop: they prove nothing either way.
    """

    differences: tuple[Difference, ...]
    matched_tables: tuple[str, ...]
    counted_tables: tuple[str, ...]
    not_compared: tuple[NotCompared, ...]
    changed_during_backup: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing differs that must not."""
        return not self.differences

    @property
    def not_compared_tables(self) -> tuple[str, ...]:
        """The names of `not_compared`."""
        return tuple(item.table for item in self.not_compared)


def compare(
    expected: Fingerprint,
    actual: Fingerprint,
    *,
    not_compared: Collection[str] = (),
    ignore_kinds: Collection[str] = (),
) -> Comparison:
    """Compare the backup's fingerprint with that of the restored database.

    `not_compared` is empty for a dump, whose rows must match exactly. For a physical backup it is what `touched_tables`
    gives, catalog tables included, and the fingerprint's own `busy_tables`. `ignore_kinds` leaves out kinds of
    objects, such as "access" after a restore without roles.
    """
    touched = set(not_compared)
    definitions = _compare_definitions(expected, actual, set(ignore_kinds))
    ddl_ran = any(name.startswith(_CATALOG) and name not in _NO_DEFINITIONS for name in touched)
    excused = definitions if ddl_ran else []
    reshaped = {item.name.rpartition(".")[0] for item in excused if item.kind == "column"}
    rows = _RowComparison(expected, actual, touched, reshaped | {item.name for item in excused})
    return Comparison(
        differences=tuple([*([] if ddl_ran else definitions), *rows.differences]),
        matched_tables=tuple(rows.matched),
        counted_tables=tuple(rows.counted),
        not_compared=tuple(rows.not_compared),
        changed_during_backup=tuple(excused),
        notes=tuple(_notes(expected, actual)),
    )


def _notes(expected: Fingerprint, actual: Fingerprint) -> Iterable[str]:
    if expected.content_algorithm != actual.content_algorithm:
        yield (
            f"content was not compared: the backup hashed it by {expected.content_algorithm}, "
            f"the drill by {actual.content_algorithm}"
        )
    if not _same_major(expected, actual):
        yield (
            f"definitions were compared by name only: PostgreSQL {actual.server_version} may print them "
            f"differently than {expected.server_version}"
        )


def _same_major(expected: Fingerprint, actual: Fingerprint) -> bool:
    return expected.server_version.split(".")[0] == actual.server_version.split(".")[0]


def _compare_definitions(expected: Fingerprint, actual: Fingerprint, ignore_kinds: set[str]) -> list[Difference]:
    found = list(_compare_extensions(expected.extensions, actual.extensions))
    before, after = _by_name(expected.objects, ignore_kinds), _by_name(actual.objects, ignore_kinds)
    missing, new = before.keys() - after.keys(), after.keys() - before.keys()
    found += [Difference(kind, name, "missing") for kind, name in sorted(_without_parts(missing))]
    found += [Difference(kind, name, "not in the backup") for kind, name in sorted(_without_parts(new))]
    if _same_major(expected, actual):
        same_name = sorted(before.keys() & after.keys())
        found += [Difference(*key, "definition differs") for key in same_name if before[key] != after[key]]
    return found + list(_compare_table_names(expected, actual, {name for _, name in missing | new}))


def _compare_table_names(expected: Fingerprint, actual: Fingerprint, known: set[str]) -> Iterable[Difference]:
    # Large objects have no definition, and a fingerprint may have come without definitions.
    before = {table.qualified_name for table in expected.tables}
    after = {table.qualified_name for table in actual.tables}
    yield from (Difference("table", name, "missing") for name in sorted(before - after - known))
    yield from (Difference("table", name, "not in the backup") for name in sorted(after - before - known))


def _compare_extensions(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[Difference]:
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield Difference("extension", name, "missing")
        elif name not in before:
            yield Difference("extension", name, "not in the backup")
        elif before[name] != after[name]:
            yield Difference("extension", name, f"version {before[name]} → {after[name]}")


def _by_name(objects: Iterable[SchemaObject], ignore_kinds: set[str]) -> dict[tuple[str, str], list[str]]:
    # Names with dots in them may coincide: the hashes of all that have one name are compared together.
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for item in objects:
        if item.kind not in ignore_kinds:
            found[item.kind, item.name].append(item.sha256)
    return {key: sorted(hashes) for key, hashes in found.items()}


def _without_parts(keys: Collection[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Without the columns, indexes and such of tables, and the privileges of objects, that are listed themselves."""
    relations = {name for kind, name in keys if kind in _RELATION_KINDS}
    own_access = {f"{_ACCESS_WORDS.get(kind, kind)} {name}" for kind, name in keys}
    for kind, name in keys:
        owner = name
        while kind in _PART_KINDS and "." in owner and owner not in relations:
            owner = owner.rpartition(".")[0]
        if not (kind in _PART_KINDS and owner in relations) and not (kind == "access" and name in own_access):
            yield kind, name


class _RowComparison:
    """The rows of the tables that both fingerprints have."""

    def __init__(self, expected: Fingerprint, actual: Fingerprint, touched: set[str], reshaped: set[str]) -> None:
        self.differences: list[Difference] = []
        self.matched: list[str] = []
        self.counted: list[str] = []
        self.not_compared: list[NotCompared] = []
        self._touched, self._reshaped = touched, reshaped
        self._same_algorithm = expected.content_algorithm == actual.content_algorithm
        restored = {(table.schema_name, table.table_name): table for table in actual.tables}
        for table in sorted(expected.tables, key=lambda item: item.qualified_name):
            found = restored.get((table.schema_name, table.table_name))
            if found is not None:
                self._compare(table, found)

    def _compare(self, before: TableFingerprint, after: TableFingerprint) -> None:
        name = before.qualified_name
        reason = self._reason_not_to_compare(before)
        if reason is not None:
            self.not_compared.append(NotCompared(name, reason))
        elif before.kind is not after.kind:
            self._differs(name, f"kind {before.kind} → {after.kind}")
        elif after.row_count is None:
            self._differs(name, f"row count {before.row_count} → not counted")
        elif before.row_count != after.row_count:
            self._differs(name, f"row count {before.row_count} → {after.row_count}")
        elif before.content_hash is None or after.content_hash is None or not self._same_algorithm:
            self.matched.append(name)
            self.counted.append(name)
        elif before.content_hash != after.content_hash:
            self._differs(name, "content differs")
        else:
            self.matched.append(name)

    def _reason_not_to_compare(self, table: TableFingerprint) -> str | None:
        name = table.qualified_name
        if table.kind in _NOT_COMPARABLE:
            return _NOT_COMPARABLE[table.kind]
        if table.row_count is None:
            return "its rows were not counted at backup time"
        if name in self._touched:
            return "it was written while the backup ran"
        if name in self._reshaped:
            return "its definition was changed while the backup ran"
        return None

    def _differs(self, name: str, what: str) -> None:
        self.differences.append(Difference("table", name, what))
