"""The accident: a clean-up script that was pointed at the wrong database; and the way back from a restored one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.demo.studio import declare_complete, declare_incomplete
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import ConnectionInfo, connect, current_timeline, single_value

DROPPED = "studio.characters"
EMPTIED = "studio.segments"
# By its foreign key to the emptied one.
EMPTIED_TOO = "studio.render_events"
LOST = (DROPPED, EMPTIED, EMPTIED_TOO)

_TIMEOUT_SECONDS = 120.0
_NOW = "SELECT pg_catalog.clock_timestamp()"


@dataclass(frozen=True)
class TableContent:
    """How many rows a table has, and a hash of all that is in them."""

    rows: int
    md5: str


@dataclass(frozen=True)
class Accident:
    """What was done when, by the server's clock: nothing of it before `began_at`, all of it by `ended_at`.

    WAL up to `end_lsn` of `timeline` has it.
    """

    began_at: datetime
    ended_at: datetime
    timeline: int
    end_lsn: str


def edit_a_character(dsn: str | ConnectionInfo) -> datetime:
    """The last good piece of work before the accident; returns a moment at which it was committed."""
    with connect(dsn, application_name="lifeboat demo", autocommit=True) as connection:
        with connection.transaction():
            connection.execute(
                "UPDATE studio.characters SET traits = traits || jsonb_build_object('reviewed', clock_timestamp())"
                " WHERE id = (SELECT max(id) FROM studio.characters)"
            )
            connection.execute(
                "INSERT INTO studio.activity_log (user_email, action, subject)"
                " SELECT email, 'character.edited', 'the newest one' FROM studio.users ORDER BY id LIMIT 1"
            )
        return _moment(single_value(connection, _NOW))


def content_of(dsn: str | ConnectionInfo) -> Mapping[str, TableContent]:
    """What is in the tables that the accident takes, by name, without those that are gone; read in one snapshot."""
    with connect(dsn, application_name="lifeboat demo") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        there = connection.execute(
            "SELECT name FROM unnest(%s::text[]) name WHERE to_regclass(name) IS NOT NULL", (list(LOST),)
        ).fetchall()
        return {name: _content(connection, name) for (name,) in there}


def cause_accident(dsn: str | ConnectionInfo, root: Path) -> Accident:
    """Delete every segment, drop the characters, and end the WAL segment that has it.

    Until it is undone the studio at `root` counts as incomplete: the next build_studio makes it anew.
    """
    declare_incomplete(root)
    with connect(dsn, application_name="lifeboat demo", autocommit=True) as connection:
        began_at = _moment(single_value(connection, _NOW))
        connection.execute("DELETE FROM studio.segments")
        connection.execute("DROP TABLE studio.characters CASCADE")
        ended_at = _moment(single_value(connection, _NOW))
        lsn = str(single_value(connection, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"))
        connection.execute("SELECT pg_catalog.pg_switch_wal()")
        return Accident(began_at, ended_at, current_timeline(connection), lsn)


def bring_back(tools: PgTools, restored: ConnectionInfo, live: ConnectionInfo, dump: Path, root: Path) -> None:
    """Put the studio of a restored server in the place of what is left of the live one, by pg_dump and psql.

    `dump` is the file between the two, removed at the end. All of it is put back, or nothing. Raises CommandFailed.
    """
    try:
        arguments = ["--schema=studio", "--no-password"]
        tools.run("pg_dump", arguments, connection=restored, timeout_seconds=_TIMEOUT_SECONDS, stdout_path=dump)
        # One transaction: whoever works with the studio meanwhile sees the one or the other.
        one = ["--no-psqlrc", "--quiet", "--output=/dev/null", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        steps = ["--command=SET client_min_messages = warning", "--command=DROP SCHEMA studio CASCADE", "--file=-"]
        with dump.open("rb") as script:
            tools.run("psql", [*one, *steps], connection=live, timeout_seconds=_TIMEOUT_SECONDS, stdin=script)
    finally:
        dump.unlink(missing_ok=True)
    with connect(live, application_name="lifeboat demo", autocommit=True) as connection:
        declare_complete(connection, root)


def _content(connection: psycopg.Connection[Any], name: str) -> TableContent:
    query = sql.SQL(
        "SELECT count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), '')) FROM {} t"
    )
    ((rows, md5),) = connection.execute(query.format(sql.Identifier(*name.split(".")))).fetchall()
    return TableContent(int(rows), str(md5))


def _moment(at: datetime) -> datetime:
    return at.astimezone(UTC)
