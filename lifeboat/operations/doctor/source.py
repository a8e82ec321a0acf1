"""What doctor asks the source for, in one connection; the checks judge it without asking again."""

import os
import pwd
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect, server_major, server_version
from lifeboat.postgres.lock import LOCK_DATABASE

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_SETTINGS = (
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "config_file",
    "data_directory",
    "max_replication_slots",
    "max_wal_senders",
    "summarize_wal",
    "unix_socket_directories",
    "wal_level",
    "wal_segment_size",
)
_ROLE = """
SELECT rolname, rolsuper, rolreplication, rolbypassrls,
       pg_has_role(oid, 'pg_read_all_data', 'USAGE'),
       pg_has_role(oid, 'pg_read_all_settings', 'USAGE'),
       has_function_privilege(oid, 'pg_backup_start(text, boolean)', 'EXECUTE'),
       has_function_privilege(oid, 'pg_control_system()', 'EXECUTE'),
       coalesce((SELECT has_database_privilege(r.oid, d.oid, 'CONNECT') FROM pg_database d WHERE datname = %s), false)
  FROM pg_roles r WHERE rolname = current_user
"""
_ARCHIVER = """
SELECT archived_count, last_archived_wal, last_archived_time, failed_count, last_failed_wal, last_failed_time,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END
  FROM pg_stat_archiver
"""


@dataclass(frozen=True)
class Role:
    """The rights of the role that backups connect as; a superuser has all of them."""

    name: str
    superuser: bool
    replication: bool
    bypasses_row_security: bool
    reads_all_data: bool
    reads_all_settings: bool
    may_start_backup: bool
    may_read_control: bool
    may_connect_for_lock: bool


@dataclass(frozen=True)
class Archiver:
    """pg_stat_archiver, and the segment that is written now."""

    archived_count: int
    last_archived_wal: str | None
    last_archived_at: datetime | None
    failed_count: int
    last_failed_wal: str | None
    last_failed_at: datetime | None
    current_segment: str | None


@dataclass(frozen=True)
class SourceFacts:
    """One server as doctor found it. `settings` are as in pg_settings, without those that the role may not see."""

    version: str
    major: int
    database: str
    settings: Mapping[str, str]
    role: Role
    archiver: Archiver
    system_identifier: str | None
    in_recovery: bool
    pooled: bool
    clock_skew_seconds: float
    cluster_bytes: int
    extensions: tuple[str, ...]
    row_security_tables: int
    free_wal_senders: int
    free_slots: int
    local: bool
    account: str | None

    def is_on(self, name: str) -> bool:
        """Whether a boolean server setting is on (`archive_mode` may also be `always`)."""
        return self.settings.get(name) in {"on", "always"}

    @property
    def segment_size_bytes(self) -> int:
        """The size of a WAL segment."""
        return int(self.settings["wal_segment_size"])


def read_source(installation: Installation) -> SourceFacts:
    """Ask the source; raises SourceUnavailable, AuthenticationFailed and psycopg's errors."""
    with closing(connect(installation.source, application_name="lifeboat doctor", autocommit=True)) as session:
        found = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)])
        settings: dict[str, str] = dict(found.fetchall())
        role = Role(*_row(session, _ROLE, LOCK_DATABASE))
        host = session.info.host
        return SourceFacts(
            version=server_version(session),
            major=server_major(session),
            database=session.info.dbname,
            settings=settings,
            role=role,
            archiver=Archiver(*_row(session, _ARCHIVER)),
            system_identifier=_identifier(session, role),
            in_recovery=bool(_value(session, "SELECT pg_is_in_recovery()")),
            # A pooler invents the process id of the start-up handshake.
            pooled=_value(session, "SELECT pg_backend_pid()") != session.info.backend_pid,
            clock_skew_seconds=_clock_skew(session),
            cluster_bytes=_cluster_bytes(session),
            extensions=tuple(row[0] for row in session.execute("SELECT extname FROM pg_extension ORDER BY extname")),
            row_security_tables=int(_value(session, "SELECT count(*) FROM pg_class WHERE relrowsecurity")),
            free_wal_senders=int(settings["max_wal_senders"])
            - int(_value(session, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'")),
            free_slots=int(settings["max_replication_slots"])
            - int(_value(session, "SELECT count(*) FROM pg_replication_slots")),
            local=not host or host.startswith("/") or host in _LOOPBACK,
            account=_account(host, session.info.port, settings.get("data_directory")),
        )


def _identifier(session: psycopg.Connection[Any], role: Role) -> str | None:
    if not role.may_read_control:
        return None
    return str(_value(session, "SELECT system_identifier::text FROM pg_control_system()"))


def _cluster_bytes(session: psycopg.Connection[Any]) -> int:
    # pg_database_size needs CONNECT on each database or pg_read_all_stats: what cannot be asked is left out.
    query: LiteralString = (
        "SELECT coalesce(sum(pg_database_size(oid)), 0) FROM pg_database"
        " WHERE has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')"
    )
    return int(_value(session, query))


def _clock_skew(session: psycopg.Connection[Any]) -> float:
    """The server's clock minus ours, in seconds, as exact as half the round trip."""
    before = time.time()
    there = float(_value(session, "SELECT extract(epoch FROM clock_timestamp())"))
    return there - (before + time.time()) / 2


def _account(host: str, port: int, data_directory: str | None) -> str | None:
    """The account that a server on this machine runs as; None when it is elsewhere or cannot be told."""
    paths = [Path(host) / f".s.PGSQL.{port}"] if host.startswith("/") else []
    if host in _LOOPBACK and data_directory:
        paths.append(Path(data_directory))
    for path in paths:
        with suppress(OSError, KeyError):
            return pwd.getpwuid(os.stat(path).st_uid).pw_name
    return None


def age_seconds(moment: datetime) -> float:
    """How long ago a moment of the server's clock was."""
    return (datetime.now(UTC) - moment).total_seconds()


def _row(session: psycopg.Connection[Any], query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row = session.execute(query, parameters or None).fetchone()
    if row is None:
        raise psycopg.DataError(f"no row from {query.strip()}")
    return tuple(row)


def _value(session: psycopg.Connection[Any], query: LiteralString) -> Any:  # noqa: ANN401 - as SQL types go
    return _row(session, query)[0]
