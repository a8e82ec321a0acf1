"""Exports the configuration: collects every section under one snapshot, then takes all secrets out."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.configuration.content import AnyContent, Archive, FileItem, FilesSection, RowsSection, in_key_order
from lifeboat.configuration.folders import FolderReader
from lifeboat.configuration.index import ArchiveIndex, ConfigurationError, Finding
from lifeboat.configuration.jsontext import Row, parse, render, render_plain
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.restore_sql import restore_sql
from lifeboat.configuration.roles import ROLES, read_roles
from lifeboat.configuration.rows import Bounds, read_rows, snapshot
from lifeboat.configuration.server_files import LIFEBOAT, SERVER, read_own_settings, read_server_files
from lifeboat.configuration.tables import describe_table, target_of
from lifeboat.settings.configuration import BUILT_IN_SECTIONS, ConfigurationSettings, FolderSection, QuerySection

_NATURAL_KEYS = ("id", "name", "key")


def export_configuration(
    connection: psycopg.Connection[Any],
    settings: ConfigurationSettings,
    *,
    lifeboat_version: str,
    lifeboat_toml: Path | None = None,
    extra: Mapping[str, Sequence[Mapping[str, object]]] | None = None,
) -> Archive:
    """Collect all sections, and `extra` ones given as plain values, into an archive without secrets.

    Rows are seen at one moment; the connection must be outside a transaction. Raises ConfigurationError when any part
    cannot be read: a part must not look like the whole. What was left out for a reason stands in the index's findings.
    """
    collector = _Collector(connection, settings)
    with snapshot(
        connection, search_path=settings.search_path, statement_timeout_seconds=settings.statement_timeout_seconds
    ):
        collector.collect_own(lifeboat_toml, extra or {})
        collector.collect_platform()
        return collector.finish(lifeboat_version)


def bounds_of(settings: ConfigurationSettings) -> Bounds:
    """What one section of rows may hold."""
    return Bounds(settings.max_items, settings.max_total_bytes)


def read_query_section(
    connection: psycopg.Connection[Any], name: str, section: QuerySection, bounds: Bounds
) -> RowsSection:
    """A section's rows as they are, with their secrets; inside `snapshot`."""
    found = read_rows(
        connection,
        name,
        sql.SQL(section.sql),  # type: ignore[arg-type,unused-ignore]
        key_columns=section.key_columns,
        kind=section.kind or name,
        bounds=bounds,
    )
    if section.table is None:
        return found
    target = target_of(name, describe_table(connection, section.table), list(found.columns), section.key_columns)
    return RowsSection(found.source, found.kind, found.columns, found.key_columns, found.rows, target)


class _Collector:
    def __init__(self, connection: psycopg.Connection[Any], settings: ConfigurationSettings) -> None:
        self._connection, self._settings = connection, settings
        self._redactor = Redactor(settings.redact, settings.keep)
        self._sections: dict[str, AnyContent] = {}
        self._strict: set[str] = set()
        self._findings: list[Finding] = []

    def collect_own(self, lifeboat_toml: Path | None, extra: Mapping[str, Sequence[Mapping[str, object]]]) -> None:
        """The server's and Lifeboat's own settings: what is secret there is known to be secret everywhere."""
        settings = self._settings
        if settings.server_files:
            wanted = None if settings.server_files == "auto" else settings.server_files
            self._add_files(SERVER, *read_server_files(self._connection, self._redactor, wanted))
        if settings.roles:
            self._sections[ROLES] = read_roles(self._connection, bounds_of(settings))
        if lifeboat_toml is not None:
            self._add_files(LIFEBOAT, *read_own_settings(self._redactor, lifeboat_toml))
        for name, rows in extra.items():
            if name in BUILT_IN_SECTIONS or name in settings.sections:
                raise ConfigurationError(f"there are two sections named {name}", hint="Rename the one in settings.")
            self._sections[name] = _plain_section(name, rows)
            self._strict.add(name)

    def collect_platform(self) -> None:
        """The sections of the settings, in their order."""
        bounds = bounds_of(self._settings)
        for name, section in self._settings.sections.items():
            if isinstance(section, FolderSection):
                reader = folder_reader(name, section, self._settings, self._redactor)
                self._add_files(name, reader.read(), reader.findings)
            else:
                self._sections[name] = read_query_section(self._connection, name, section, bounds)

    def finish(self, lifeboat_version: str) -> Archive:
        """Take the secrets out and write the index."""
        # Twice: what the last section shows to be a secret may stand in the first one too.
        for _ in range(2):
            for name, content in self._sections.items():
                if isinstance(content, RowsSection):
                    self._sections[name] = self._redactor.section(name, content, strict=name in self._strict)
        for name, content in self._sections.items():
            if isinstance(content, FilesSection):
                sweep = self._sweep if content.source == "server" else self._report_known
                self._sections[name] = replace(content, files=tuple(sweep(name, item) for item in content.files))
        info = self._connection.info
        index = ArchiveIndex(
            lifeboat_version=lifeboat_version,
            database=info.dbname,
            server_version=f"{info.server_version // 10000}.{info.server_version % 10000}",
            sections={name: content.index for name, content in self._sections.items()},
            redacted=self._redactor.listed(),
            findings=sorted(self._findings, key=lambda each: (each.section, each.item, each.problem)),
        )
        script = hashlib.sha256(restore_sql(index).encode()).hexdigest()
        return Archive(index.model_copy(update={"restore_sql_sha256": script}), self._sections)

    def _sweep(self, name: str, item: FileItem) -> FileItem:
        clean = self._redactor.sweep(item.content.decode()).encode()
        if clean != item.content:
            self._redactor.note(name, item.path, "a value that is secret elsewhere")
        return replace(item, content=clean)

    def _report_known(self, name: str, item: FileItem) -> FileItem:
        # The platform's files are kept to the byte or not at all: a hook script without its value would not run.
        if self._redactor.knows_secret_in(item.content.decode("utf-8", "replace")):
            problem = "the file holds a value that is a secret elsewhere; it is in the archive as it is"
            hint = "Let it read the value from the environment or a secret store."
            self._findings.append(Finding(section=name, item=item.path, problem=problem, hint=hint))
        return item

    def _add_files(self, name: str, content: FilesSection, findings: Sequence[Finding]) -> None:
        self._sections[name] = content
        self._findings += findings


def folder_reader(
    name: str, section: FolderSection, settings: ConfigurationSettings, redactor: Redactor
) -> FolderReader:
    """The reader of one folder section, within the limits of the settings."""
    return FolderReader(name, section, redactor, settings.max_file_bytes, settings.max_total_bytes, settings.max_items)


def _plain_section(name: str, values: Sequence[Mapping[str, object]]) -> RowsSection:
    rows = [_plain_row(value) for value in values]
    columns = dict.fromkeys(sorted({column for row in rows for column in row}), "jsonb")
    for key in _NATURAL_KEYS:
        texts = [row.get(key, "null") for row in rows]
        if "null" not in texts and len(set(texts)) == len(rows):
            return RowsSection("lifeboat", name, columns, (key,), in_key_order(name, rows, (key,)))
    numbered = [{"position": str(at), **row} for at, row in enumerate(rows, 1)]
    return RowsSection("lifeboat", name, {"position": "integer", **columns}, ("position",), tuple(numbered))


def _plain_row(values: Mapping[str, object]) -> Row:
    try:
        found = {name: render(parse(render_plain(value))) for name, value in values.items()}
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"a value of an extra section cannot be written as JSON: {error}") from error
    return found
