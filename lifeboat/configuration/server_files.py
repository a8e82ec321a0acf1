"""Collects the server's own configuration files, asked for over the connection: they may lie on another machine."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from lifeboat.configuration.content import FileItem, FilesSection
from lifeboat.configuration.index import Finding
from lifeboat.configuration.redacted_files import NotRedactable, redact_settings_file
from lifeboat.configuration.redaction import Redactor

SERVER, LIFEBOAT = "server", "lifeboat"
_PGBACKREST = ("/etc/pgbackrest/pgbackrest.conf", "/etc/pgbackrest.conf")
_PGBACKREST_INCLUDES = "/etc/pgbackrest/conf.d"
# One mode for all: the server does not tell theirs, and the settings in them concern nobody else.
_MODE = 0o600
_MAX_BYTES = 4 * 1024**2

# pg_settings leaves out what a role must not see; the views of files raise an error instead, hence the second query.
_NAMED = """
SELECT setting FROM pg_catalog.pg_settings WHERE name IN ('config_file', 'hba_file', 'ident_file') AND setting <> ''
"""
_VIEWS = (
    ("pg_show_all_file_settings()", "SELECT DISTINCT sourcefile FROM pg_catalog.pg_file_settings"),
    ("pg_hba_file_rules()", "SELECT DISTINCT file_name FROM pg_catalog.pg_hba_file_rules"),
    ("pg_ident_file_mappings()", "SELECT DISTINCT file_name FROM pg_catalog.pg_ident_file_mappings"),
)
_FILE_NAME_SINCE = 160000
_ARCHIVE_COMMAND = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'archive_command'"


def read_server_files(
    connection: psycopg.Connection[Any], redactor: Redactor, wanted: Sequence[Path] | None
) -> tuple[FilesSection, list[Finding]]:
    """The server's files without secrets, inside a transaction; `wanted` None finds out which there are."""
    files: list[FileItem] = []
    findings: list[Finding] = []
    paths = _find(connection) if wanted is None else {str(path): True for path in wanted}
    for path, is_expected in sorted(paths.items()):
        content = _read(connection, path)
        if content is None:
            if is_expected:
                findings.append(_unread(path))
            continue
        add_redacted(files, findings, redactor, SERVER, path.lstrip("/"), content)
    if not paths or (wanted is None and not any(paths.values())):
        findings.append(_unread("postgresql.conf"))
    return FilesSection("server", SERVER, "/", tuple(files)), findings


def read_own_settings(redactor: Redactor, path: Path) -> tuple[FilesSection, list[Finding]]:
    """lifeboat.toml without secrets."""
    files: list[FileItem] = []
    findings: list[Finding] = []
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; it is left out"
        findings.append(
            Finding(section=LIFEBOAT, item=path.name, problem=problem, hint="Correct its path or its rights.")
        )
    else:
        add_redacted(files, findings, redactor, LIFEBOAT, path.name, content)
    return FilesSection("server", LIFEBOAT, str(path.parent), tuple(files)), findings


def add_redacted(  # noqa: PLR0913 - two lists to add to, and where the file belongs
    files: list[FileItem], findings: list[Finding], redactor: Redactor, section: str, path: str, content: bytes
) -> None:
    """Add one settings file without its secrets, or the reason why it cannot be taken."""
    try:
        clean = redact_settings_file(redactor, section, path, content)
    except NotRedactable as error:
        hint = "Move its secrets to the environment, a passfile or files of their own; keep a copy of it elsewhere."
        findings.append(Finding(section=section, item=path, problem=f"{error}; the file is left out", hint=hint))
    else:
        files.append(FileItem(path, "file", _MODE, clean))


def _unread(path: str) -> Finding:
    return Finding(
        section=SERVER,
        item=path,
        problem="the role of the connection may not find or read it; it is left out",
        hint="GRANT pg_read_all_settings, pg_read_server_files and EXECUTE on pg_read_binary_file(text, bigint, bigint,"
        " boolean) and pg_show_all_file_settings() to the role, or run where the server's files are readable.",
    )


def _find(connection: psycopg.Connection[Any]) -> dict[str, bool]:
    """Paths, and whether the file is known to exist."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        found = {str(path): True for (path,) in cursor.execute(_NAMED).fetchall()}
    views = _VIEWS if connection.info.server_version >= _FILE_NAME_SINCE else _VIEWS[:1]
    for function, query in views:
        if _may_call(connection, function):
            with connection.cursor(row_factory=tuple_row) as cursor:
                found |= {str(path): True for (path,) in cursor.execute(query).fetchall() if path}
    found |= dict.fromkeys(_PGBACKREST, False)
    found |= dict.fromkeys(_pgbackrest_includes(connection), False)
    found |= dict.fromkeys(_named_in_archive_command(connection), True)
    return found


def _named_in_archive_command(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """The configuration that the server's archive_command has pgBackRest read, such as the one that we write."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_ARCHIVE_COMMAND).fetchone()
    try:
        words = shlex.split(str(row[0]).replace("%%", "%") if row else "")
    except ValueError:
        return
    if any(Path(word).name == "pgbackrest" for word in words):
        paths = (word.removeprefix("--config=") for word in words if word.startswith("--config="))
        yield from (path for path in paths if path.startswith("/"))


def _may_call(connection: psycopg.Connection[Any], function: str) -> bool:
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(
            "SELECT pg_catalog.has_function_privilege(%s, 'execute')", [f"pg_catalog.{function}"]
        ).fetchone()
    return row is not None and bool(row[0])


def _pgbackrest_includes(connection: psycopg.Connection[Any]) -> Iterator[str]:
    query = "SELECT name FROM pg_catalog.pg_ls_dir(%s, true, false) AS name WHERE name LIKE '%%.conf'"
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            names = cursor.execute(query, [_PGBACKREST_INCLUDES]).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        names = []
    yield from (f"{_PGBACKREST_INCLUDES}/{name}" for (name,) in names)


def _read(connection: psycopg.Connection[Any], path: str) -> bytes | None:
    try:
        with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
            row = cursor.execute(
                "SELECT pg_catalog.pg_read_binary_file(%s, 0, %s, true)", [path, _MAX_BYTES]
            ).fetchone()
            return None if row is None or row[0] is None else bytes(row[0])
    except psycopg.Error:
        return _read_here(connection, path)


def _read_here(connection: psycopg.Connection[Any], path: str) -> bytes | None:
    # The same path on another machine would be another file.
    if not connection.info.host.startswith("/") and connection.info.hostaddr not in {"127.0.0.1", "::1"}:
        return None
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError:
        return None
