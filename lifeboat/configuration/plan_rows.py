"""Plans the changes of one table: archived rows against the live rows with the same keys."""

import hashlib
from collections.abc import Collection
from typing import Any

import psycopg

from lifeboat.configuration.content import Key, RowsSection, label_of
from lifeboat.configuration.diff import diff_fields
from lifeboat.configuration.export import bounds_of, read_query_section
from lifeboat.configuration.filling import Filling, is_redacted
from lifeboat.configuration.index import REDACTED, ConfigurationError, Finding
from lifeboat.configuration.jsontext import Row, parse, render_row
from lifeboat.configuration.plan import RowChange, RowsPlan
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.table_rows import count_references, read_by_key
from lifeboat.configuration.tables import Table, describe_table, target_of
from lifeboat.settings.configuration import ConfigurationSettings, QuerySection

_FILL_IN = "Set the value by hand: the archive has no secrets."


class RowsPlanner:
    """Plans one section of rows inside a transaction with fixed settings; `notes` tell what is not written, and why."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        settings: ConfigurationSettings,
        name: str,
        archived: RowsSection,
        section: QuerySection,
    ) -> None:
        if section.table is None or section.key_columns != archived.key_columns:
            raise ConfigurationError(
                f"the section {name} is keyed by {', '.join(archived.key_columns)} in the archive and by"
                f" {', '.join(section.key_columns)} in the settings",
                hint="Use the key columns of the archive to apply it, or leave the section out.",
            )
        self._connection, self._settings, self._name = connection, settings, name
        self._archived, self._section = archived, section
        self._table: Table = describe_table(connection, section.table)
        self._target = target_of(name, self._table, list(archived.columns), archived.key_columns)
        self._redactor = Redactor(settings.redact, settings.keep)
        self._digest = hashlib.sha256(self._table.qualified_name.encode())
        self.notes: list[Finding] = []

    @property
    def live_digest(self) -> str:
        """Stands for every live row that the plan depends on."""
        return self._digest.hexdigest()

    def plan(self, *, prune: bool, pruned_tables: Collection[str]) -> RowsPlan:
        """The changes; with `prune` also what the section's query finds and the archive has not.

        A row that other rows refer to is kept, but for references from `pruned_tables`, which go first.
        """
        live = read_by_key(self._connection, self._archived, self._target, bounds_of(self._settings)).by_key()
        self._note_state(live.values())
        inserts, updates = [], []
        for key, row in self._archived.by_key().items():
            if key not in live:
                change = self._insert(key, row)
                inserts += [change] if change is not None else []
            elif (update := self._update(key, row, live[key])) is not None:
                updates.append(update)
        removals = self._removals(pruned_tables) if prune else []
        unchanged_count = len(live) - len(updates)
        return RowsPlan(
            self._name, self._target, self._archived.key_columns, tuple(inserts), tuple(updates), tuple(removals),
            unchanged_count,
        )  # fmt: skip

    def _insert(self, key: Key, row: Row) -> RowChange | None:
        label, columns = label_of(key), self._table.columns
        redacted = [name for name in self._target.columns if name in row and is_redacted(parse(row[name]))]
        unfit = [name for name in redacted if not columns[name].holds_text]
        for name in unfit:
            if columns[name].is_required:
                self._note(label, f"is not inserted: {name} was redacted and must have a value")
                return None
        for name in redacted:
            result = "column's default" if name in unfit else f"text {REDACTED}"
            self._note(label, f"{name} was redacted and gets the {result}")
        written = tuple(name for name in self._target.columns if name not in unfit)
        return RowChange(key, label, written, {name: row[name] for name in written if name in row})

    def _update(self, key: Key, row: Row, live: Row) -> RowChange | None:
        label, filling = label_of(key), Filling(self._redactor.text)
        values: dict[str, str] = {}
        columns = []
        for column in self._target.columns:
            text, now = row.get(column), live.get(column)
            if text is not None and text != now and is_redacted(parse(text)):
                text = self._filled(filling, column, text, now)
            if text != now and column not in self._archived.key_columns:
                columns.append(column)
                if text is not None:
                    values[column] = text
        for path in filling.kept:
            self._note(label, f"{path} was redacted and differs: it is kept as it is")
        for path in filling.unknown:
            self._note(label, f"{path} was redacted and gets the text {REDACTED}")
        if not columns:
            return None
        identity = [column for column in columns if column in self._target.identity_columns]
        if identity:
            self._note(label, f"{identity[0]} is numbered by the table itself and is kept as it is", "Nothing to do.")
            columns = [column for column in columns if column not in identity]
        before = {name: live[name] for name in columns if name in live}
        after = {name: values[name] for name in columns if name in values}
        redacted = [self._redactor.row(self._name, label, each) for each in (before, after)]
        return RowChange(key, label, tuple(columns), after, tuple(diff_fields(*redacted)), before) if columns else None

    def _filled(self, filling: Filling, column: str, text: str, now: str | None) -> str | None:
        if now is None and not self._table.columns[column].holds_text:
            filling.kept.append(column)
            return None
        return filling.fill(column, text, now)

    def _removals(self, pruned_tables: Collection[str]) -> list[Key]:
        in_scope = read_query_section(self._connection, self._name, self._section, bounds_of(self._settings))
        archived = self._archived.by_key()
        extra = [key for key in in_scope.by_key() if key not in archived]
        self._digest.update(repr(sorted(extra)).encode())
        return [key for key in extra if not self._is_referred_to(key, pruned_tables)]

    def _is_referred_to(self, key: Key, pruned_tables: Collection[str]) -> bool:
        for reference in self._table.references:
            name = f"{reference.schema_name}.{reference.table_name}"
            if name in pruned_tables:
                continue
            count = count_references(self._connection, self._target, self._archived.key_columns, key, reference)
            if count:
                hint = "Remove or move those rows first, if the item is really to go."
                self._note(label_of(key), f"is not removed: {count} rows of {name} refer to it", hint)
                return True
        return False

    def _note_state(self, rows: Collection[Row]) -> None:
        for row in rows:
            self._digest.update(render_row(row).encode() + b"\n")

    def _note(self, item: str, problem: str, hint: str = _FILL_IN) -> None:
        self.notes.append(Finding(section=self._name, item=item, problem=problem, hint=hint))
