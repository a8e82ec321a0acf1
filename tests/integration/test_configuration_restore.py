"""The archive comes back with tar and psql alone, by the commands of the manifest; the roles by their statements."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql

from lifeboat.configuration.archive import write_archive
from lifeboat.configuration.content import Archive
from lifeboat.configuration.restore_steps import restore_steps
from lifeboat.configuration.roles import read_roles, role_statements
from lifeboat.configuration.rows import Bounds, snapshot
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import ConnectionInfo, connect
from tests.support.configuration import EVERY_TYPE, SECRETS, export, make_platform, platform_settings, table_text

EXACT = ("scene_types", "workflows", "roles")
LABEL = "20261122-190000C"


@pytest.fixture
def session(each_database: str) -> Iterator[Connection[Any]]:
    with connect(each_database, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        yield connection


def restore(archive: Archive, tools: PgTools, dsn: str, tmp_path: Path, **folders: Path) -> Path:
    """Follow the steps in a shell of its own; returns the folder where the archive was unpacked."""
    repository, target = tmp_path / "repository", tmp_path / "target"
    (repository / LABEL).mkdir(parents=True, exist_ok=True)
    write_archive(archive, repository / LABEL)
    environment = {
        "PATH": f"{tools.bin_dir}:/usr/bin:/bin",
        "REPOSITORY": str(repository),
        "TARGET": str(target),
        "DATABASE": ConnectionInfo.parse(dsn).dsn,
        **{name: str(folder) for name, folder in folders.items()},
    }
    for step in restore_steps(LABEL, archive.index):
        for command in step.commands:
            done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{step.title}: {command}: {done.stderr}"
    return target


def test_rows_and_files_come_back(
    session: Connection[Any], each_database: str, each_pg_tools: PgTools, tmp_path: Path
) -> None:
    hooks = tmp_path / "hooks"
    settings = platform_settings(hooks)
    make_platform(session, hooks)
    before = {table: table_text(session, table) for table in EXACT}
    archive = export(session, settings)
    session.execute("UPDATE workflows SET graph = '{}', raw = '[]', price = 3, tags = '{z}', at = now(), icon = 'x'")
    session.execute("DELETE FROM roles WHERE name <> 'admin'; UPDATE scene_types SET name = name || '?', mood = NULL")
    session.execute("UPDATE notification_preferences SET pin = 8, settings = jsonb_set(settings, '{max_tokens}', '9')")
    target = restore(archive, each_pg_tools, each_database, tmp_path, HOOK_SCRIPTS_DIR=tmp_path / "hooks again")
    assert {table: table_text(session, table) for table in EXACT} == before
    # What was redacted stays as it is: here the whole value that holds it.
    found = session.execute(
        "SELECT settings->'smtp'->>'password', url, pin FROM notification_preferences ORDER BY channel"
    )
    assert found.fetchall() == [(SECRETS[0], f"smtp://me:{SECRETS[1]}@mx.example", 8), (None, None, 8)]
    assert (tmp_path / "hooks again" / "on_approve" / "notify.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "hooks again" / "on_approve" / "latest").readlink() == Path("notify.sh")
    assert (tmp_path / "hooks again" / "on_approve").stat().st_mode & 0o777 == 0o750
    assert (target / "files" / "server").is_dir()


def test_rows_come_back_into_an_empty_database(
    session: Connection[Any], each_database: str, each_pg_tools: PgTools, tmp_path: Path
) -> None:
    hooks = tmp_path / "hooks"
    settings = make_platform(session, hooks)
    before = {table: table_text(session, table) for table in EXACT}
    archive = export(session, settings)
    session.execute("TRUNCATE scene_types, workflows, notification_preferences, roles RESTART IDENTITY CASCADE")
    restore(archive, each_pg_tools, each_database, tmp_path)
    assert {table: table_text(session, table) for table in EXACT} == before
    found = session.execute(
        "SELECT settings->'smtp'->>'password', url, pin FROM notification_preferences ORDER BY channel"
    )
    assert found.fetchall() == [("***REDACTED***", "smtp://me:***REDACTED***@mx.example", None), (None, None, None)]
    # The next numbers are free ones.
    row = session.execute("INSERT INTO scene_types (name) VALUES ('next') RETURNING id").fetchone()
    assert row == (4,)
    row = session.execute(
        "INSERT INTO workflows (scene_type_id, name, graph) VALUES (1, 'next', '{}') RETURNING id"
    ).fetchone()
    assert row == (3,)


def test_a_sequence_is_never_set_back(
    session: Connection[Any], each_database: str, each_pg_tools: PgTools, tmp_path: Path
) -> None:
    settings = make_platform(session, tmp_path / "hooks")
    archive = export(session, settings)
    session.execute("SELECT setval('workflows_id_seq', 40)")
    restore(archive, each_pg_tools, each_database, tmp_path)
    assert session.execute("SELECT nextval('workflows_id_seq')").fetchone() == (41,)


def test_every_type_comes_back_with_psql_alone(
    session: Connection[Any], each_database: str, each_pg_tools: PgTools, tmp_path: Path
) -> None:
    session.execute(EVERY_TYPE.read_bytes())
    section = {"sql": "SELECT * FROM other.everything", "key_columns": ["id"], "table": "other.everything"}
    settings = platform_settings(tmp_path).model_validate(
        {"sections": {"everything": section}, "server_files": [], "roles": False}
    )
    before = table_text(session, "other.everything")
    archive = export(session, settings)
    database = sql.Identifier(session.info.dbname)
    session.execute(sql.SQL("ALTER DATABASE {} SET IntervalStyle = 'sql_standard'").format(database))
    for change in ("DELETE FROM other.everything", "UPDATE other.everything SET docb = '1', texts = NULL, price = 0"):
        session.execute(change)
        restore(archive, each_pg_tools, each_database, tmp_path)
        assert table_text(session, "other.everything") == before


def test_the_archive_alone_is_enough_with_populate_recordset(
    session: Connection[Any], each_database: str, each_pg_tools: PgTools, tmp_path: Path
) -> None:
    """Without our script: one psql statement over a section's file."""
    make_platform(session, tmp_path / "hooks")
    archive = export(session, platform_settings(tmp_path / "hooks", server_files=[], roles=False))
    before = table_text(session, "roles")
    session.execute("TRUNCATE scene_types CASCADE")
    target = restore(archive, each_pg_tools, each_database, tmp_path)
    session.execute("TRUNCATE roles")
    script = (
        "\\set rows `cat sections/roles.json`\n"
        "INSERT INTO roles SELECT * FROM json_populate_recordset(NULL::roles, :'rows'::json);\n"
    )
    subprocess.run(
        [each_pg_tools.path("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", each_database],
        input=script,
        text=True,
        cwd=target,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert table_text(session, "roles") == before


def test_without_a_database_nothing_is_guessed(
    session: Connection[Any], each_pg_tools: PgTools, tmp_path: Path
) -> None:
    settings = make_platform(session, tmp_path / "hooks")
    archive = export(session, settings)
    with pytest.raises(AssertionError, match="DATABASE: set it to the connection string"):
        restore_without_database(archive, each_pg_tools, tmp_path)


def restore_without_database(archive: Archive, tools: PgTools, tmp_path: Path) -> None:
    steps = restore_steps(LABEL, archive.index)
    environment = {"PATH": f"{tools.bin_dir}:/usr/bin:/bin", "REPOSITORY": "/nowhere", "TARGET": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", steps[1].commands[0]], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_roles_come_back_by_their_statements(session: Connection[Any]) -> None:
    base = session.info.dbname
    names = [sql.Identifier(f"{base}_{name}") for name in ('o"wner', "editor", "viewer")]
    _, editor, viewer = names
    session.execute(
        sql.SQL(
            "CREATE ROLE {0} SUPERUSER CREATEDB; CREATE ROLE {1} LOGIN PASSWORD 'x' CONNECTION LIMIT 7"
            " VALID UNTIL '2030-01-01 00:00+00'; CREATE ROLE {2} NOLOGIN NOINHERIT;"
            " GRANT {0} TO {1} WITH ADMIN OPTION; GRANT {1} TO {2}; GRANT pg_monitor TO {2};"
            " ALTER ROLE {1} SET search_path = \"$user\", public; ALTER ROLE {1} SET app.greeting = 'it''s';"
            " ALTER ROLE {1} IN DATABASE {3} SET work_mem = '8MB'; COMMENT ON ROLE {2} IS 'looks on'"
        ).format(*names, sql.Identifier(base))
    )
    drop = sql.SQL("DROP ROLE {}").format(sql.SQL(", ").join(names))

    def roles() -> Any:  # noqa: ANN401
        with snapshot(session, search_path=["public"], statement_timeout_seconds=60):
            return read_roles(session, Bounds(1000, 10**6))

    try:
        archived = roles()
        assert role_statements(archived, archived) == []
        session.execute(drop)
        statements = role_statements(archived, roles())
        assert sum(line.startswith("-- set the password") for line in statements) == 1
        for line in statements:
            session.execute(line)
        assert roles().rows == archived.rows
        session.execute(
            sql.SQL("ALTER ROLE {} NOLOGIN CONNECTION LIMIT 2; REVOKE pg_monitor FROM {}").format(editor, viewer)
        )
        for line in (changes := role_statements(archived, roles())):
            session.execute(line)
        assert [line.split()[0] for line in changes] == ["ALTER", "GRANT"]
        assert roles().rows == archived.rows
    finally:
        session.execute(drop)
