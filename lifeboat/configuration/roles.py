"""PostgreSQL's roles and memberships, without passwords, and the statements that make them again by hand."""

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.configuration.content import RowsSection
from lifeboat.configuration.index import REDACTED
from lifeboat.configuration.jsontext import Json, Row, parse
from lifeboat.configuration.rows import Bounds, read_rows

ROLES = "postgres_roles"
# pg_auth_members has inherit_option and set_option since PostgreSQL 16; to_jsonb shows what is there.
_QUERY = """
SELECT r.rolname::text AS name, r.rolsuper AS superuser, r.rolinherit AS inherit, r.rolcreaterole AS createrole,
       r.rolcreatedb AS createdb, r.rolcanlogin AS login, r.rolreplication AS replication, r.rolbypassrls AS bypassrls,
       r.rolconnlimit AS connection_limit, r.rolvaliduntil AS valid_until,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                   'database', d.datname, 'settings', s.setconfig) ORDER BY d.datname NULLS FIRST)
          FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
         WHERE s.setrole = r.oid) AS settings,
       (SELECT pg_catalog.jsonb_agg(DISTINCT (pg_catalog.to_jsonb(m) - 'oid' - 'roleid' - 'member' - 'grantor')
                   || pg_catalog.jsonb_build_object('role', g.rolname))
          FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
         WHERE m.member = r.oid) AS member_of
FROM pg_catalog.pg_roles r
WHERE r.rolname !~ '^pg_'
"""
_FLAGS = ("superuser", "inherit", "createrole", "createdb", "login", "replication", "bypassrls")
# GUC_LIST_QUOTE in PostgreSQL's sources: their text is a list of its own, which a literal would turn into one name.
_LISTS = frozenset(
    {
        "search_path",
        "temp_tablespaces",
        "local_preload_libraries",
        "session_preload_libraries",
        "shared_preload_libraries",
    }
)


def read_roles(connection: psycopg.Connection[Any], bounds: Bounds) -> RowsSection:
    """All roles but PostgreSQL's own, inside `snapshot`."""
    query = sql.SQL(_QUERY)
    return read_rows(connection, ROLES, query, key_columns=("name",), kind=ROLES, bounds=bounds, source="roles")


def role_statements(archived: RowsSection, live: RowsSection | None) -> list[str]:
    """The SQL that brings the live roles to the archived ones, to be read and run by an administrator.

    Roles that only the live server has are left alone. A comment says where a password is due.
    """
    there = live.by_key() if live is not None else {}
    wanted = [(row, there.get(key)) for key, row in archived.by_key().items()]
    statements = [line for row, now in wanted for line in _attributes(row, now)]
    return statements + [line for row, now in wanted for line in _memberships(row, now)]


def _attributes(row: Row, now: Row | None) -> Iterator[str]:
    role, was = _decode(row), _decode(now) if now is not None else {}
    name = _identifier(str(role["name"]))
    if any(role.get(each) != was.get(each) for each in (*_FLAGS, "connection_limit", "valid_until")):
        words = [each.upper() if role[each] else f"NO{each.upper()}" for each in _FLAGS]
        words.append(f"CONNECTION LIMIT {role['connection_limit']}")
        if role.get("valid_until") or was.get("valid_until"):
            words.append(f"VALID UNTIL {_literal(str(role.get('valid_until') or 'infinity'))}")
        yield f"{'ALTER' if was else 'CREATE'} ROLE {name} WITH {' '.join(words)};"
        if not was and role["login"]:
            yield f"-- set the password of {name} if it has one: \\password {name}"
    if role.get("comment") != was.get("comment"):
        comment = role.get("comment")
        yield f"COMMENT ON ROLE {name} IS {_literal(str(comment)) if comment is not None else 'NULL'};"
    before = set(_settings(was))
    for database, setting in _settings(role):
        if (database, setting) not in before:
            yield _set_statement(name, database, setting)


def _settings(role: Mapping[str, Json]) -> Iterator[tuple[str | None, str]]:
    groups = role.get("settings")
    for group in groups if isinstance(groups, list) else []:
        settings = group.get("settings") if isinstance(group, dict) else None
        database = group.get("database") if isinstance(group, dict) else None
        for setting in settings if isinstance(settings, list) else []:
            yield str(database) if database is not None else None, str(setting)


def _set_statement(name: str, database: str | None, setting: str) -> str:
    key, _, value = setting.partition("=")
    where = f" IN DATABASE {_identifier(database)}" if database is not None else ""
    shown = value if key in _LISTS else _literal(value)
    parts = ".".join(_identifier(part) for part in key.split("."))
    statement = f"ALTER ROLE {name}{where} SET {parts} TO {shown or _literal('')};"
    return f"-- fill in the value: {statement}" if REDACTED in value else statement


def _memberships(row: Row, now: Row | None) -> Iterator[str]:
    role, was = _decode(row), _decode(now) if now is not None else {}
    before = was.get("member_of")
    groups = role.get("member_of")
    for group in groups if isinstance(groups, list) else []:
        if not isinstance(group, dict) or (isinstance(before, list) and group in before):
            continue
        options = [
            f"{word} {'TRUE' if group[key] else 'FALSE'}"
            for key, word in (("admin_option", "ADMIN"), ("inherit_option", "INHERIT"), ("set_option", "SET"))
            if key in group
        ]
        granted = f"GRANT {_identifier(str(group['role']))} TO {_identifier(str(role['name']))}"
        # Before PostgreSQL 16 there is one option, and no way to write it with a value.
        if len(options) == 1:
            yield granted + (" WITH ADMIN OPTION;" if group.get("admin_option") else ";")
        else:
            yield f"{granted} WITH {', '.join(options)};"


def _decode(row: Row) -> dict[str, Json]:
    return {name: parse(text) for name, text in row.items()}


def _identifier(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)
