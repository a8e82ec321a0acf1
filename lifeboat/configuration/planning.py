"""Plans applying an archive to the live platform, under one snapshot and without changing anything."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from lifeboat.configuration.content import Archive, FilesSection, RowsSection
from lifeboat.configuration.diff import diff_files
from lifeboat.configuration.export import bounds_of
from lifeboat.configuration.index import ConfigurationError, Finding
from lifeboat.configuration.plan import ApplyPlan, ByHand, FilesPlan, RowsPlan
from lifeboat.configuration.plan_files import FilesPlanner
from lifeboat.configuration.plan_rows import RowsPlanner
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.roles import ROLES, read_roles, role_statements
from lifeboat.configuration.rows import snapshot
from lifeboat.configuration.server_files import SERVER, read_server_files
from lifeboat.configuration.tables import describe_table
from lifeboat.settings.configuration import ConfigurationSettings, FolderSection, QuerySection


def plan_apply(  # noqa: PLR0913 - the choices of an administrator
    archive: Archive,
    connection: psycopg.Connection[Any],
    settings: ConfigurationSettings,
    *,
    folders: Mapping[str, Path] | None = None,
    prune: bool = False,
    only: Collection[str] | None = None,
) -> ApplyPlan:
    """What applying the archive would change; nothing is changed.

    Queries, tables and folders come from the settings, never from the archive; `folders` names other folders, `only`
    the sections to apply, and `prune` also removes what the archive has not. Raises ConfigurationError.
    """
    timeout_seconds = settings.statement_timeout_seconds
    with snapshot(connection, search_path=settings.search_path, statement_timeout_seconds=timeout_seconds):
        return plan_inside(archive, connection, settings, folders=folders or {}, prune=prune, only=only)


def plan_inside(  # noqa: PLR0913
    archive: Archive,
    connection: psycopg.Connection[Any],
    settings: ConfigurationSettings,
    *,
    folders: Mapping[str, Path],
    prune: bool,
    only: Collection[str] | None,
) -> ApplyPlan:
    """As `plan_apply`, inside a transaction whose settings are fixed already."""
    unknown = sorted(set(only or ()) - set(archive.sections))
    if unknown:
        raise ConfigurationError(
            f"the archive has no section {unknown[0]}", hint=f"It has {', '.join(archive.sections)}."
        )
    planner = _Planner(archive, connection, settings, folders, prune, only)
    rows, files = planner.plan_rows(), planner.plan_files()
    return ApplyPlan(
        archive=archive,
        settings=settings,
        folders=folders,
        only=only,
        prune=prune,
        rows=rows,
        files=files,
        by_hand=tuple(planner.by_hand()),
        notes=tuple(planner.notes),
        live_sha256=planner.digest.hexdigest(),
    )


class _Planner:
    def __init__(  # noqa: PLR0913
        self,
        archive: Archive,
        connection: psycopg.Connection[Any],
        settings: ConfigurationSettings,
        folders: Mapping[str, Path],
        prune: bool,
        only: Collection[str] | None,
    ) -> None:
        self._archive, self._connection, self._settings = archive, connection, settings
        self._folders, self._prune = folders, prune
        self._names = [name for name in archive.sections if only is None or name in only]
        self.digest = hashlib.sha256()
        self.notes: list[Finding] = []

    def plan_rows(self) -> tuple[RowsPlan, ...]:
        # The settings' order, parents first: an archive may have been written with another.
        chosen = [
            (name, section, archived)
            for name, section in self._settings.sections.items()
            if name in self._names
            and isinstance(section, QuerySection)
            and section.table is not None
            and (archived := self._archive.rows(name)) is not None
        ]
        tables = {describe_table(self._connection, str(section.table)).qualified_name for _, section, _ in chosen}
        plans = []
        for name, section, archived in chosen:
            planner = RowsPlanner(self._connection, self._settings, name, archived, section)
            plans.append(planner.plan(prune=self._prune, pruned_tables=tables if self._prune else ()))
            self.digest.update(planner.live_digest.encode())
            self.notes += planner.notes
        return tuple(plans)

    def plan_files(self) -> tuple[FilesPlan, ...]:
        plans = []
        for name, section in self._settings.sections.items():
            archived = self._archive.files(name)
            if name not in self._names or not isinstance(section, FolderSection) or archived is None:
                continue
            left_out = {finding.item for finding in self._archive.index.findings if finding.section == name}
            planner = FilesPlanner(name, archived, self._folders.get(name, section.path), left_out)
            plans.append(planner.plan(self._settings, section, prune=self._prune))
            self.digest.update(planner.live_digest.encode())
            self.notes += planner.notes
        return tuple(plans)

    def by_hand(self) -> Iterator[ByHand]:
        for name in self._names:
            content = self._archive.sections[name]
            section = self._settings.sections.get(name)
            if isinstance(content, FilesSection) and content.source == "server":
                yield from self._server_by_hand(name, content)
            elif isinstance(content, RowsSection) and content.source == "roles":
                lines = role_statements(content, read_roles(self._connection, bounds_of(self._settings)))
                if lines:
                    yield ByHand(f"{ROLES}: run these statements as a superuser, after reading them", tuple(lines))
            elif isinstance(content, RowsSection) and content.source == "lifeboat":
                if content.rows:
                    yield ByHand(f"{name}: {_count(len(content.rows), 'item')} of Lifeboat's own, not written back", ())
            elif section is None or (isinstance(section, QuerySection) and section.table is None):
                where = "is not in the settings" if section is None else "has no `table` in the settings"
                yield ByHand(f"{name}: {_count(content.index.item_count, 'item')}; the section {where}", ())

    def _server_by_hand(self, name: str, archived: FilesSection) -> Iterator[ByHand]:
        if name != SERVER:
            yield ByHand(f"{name}: compare with the file in {archived.path}", tuple(f.path for f in archived.files))
            return
        redactor = Redactor(self._settings.redact, self._settings.keep)
        paths = [Path("/", item.path) for item in archived.files]
        live, _ = read_server_files(self._connection, redactor, paths)
        found = diff_files(name, live, archived)
        for path in found.added:
            yield ByHand(f"/{path}: the server has no such file, or does not let it be read", ())
        for change in found.changed_files:
            yield ByHand(f"/{change.path}: edit it and reload the server", tuple((change.text_diff or "").splitlines()))


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
