"""What a restore takes back beside tables and definitions: sequences, roles, settings, comments, slots and more.

Left out, since a restore takes nothing back that anybody would miss: planner and cumulative statistics, temporary
tables, definitions inside extensions (their versions are compared), Lifeboat's own schema. Of the server's settings
those of ALTER SYSTEM are compared, as the backup has them; postgresql.conf and pg_hba.conf, which often lie elsewhere,
are `lifeboat config diff`'s to compare.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.operations.preview.fact_queries import QUERIES, FactQuery
from lifeboat.verification.schema_objects import included_schemas

# Ours, and no other: rescued tables are somebody's.
OWN_SCHEMAS = ("lifeboat",)
Facts = Mapping[str, str]

# A sequence without WAL cannot be read during recovery, and is back at its start behind it.
_SEQUENCES = FactQuery(
    "sequences",
    """
SELECT n.nspname, c.relname, CASE WHEN c.relpersistence = 'u' AND pg_is_in_recovery() THEN s.seqstart END
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND n.nspname = ANY (%(schemas)s)
""",
)
_SERVER_SETTINGS = FactQuery(
    "server settings",
    r"""
SELECT DISTINCT ON (lower(name)) 'server setting ' || lower(name), setting FROM pg_file_settings
WHERE sourcefile LIKE '%%/postgresql.auto.conf' AND setting IS NOT NULL ORDER BY lower(name), seqno DESC
""",
)
# Connections and whatever applications keep in settings of their own.
_SECRET = re.compile(r"(server )?setting (primary_conninfo|ssl_passphrase_command|\S+\.\S+)")
# During recovery nothing tells which transactions are prepared, nor a snapshot's list which are open: its bounds do.
_OPEN_AT_THE_TARGET = """
SELECT pg_is_in_recovery() AND current_setting('max_prepared_transactions')::int > 0
    AND pg_snapshot_xmin(s) < pg_snapshot_xmax(s) FROM pg_current_snapshot() s
"""


@dataclass(frozen=True)
class FactPreview:
    """One thing, `kind name`: what a restore makes it, and what it is now; None where it is not there.

    Secrets are not shown: `then` and `now` only say that they differ.
    """

    name: str
    then: str | None
    now: str | None


def compare_facts(then: psycopg.Connection[Any], now: psycopg.Connection[Any]) -> tuple[list[FactPreview], list[str]]:
    """What differs, by kind and name, and what could not be compared; both sessions are in a transaction.

    Raises psycopg.Error.
    """
    found: list[FactPreview] = []
    not_compared: list[str] = []
    schemas = tuple(included_schemas(side, OWN_SCHEMAS) for side in (then, now))
    for each in (*QUERIES, _SEQUENCES):
        read = _sequences if each is _SEQUENCES else _facts
        try:
            with then.transaction(), now.transaction():
                old, new = read(then, each.query, schemas[0]), read(now, each.query, schemas[1])
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable) as error:
            not_compared.append(f"{each.title}: {error.diag.message_primary}")
            continue
        found += _differences(each, old, new)
    row = then.execute(_OPEN_AT_THE_TARGET).fetchone()
    if row is not None and row[0]:
        not_compared.append(
            "prepared transactions: some were open at the target, and recovery hides which are prepared"
        )
    return found, not_compared


def compare_server_settings(
    then: Mapping[str, str], now: psycopg.Connection[Any]
) -> tuple[list[FactPreview], list[str]]:
    """The settings of ALTER SYSTEM: the backup's own, and the live ones; raises psycopg.Error."""
    try:
        with now.transaction():
            new = _facts(now, _SERVER_SETTINGS.query, [])
    except psycopg.errors.InsufficientPrivilege as error:
        return [], [f"{_SERVER_SETTINGS.title}: {error.diag.message_primary}"]
    old = {f"server setting {name}": value for name, value in then.items()}
    return list(_differences(_SERVER_SETTINGS, old, new)), []


def _facts(session: psycopg.Connection[Any], query: str, schemas: list[str]) -> Facts:
    found: dict[str, list[str]] = {}
    for name, value in session.execute(query.encode(), {"schemas": schemas}):
        found.setdefault(str(name), []).append(str(value or ""))
    # Names with dots in them may coincide.
    return {name: "; ".join(sorted(values)) for name, values in found.items()}


def _sequences(session: psycopg.Connection[Any], query: str, schemas: list[str]) -> Facts:
    found = {}
    for schema, name, start in session.execute(query.encode(), {"schemas": schemas}).fetchall():
        value, is_called = start, False
        if start is None:
            read = sql.SQL("SELECT last_value, is_called FROM {}").format(sql.Identifier(schema, name))
            value, is_called = session.execute(read).fetchone() or (None, False)
        found[f"sequence {schema}.{name}"] = f"{value}" if is_called else f"{value}, not yet given out"
    return found


def _differences(kind: FactQuery, old: Facts, new: Facts) -> Iterator[FactPreview]:
    for name in sorted(old.keys() & new.keys() if kind.changed_only else old.keys() | new.keys()):
        was, is_now = old.get(name), new.get(name)
        if was == is_now:
            continue
        if kind.hidden or _SECRET.match(name):
            was, is_now = was and "as it was", is_now and "another"
        yield FactPreview(name, was, is_now)
