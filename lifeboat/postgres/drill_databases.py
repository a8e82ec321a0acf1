"""Temporary databases on a server that others use: ours can be told from theirs, and a dead owner's is dropped.

The owner holds a session advisory lock from before the database is made until it is gone, which the server gives back
when the owner dies, on whatever host; and a session in the database, since PostgreSQL drops none that is in use.
"""

import json
import logging
import re
import secrets
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.errors import LifeboatError, PermanentError
from lifeboat.postgres.connections import ConnectionInfo, connect, connection_error, single_value
from lifeboat.postgres.lock import LOCK_DATABASE, refuse_pooler
from lifeboat.postgres.owners import owner_lives, owner_record

LOG = logging.getLogger("lifeboat")
_NAME = re.compile(r"lifeboat_(?:drill|restore)_([0-9a-f]{8})")
_LOCK_CLASS = 0x4C464452  # spells "LFDR"; the name's number is the other half of the key
_MARK_BITS = 1 << 30


class DrillDatabaseFailed(PermanentError):
    """The server makes no temporary database for us."""


@dataclass(frozen=True)
class AbandonedDatabases:
    """The names of the databases that were dropped, and by name why another one stays though nobody owns it."""

    removed: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    name: str
    connection_limit: int
    comment: dict[str, Any]

    def is_ours(self) -> bool:
        """Marked as well as named by us; an interrupted DROP DATABASE overwrites the limit, so either mark will do."""
        return self.connection_limit == _mark(self.name) or self.comment.get("drill_database") == self.name

    def owner_lives(self) -> bool | None:
        """None when the owner is on another host, or was killed before it could write its name."""
        with suppress(ValueError):
            return owner_lives(self.comment)
        return None


@contextmanager
def drill_database(server: ConnectionInfo, details: Mapping[str, object]) -> Iterator[ConnectionInfo]:
    """An empty database like the dumped one that a manifest's `details` tell of; dropped at the end.

    Raises DrillDatabaseFailed, PooledConnection, SourceUnavailable, AuthenticationFailed.
    """
    with (
        _owned_database(server, details, "lifeboat_drill") as (database, name),
        closing(connect(database, application_name=f"lifeboat keeper of {name}", autocommit=True)),
    ):
        yield database


@contextmanager
def draft_database(server: ConnectionInfo, details: Mapping[str, object], final_name: str) -> Iterator[ConnectionInfo]:
    """An empty database as for a drill, which bears `final_name` when the context ends, and is dropped if that fails.

    Nobody may be connected to it then. Raises as `drill_database`.
    """
    with _owned_database(server, details, "lifeboat_restore") as (database, name):
        yield database
        with closing(connect(server.with_database(LOCK_DATABASE), autocommit=True)) as session:
            draft, final = sql.Identifier(name), sql.Identifier(final_name)
            statements = (
                sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(draft),
                sql.SQL("COMMENT ON DATABASE {} IS NULL").format(draft),
                sql.SQL("ALTER DATABASE {} RENAME TO {}").format(draft, final),
            )
            # Our mark goes with the name in one step: a database with either of them might be swept, or bear it on.
            with session.transaction():
                for statement in statements:
                    _execute(session, statement, final_name, server)


@contextmanager
def _owned_database(
    server: ConnectionInfo, details: Mapping[str, object], prefix: str
) -> Iterator[tuple[ConnectionInfo, str]]:
    server = server.with_database(LOCK_DATABASE)
    name = f"{prefix}_{secrets.token_hex(4)}"
    database = server.with_database(name)
    with closing(connect(server, application_name=f"lifeboat owner of {name}", autocommit=True)) as owner:
        refuse_pooler(owner)
        if not _try_lock(owner, name):
            raise DrillDatabaseFailed(f"the name {name} is taken", hint="Hold the drill again: it takes another one.")
        # What CREATE refuses is not ours to drop, above all a database of that name.
        _create(owner, name, details, server)
        try:
            _tell_owner(owner, name, server)
            yield database, name
        finally:
            _drop_own(server, name)


def remove_abandoned_databases(server: ConnectionInfo) -> AbandonedDatabases:
    """Drop the drill and draft databases whose owner is dead.

    Never one that lacks our name or our mark, or whose owner lives. Raises PooledConnection, SourceUnavailable,
    AuthenticationFailed.
    """
    server = server.with_database(LOCK_DATABASE)
    with closing(connect(server, application_name="lifeboat abandoned drills", autocommit=True)) as session:
        try:
            return _remove_abandoned(session)
        except psycopg.Error as error:
            raise connection_error(error, server) from error


def _remove_abandoned(session: psycopg.Connection[Any]) -> AbandonedDatabases:
    result = AbandonedDatabases()
    refuse_pooler(session)
    # A standby shows the primary's databases, but not the locks on them.
    if single_value(session, "SELECT pg_catalog.pg_is_in_recovery()"):
        return result
    for found in _find(session):
        try:
            if _drop_abandoned(session, found):
                result.removed.append(found.name)
        except psycopg.Error as error:
            if session.closed:
                raise
            result.left[found.name] = str(error).strip()
    return result


def _create(session: psycopg.Connection[Any], name: str, details: Mapping[str, object], server: ConnectionInfo) -> None:
    # The limit marks it in the moment when it is made, and limits nothing.
    statement = "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {} CONNECTION LIMIT {}"
    alike = [sql.Literal(str(details[key])) for key in ("encoding", "collate", "ctype")]
    _execute(session, sql.SQL(statement).format(sql.Identifier(name), *alike, sql.Literal(_mark(name))), name, server)


def _tell_owner(session: psycopg.Connection[Any], name: str, server: ConnectionInfo) -> None:
    told = json.dumps({"drill_database": name, **owner_record()})
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(told))
    _execute(session, statement, name, server)


def _execute(session: psycopg.Connection[Any], statement: sql.Composed, name: str, server: ConnectionInfo) -> None:
    try:
        session.execute(statement)
    except psycopg.Error as error:
        if session.closed:
            raise connection_error(error, server) from error
        raise DrillDatabaseFailed(
            f"the database {name} cannot be made: {str(error).strip()}",
            hint="Give the role CREATEDB and the server room; a drill needs neither with the target `scratch`.",
        ) from error


def _find(session: psycopg.Connection[Any]) -> list[_Found]:
    rows = session.execute(
        "SELECT datname, datconnlimit, pg_catalog.shobj_description(oid, 'pg_database')"
        " FROM pg_catalog.pg_database WHERE NOT datistemplate ORDER BY oid"
    ).fetchall()
    named = [_Found(name, limit, _parsed(comment)) for name, limit, comment in rows if _NAME.fullmatch(name)]
    return [found for found in named if found.is_ours()]


def _parsed(comment: str | None) -> dict[str, Any]:
    with suppress(ValueError):
        parsed = json.loads(comment or "")
        return parsed if isinstance(parsed, dict) else {}
    return {}


def _drop_abandoned(session: psycopg.Connection[Any], found: _Found) -> bool:
    if not _try_lock(session, found.name):
        return False
    try:
        lives = found.owner_lives()
        if lives:
            return False
        # A killed owner's last query runs on until its end. It is ended here only where the owner is seen to be dead:
        # elsewhere it may be alive and only its lock's session lost.
        _drop(session, found.name, force=lives is False)
    finally:
        if not session.closed:
            session.execute("SELECT pg_catalog.pg_advisory_unlock(%s::int4, %s::int4)", _lock_key(found.name))
    return True


def _drop_own(server: ConnectionInfo, name: str) -> None:
    try:
        # Over a connection of its own: the owner's may be what broke.
        with closing(connect(server, autocommit=True)) as session:
            _drop(session, name, force=True)
    except (psycopg.Error, LifeboatError) as error:
        # What the drill has found must not be lost with it, and the next one or reconciling tries again.
        LOG.warning("the temporary database %s could not be dropped and stays for now: %s", name, str(error).strip())


def _drop(session: psycopg.Connection[Any], name: str, *, force: bool) -> None:
    statement = "DROP DATABASE IF EXISTS {} WITH (FORCE)" if force else "DROP DATABASE IF EXISTS {}"
    session.execute(sql.SQL(statement).format(sql.Identifier(name)))


def _try_lock(session: psycopg.Connection[Any], name: str) -> bool:
    taken = session.execute("SELECT pg_catalog.pg_try_advisory_lock(%s::int4, %s::int4)", _lock_key(name)).fetchone()
    return taken is not None and bool(taken[0])


def _lock_key(name: str) -> tuple[int, int]:
    number = bytes.fromhex(name.rpartition("_")[2])
    return _LOCK_CLASS, int.from_bytes(number, "big", signed=True)


def _mark(name: str) -> int:
    return _MARK_BITS | zlib.crc32(name.encode()) % _MARK_BITS
