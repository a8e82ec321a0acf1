"""The heartbeat: one row in the source's database whose time is that of the last sign of life.

It makes commits on a quiet server, which restores can aim at, and says in a restored cluster how far recovery came.
The agent makes it where it is absent. That needs CREATE on the database, or on the schema `lifeboat` where that is
there (the catalog may be in it); or a superuser runs `setup_statements`, and the agent needs no more than their grants.
"""

from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import single_value

HEARTBEAT_TABLE = "lifeboat.heartbeat"

_CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS lifeboat.heartbeat"
    " (id smallint PRIMARY KEY CHECK (id = 1), at timestamptz NOT NULL, agent text)"
)
# Not by to_regclass, which fails without the right to use the schema.
_EXISTS = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'lifeboat' AND c.relname = 'heartbeat')
"""
_BEAT = """
INSERT INTO lifeboat.heartbeat (id, at, agent) VALUES (1, pg_catalog.clock_timestamp(), %s)
ON CONFLICT (id) DO UPDATE SET at = excluded.at, agent = excluded.agent
RETURNING at
"""
_MAY_BEAT = """
SELECT pg_catalog.has_schema_privilege('lifeboat', 'USAGE')
   AND pg_catalog.has_table_privilege('lifeboat.heartbeat', 'SELECT')
   AND pg_catalog.has_table_privilege('lifeboat.heartbeat', 'INSERT')
   AND pg_catalog.has_table_privilege('lifeboat.heartbeat', 'UPDATE')
"""
_EVERYTHING_PUBLISHED = "SELECT min(pubname) FROM pg_catalog.pg_publication WHERE puballtables"


class HeartbeatForbidden(PermanentError):
    """The heartbeat's table is not there and must not be made by us, or may not be written."""


def newest_heartbeat(connection: psycopg.Connection[Any]) -> datetime | None:
    """When the heartbeat in the connected database was written last, None where there never was one.

    By the clock of the server that wrote it. Raises psycopg.Error.
    """
    if not heartbeat_exists(connection):
        return None
    found = single_value(connection, "SELECT at FROM lifeboat.heartbeat WHERE id = 1")
    return found.astimezone(UTC) if found is not None else None


def heartbeat_age_seconds(connection: psycopg.Connection[Any]) -> float | None:
    """How old the newest heartbeat is by the server's own clock, in seconds; None where there never was one."""
    if not heartbeat_exists(connection):
        return None
    age = single_value(
        connection,
        "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - at) FROM lifeboat.heartbeat WHERE id = 1",
    )
    return float(age) if age is not None else None


def heartbeat_exists(connection: psycopg.Connection[Any]) -> bool:
    """Whether the connected database has the heartbeat's table."""
    return bool(single_value(connection, _EXISTS))


def prepare_heartbeat(connection: psycopg.Connection[Any]) -> bool:
    """Make schema and table where they are absent, and say whether they were; raises HeartbeatForbidden."""
    made = not heartbeat_exists(connection)
    try:
        if made:
            _refuse_published(connection)
            with connection.transaction():
                # IF NOT EXISTS wants the right to create a schema even where it exists.
                if single_value(connection, "SELECT pg_catalog.to_regnamespace('lifeboat')") is None:
                    connection.execute("CREATE SCHEMA lifeboat")
                connection.execute(_CREATE_TABLE)
        allowed = bool(single_value(connection, _MAY_BEAT))
    except psycopg.errors.InsufficientPrivilege as error:
        raise HeartbeatForbidden(
            f"the role {connection.info.user} may not {'make' if made else 'use'} {HEARTBEAT_TABLE}: "
            f"{error.diag.message_primary}",
            hint=_by_hand(connection),
        ) from error
    if not allowed:
        raise HeartbeatForbidden(
            f"the role {connection.info.user} may not write {HEARTBEAT_TABLE}", hint=_by_hand(connection)
        )
    return made


def beat(connection: psycopg.Connection[Any], agent: str) -> datetime:
    """Write the heartbeat and return its time; the connection commits each statement. Raises psycopg.Error."""
    row = connection.execute(_BEAT, (agent,)).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row from {_BEAT.strip()}")
    at: datetime = row[0]
    return at.astimezone(UTC)


def setup_statements(role: str) -> list[str]:
    """What a superuser runs in the source's database so that `role` can beat without a right to create anything."""
    name = sql.Identifier(role).as_string()
    return [
        "CREATE SCHEMA IF NOT EXISTS lifeboat;",
        f"{_CREATE_TABLE};",
        f"GRANT USAGE ON SCHEMA lifeboat TO {name};",
        f"GRANT SELECT, INSERT, UPDATE ON lifeboat.heartbeat TO {name};",
    ]


def _refuse_published(connection: psycopg.Connection[Any]) -> None:
    # A subscriber stops at the first change of a table that it does not have.
    published = single_value(connection, _EVERYTHING_PUBLISHED)
    if published is not None:
        raise HeartbeatForbidden(
            f"the publication {published} publishes all tables, so a new one would stop its subscribers",
            hint=f"Make the table on the subscribers first. {_by_hand(connection)}",
        )


def _by_hand(connection: psycopg.Connection[Any]) -> str:
    statements = " ".join(setup_statements(connection.info.user))
    return f"As a superuser, in the database {connection.info.dbname}: {statements}"
