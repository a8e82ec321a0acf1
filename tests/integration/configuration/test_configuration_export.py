"""Exports from real servers: no value changes, no secret leaves, one moment, and a part never looks like the whole."""

import gzip
import tarfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection, sql
from psycopg.types.json import Json, Jsonb

from lifeboat.configuration.archive import encode_archive, write_archive
from lifeboat.configuration.index import REDACTED, ConfigurationError
from lifeboat.configuration.reading import read_archive
from lifeboat.configuration.restore_sql import source_columns
from lifeboat.configuration.rows import Bounds, fix_session, read_rows, snapshot
from lifeboat.configuration.tables import describe_table, target_of
from lifeboat.postgres.connections import connect
from tests.support.configuration import EVERY_TYPE, SECRETS, export, make_platform, platform_settings


def round_trip(session: Connection[Any], schema: str, table: str) -> None:
    """Read a table to JSON, write it into a copy as restore.sql does, and compare every value."""
    source = sql.Identifier(schema, table)
    copy = sql.Identifier(schema, f"{table}_copy")
    session.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(copy))
    session.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(copy, source))
    with snapshot(session, search_path=["public"], statement_timeout_seconds=60):
        section = read_rows(
            session, "all", sql.SQL("SELECT * FROM {}").format(source), key_columns=("id",), kind="all",
            bounds=Bounds(1000, 10**7),
        )  # fmt: skip
        target = target_of("all", describe_table(session, f"{schema}.{table}_copy"), list(section.columns), ("id",))
    # Other settings than those it was read with: what is in the archive must not depend on them.
    session.execute("SET TimeZone = 'Asia/Kolkata'; SET IntervalStyle = 'sql_standard'; SET DateStyle = 'SQL, DMY'")
    session.execute(
        sql.SQL(
            "INSERT INTO {} SELECT {} FROM json_array_elements({}::json) AS item(value),"
            " json_populate_record(NULL::{}, item.value) AS r"
        ).format(copy, source_columns(target, target.columns), sql.Literal(section.data.decode()), copy)
    )
    session.execute("RESET ALL")
    left, right = (
        session.execute(sql.SQL("SELECT t::text FROM {} t ORDER BY id").format(each)).fetchall()
        for each in (source, copy)
    )
    assert right == left
    nulls = sql.SQL("SELECT id, num_nulls(VARIADIC ARRAY[{}]) FROM {} ORDER BY id")
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(column)) for column in target.columns)
    found = [session.execute(nulls.format(columns, each)).fetchall() for each in (source, copy)]
    assert found[0] == found[1]


def test_every_type_survives(each_database: str) -> None:
    with connect(each_database, autocommit=True) as session:
        session.execute("SET search_path = public")
        session.execute(EVERY_TYPE.read_bytes())
        round_trip(session, "other", "everything")
        with snapshot(session, search_path=["public"], statement_timeout_seconds=60):
            query = sql.SQL("SELECT * FROM other.everything")
            found = read_rows(session, "all", query, key_columns=("id",), kind="all", bounds=Bounds(10, 10**7))
    assert found.columns["mood"] == "other.mood"
    assert found.columns["exact"] == "numeric(10,3)"
    assert found.columns["moods"] == "other.mood[]"
    first, second, third = found.rows
    assert first["instant"] == '"2026-11-22T17:00:00.123456+00:00"'
    assert first["price"] == '"12345678901234567890.000100"'
    assert first["blob"] == r'"\\x00ff5c"'
    assert first["doc"] == '{"b":1,  "b":2, "z": 1.10, "t": "\\ud83d\\ude00"}'
    assert first["texts"] == '["a",null,"NULL","b,c",""]'
    assert first["span"] == '"P-10M-3DT4H5M6.7S"'
    assert second["docb"] == "null"
    assert third == {"id": "3"}


pg_text = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | pg_text
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=4).map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(
        json_values,
        json_values,
        pg_text | st.none(),
        st.binary(max_size=20) | st.none(),
        st.decimals(allow_infinity=False, places=5, min_value=-(10**15), max_value=10**15) | st.none(),
        st.floats(),
        st.lists(pg_text | st.none(), max_size=4) | st.none(),
        st.datetimes(timezones=st.timezones() | st.none()).filter(lambda value: 1 < value.year < 9999) | st.none(),
    )
)
def test_any_value_survives(session: Connection[Any], values: tuple[Any, ...]) -> None:
    session.execute(
        "CREATE TABLE IF NOT EXISTS anything (id int PRIMARY KEY, docb jsonb, doc json, name text, blob bytea,"
        " price numeric, ratio float8, names text[], at timestamptz)"
    )
    session.execute("TRUNCATE anything")
    docb, doc, name, blob, price, ratio, names, at = values
    session.execute(
        "INSERT INTO anything VALUES (1, %s, %s, %s, %s, %s, %s, %s, %s)",
        [Jsonb(docb), Json(doc), name, blob,
         Decimal(price) if price is not None else None, ratio, names, at],
    )  # fmt: skip
    round_trip(session, "public", "anything")


def test_the_archive_has_everything_and_no_secret(session: Connection[Any], hooks: Path, tmp_path: Path) -> None:
    chosen = make_platform(session, hooks)
    role = f"planted_{session.info.dbname}"
    session.execute(
        sql.SQL(
            "CREATE ROLE {0} LOGIN PASSWORD 'Pl4nted-S3cret-4'; ALTER ROLE {0} SET app.jwt_secret = 'Pl4nted-S3cret-5'"
        ).format(sql.Identifier(role))
    )
    toml = tmp_path / "lifeboat.toml"
    toml.write_text('[platform]\ndsn = "postgresql://studio:Pl4nted-S3cret-6@db/studio"\ncluster = "main"\n')
    (hooks / "id_rsa").write_text("-----BEGIN RSA PRIVATE KEY-----\nUGw0bnRlZC1TM2NyZXQtNw\nPl4nted-S3cret-7\n")
    extra = {
        "backup_schedules": [
            {"id": 1, "type": "full", "note": "runs as Pl4nted-S3cret-6", "webhook_token": "Pl4nted-S3cret-8"}
        ],
        "lifeboat_settings": [{"signing_key": "Pl4nted-S3cret-9"}, {"anything": None}],
    }
    try:
        archive = export(session, chosen, lifeboat_toml=toml, extra=extra)
        again = export(session, chosen, lifeboat_toml=toml, extra=extra)
    finally:
        session.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    data = encode_archive(archive)
    assert encode_archive(again) == data
    plain = gzip.decompress(data)
    for secret in SECRETS:
        assert secret.encode() not in plain
        assert secret.encode().hex().encode() not in plain
    assert b"SCRAM-SHA-256$" not in plain
    assert {(each.section, each.item, each.field) for each in archive.index.redacted} >= {
        ("notification_preferences", "00000000-0000-0000-0000-000000000001/mail", "settings.smtp.password"),
        ("notification_preferences", "00000000-0000-0000-0000-000000000001/mail", "url"),
        ("notification_preferences", "00000000-0000-0000-0000-000000000001/mail", "pin"),
        ("notification_preferences", "00000000-0000-0000-0000-000000000001/slack", "settings.token"),
        ("postgres_roles", role, "settings[0].settings[0]"),
        ("lifeboat", "lifeboat.toml", "line 2"),
        ("backup_schedules", "1", "webhook_token"),
        ("backup_schedules", "1", "note"),
        ("lifeboat_settings", "1", "signing_key"),
    }
    assert [(each.item, each.problem) for each in archive.index.findings] == [
        ("id_rsa", "the file holds a private key; it is left out")
    ]
    written = write_archive(archive, tmp_path)
    assert read_archive(written.path) == archive
    with tarfile.open(written.path) as tar:
        names = tar.getnames()
        server = [name for name in names if name.startswith("files/server/")]
        assert {Path(name).name for name in server} >= {
            "postgresql.conf",
            "pg_hba.conf",
            "pg_ident.conf",
            "lifeboat.conf",
        }
        settings_file = tar.extractfile("files/lifeboat/lifeboat.toml")
        assert settings_file is not None
        assert settings_file.read().decode() == (
            f'[platform]\ndsn = "postgresql://studio:{REDACTED}@db/studio"\ncluster = "main"\n'
        )
        assert tar.getmember("files/hook_scripts/on_approve/notify.sh").mode == 0o755
        assert tar.getmember("files/hook_scripts/on_approve/latest").linkname == "notify.sh"
    workflows = archive.rows("workflows")
    assert workflows is not None
    assert workflows.rows[0]["graph"] == '{"nodes": [{"id": "a", "seed": 1.10}], "max_tokens": 4096}'


def test_all_rows_are_of_one_moment(session: Connection[Any], fresh_database: str, hooks: Path) -> None:
    settings_ = make_platform(session, hooks)
    # The first section waits; meanwhile somebody changes the last one.
    sections = {"slow": {"sql": "SELECT 1 AS id, pg_sleep(1)::text AS waited", "key_columns": ["id"]}}
    both = {**sections, "roles": settings_.sections["roles"].model_dump()}
    chosen = platform_settings(hooks, server_files=[], roles=False).model_validate(
        {"sections": both, "server_files": [], "roles": False}
    )
    with connect(fresh_database, autocommit=True) as other:
        timer = threading.Timer(0.4, lambda: other.execute("INSERT INTO public.roles VALUES ('late')"))
        timer.start()
        archive = export(session, chosen)
        timer.join()
        assert other.execute("SELECT count(*) FROM public.roles").fetchone() == (4,)
    roles = archive.rows("roles")
    assert roles is not None
    assert len(roles.rows) == 3


def query(text: str, key: str = "id", **more: str) -> dict[str, object]:
    return {"sql": text, "key_columns": [key], **more}


FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "a missing table": (query("SELECT * FROM nowhere"), 'section s: relation "nowhere" does not'),
    "a missing key": (query("SELECT 1 AS a"), "section s has no column id"),
    "a repeated key": (query("SELECT 1 AS id UNION ALL SELECT 1"), "two items with the key 1"),
    "no key": (query("SELECT NULL::int AS id"), "no value in its key column 'id'"),
    "a name twice": (query("SELECT 1 AS id, 2 AS id"), "two columns of one name"),
    "a change": (query("WITH x AS (DELETE FROM roles RETURNING name) TABLE x", "name"), "section s: "),
    "a sequence": (query("SELECT nextval('workflows_id_seq') AS id"), "in a read-only transaction"),
    "too long": (query("SELECT 1 AS id, pg_sleep(5)::text AS x"), "statement timeout"),
    "too much": (query("SELECT g AS id FROM generate_series(1, 1001) g"), "more than 1000 items"),
    "no such target": (query("SELECT 1 AS id", table="nowhere"), "no table nowhere to write"),
    "a view": (query("SELECT 1 AS id", table="pg_roles"), "no table pg_roles to write"),
    "another column": (query("SELECT 'a' AS name, 2 AS x", "name", table="roles"), "has the column x"),
    "a hidden part": (query("SELECT * FROM hidden"), "row-level security policy"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_never_looks_like_the_whole(session: Connection[Any], hooks: Path, fault: str) -> None:
    make_platform(session, hooks)
    section, why = FAULTS[fault]
    limits = {"max_items": 1000, "statement_timeout_seconds": 0.5, "server_files": [], "roles": False}
    chosen = platform_settings(hooks).model_validate({"sections": {"s": section}, **limits})
    if fault == "a hidden part":
        role = sql.Identifier(f"reader_{session.info.dbname}")
        session.execute(
            sql.SQL(
                "CREATE TABLE hidden (id int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; CREATE ROLE {0};"
                " GRANT ALL ON hidden TO {0}; SET ROLE {0}"
            ).format(role)
        )
    with pytest.raises(ConfigurationError, match=why):
        export(session, chosen)
    assert session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    if fault == "a hidden part":
        session.execute(sql.SQL("RESET ROLE; DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    assert session.execute("SELECT count(*) FROM public.roles").fetchone() == (3,)


def test_a_role_without_rights_gets_the_rest_and_is_told(session: Connection[Any], hooks: Path) -> None:
    chosen = make_platform(session, hooks)
    role = sql.Identifier(f"plain_{session.info.dbname}")
    session.execute(
        sql.SQL("CREATE ROLE {0}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {0}; SET ROLE {0}").format(role)
    )
    try:
        archive = export(session, chosen)
    finally:
        session.execute(sql.SQL("RESET ROLE; DROP OWNED BY {0}; DROP ROLE {0}").format(role))
    server = archive.files("server")
    assert server is not None
    # A pgBackRest that this machine happens to have is read as root, whatever the role may.
    assert [item.path for item in server.files if "pgbackrest" not in item.path] == []
    findings = [finding for finding in archive.index.findings if "pgbackrest" not in finding.item]
    assert [finding.section for finding in findings] == ["server"]
    assert archive.index.sections["workflows"].item_count == 2


def test_listed_server_files_and_none(session: Connection[Any], hooks: Path, tmp_path: Path) -> None:
    make_platform(session, hooks)
    row = session.execute("SHOW hba_file").fetchone()
    assert row is not None
    chosen = platform_settings(hooks, server_files=[row[0], "/nowhere/pgbackrest.conf"])
    archive = export(session, chosen)
    server = archive.files("server")
    assert server is not None
    assert ["/" + item.path for item in server.files] == [row[0]]
    assert [finding.item for finding in archive.index.findings] == ["/nowhere/pgbackrest.conf"]
    archive = export(session, platform_settings(hooks, server_files=[], roles=False))
    assert list(archive.sections) == ["scene_types", "workflows", "notification_preferences", "roles", "hook_scripts"]


def test_inside_a_transaction_nothing_is_exported(session: Connection[Any], hooks: Path) -> None:
    chosen = make_platform(session, hooks)
    session.autocommit = False
    session.execute("SELECT 1")
    with pytest.raises(ValueError, match="inside a transaction"):
        export(session, chosen)


def test_the_session_is_as_it_was(session: Connection[Any], hooks: Path) -> None:
    chosen = make_platform(session, hooks)
    session.execute("SET TimeZone = 'Asia/Kolkata'; SET search_path = pg_catalog; SET statement_timeout = '7s'")
    export(session, chosen)
    found = [session.execute(f"SHOW {name}").fetchone() for name in ("TimeZone", "search_path", "statement_timeout")]
    assert found == [("Asia/Kolkata",), ("pg_catalog",), ("7s",)]
    with session.transaction():
        fix_session(session, search_path=["public"], statement_timeout_seconds=1.5)
        assert session.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
