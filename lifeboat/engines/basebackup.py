"""Physical backups with PostgreSQL's own pg_basebackup and pg_combinebackup.

The payload is `base/base.tar.gz` with the WAL that the backup needs inside (`-X fetch`, so that no second process is
left behind when the tool is killed; a temporary replication slot of our own session keeps the WAL until then), one
`base/<oid>.tar.gz` for each tablespace, and PostgreSQL's `base/backup_manifest`.
"""

import re
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from lifeboat.engines.backup_end import moment_of_stop
from lifeboat.engines.basebackup_restore import PAYLOAD_FOLDER, restore_steps, unpack_chain
from lifeboat.engines.engine import EngineFailed, IncrementalImpossible, Parent, Progress, Taken, Watch
from lifeboat.engines.failures import run_tool
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import (
    ConnectionInfo,
    connect,
    server_major,
    server_version,
    single_value,
    system_identifier,
)
from lifeboat.settings.backups import BaseBackupSettings
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.storage.repository import BackupRepository

INCREMENTAL_SINCE_MAJOR = 17
_START = re.compile(r"write-ahead log start point: ([0-9A-F]+/[0-9A-F]+) on timeline (\d+)")
_STOP = re.compile(r"write-ahead log end point: ([0-9A-F]+/[0-9A-F]+)")
_PROGRESS = re.compile(r"^\s*(\d+)/(\d+) kB \(")
_KILOBYTE = 1024


@dataclass(frozen=True)
class BaseBackupEngine:
    """Takes full backups of any supported server, differential and incremental ones from PostgreSQL 17 on."""

    tools: PgTools
    connection: ConnectionInfo
    settings: BaseBackupSettings
    timeout_seconds: float

    @property
    def name(self) -> str:
        """`basebackup`."""
        return "basebackup"

    def types(self, server_major: int) -> frozenset[BackupType]:
        """Incremental backups need `summarize_wal`, which came with PostgreSQL 17."""
        if server_major < INCREMENTAL_SINCE_MAJOR:
            return frozenset({BackupType.FULL})
        return frozenset({BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL})

    def take(self, folder: Path, kind: BackupType, label: str, parent: Parent | None, watch: Watch) -> Taken:
        """Run pg_basebackup into `folder`; see Engine.take."""
        with closing(connect(self.connection, application_name=f"lifeboat {label}", autocommit=True)) as session:
            identifier, superuser = system_identifier(session), _superuser(session)
            version, major = server_version(session), server_major(session)
            tablespaces = _tablespaces(session)
            self._refuse_impossible(session, parent, identifier)
            slot = _hold_wal(session, label)
            points = _Points(watch)
            run_tool(
                self.tools,
                "pg_basebackup",
                self._arguments(folder / PAYLOAD_FOLDER, label, parent),
                doing=f"pg_basebackup of {self.connection.redacted()}",
                watch=watch,
                connection=self.connection,
                timeout_seconds=self.timeout_seconds,
                on_line=points.read,
            )
            stopped_at = points.stopped_at(session)
            # Where the session has ended, the slot has ended with it.
            with suppress(psycopg.Error):
                _release_wal(session, slot)
        if points.start_lsn is None or points.stop_lsn is None:
            raise EngineFailed("pg_basebackup ended without naming where its WAL starts and stops")
        chain = [*_labels(parent), label]
        return Taken(
            engine=self.name,
            type=kind,
            pg_version=version,
            system_identifier=identifier,
            compression="gzip" if self.settings.compression_level else "none",
            tools=_needed_tools(major, len(chain)),
            restore=restore_steps(chain, self._suffix(), tablespaces),
            timeline=points.timeline,
            start_lsn=points.start_lsn,
            stop_lsn=points.stop_lsn,
            details={"tablespaces": tablespaces, "chain": chain, "superuser": superuser},
            stopped_at=stopped_at,
        )

    def restore_files(self, repository: BackupRepository, chain: list[Manifest], target: Path, watch: Watch) -> None:
        """Unpack the chain and combine it; see Engine.restore_files."""
        unpack_chain(self.tools, repository, chain, target, self.timeout_seconds, watch)

    def _suffix(self) -> str:
        return ".tar.gz" if self.settings.compression_level else ".tar"

    def _arguments(self, folder: Path, label: str, parent: Parent | None) -> list[str]:
        level = self.settings.compression_level
        words = [
            f"--pgdata={folder}",
            "--format=tar",
            "--wal-method=fetch",
            f"--compress={f'client-gzip:{level}' if level else 'none'}",
            "--manifest-checksums=SHA256",
            f"--checkpoint={self.settings.checkpoint}",
            f"--label=lifeboat {label}",
            "--no-sync",  # the repository flushes every file itself, once
            "--no-password",
            "--verbose",
            "--progress",
        ]
        if self.settings.max_rate_kilobytes_per_second is not None:
            words.append(f"--max-rate={self.settings.max_rate_kilobytes_per_second}k")
        if parent is not None:
            words.append(f"--incremental={parent.backup_manifest}")
        return words

    def _refuse_impossible(self, session: psycopg.Connection, parent: Parent | None, identifier: str) -> None:
        if parent is None:
            return
        if parent.manifest.system_identifier != identifier:
            raise IncrementalImpossible(f"{parent.manifest.label} is a backup of another cluster")
        if (why := lasting_obstacle(session)) is not None:
            raise IncrementalImpossible(why)


def lasting_obstacle(session: psycopg.Connection) -> str | None:
    """Why this server gives no differential or incremental backup, now and tomorrow; None where it gives them."""
    if (major := server_major(session)) < INCREMENTAL_SINCE_MAJOR:
        return f"it needs PostgreSQL {INCREMENTAL_SINCE_MAJOR} with summarize_wal on, and the server is version {major}"
    if single_value(session, "SELECT pg_catalog.current_setting('summarize_wal')") != "on":
        return f"it needs PostgreSQL {INCREMENTAL_SINCE_MAJOR} with summarize_wal on, and the server has that off"
    return None


class _Points:
    """Picks the start and stop of the backup's WAL, and its progress, out of what pg_basebackup prints."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.start_lsn: str | None = None
        self.stop_lsn: str | None = None
        self.timeline: int | None = None

    def read(self, line: str) -> None:
        """Take one line of its stderr."""
        if found := _PROGRESS.match(line):
            done, total = (int(number) * _KILOBYTE for number in found.groups())
            self._watch.on_progress(Progress(done, max(done, total)))
            return
        self._watch.on_line(line)
        if found := _START.search(line):
            self.start_lsn, self.timeline = found[1], int(found[2])
            self._watch.on_begun()
        elif found := _STOP.search(line):
            self.stop_lsn = found[1]

    def stopped_at(self, session: psycopg.Connection) -> datetime | None:
        """When the backup ended by the server's clock, where that is known."""
        if self.start_lsn is None or self.timeline is None:
            return None
        return moment_of_stop(session, self.timeline, self.start_lsn)


def _hold_wal(session: psycopg.Connection, label: str) -> str:
    slot = "lifeboat_" + re.sub(r"[^a-z0-9]", "_", label.lower())
    try:
        session.execute("SELECT pg_create_physical_replication_slot(%s, true, true)", (slot,))
    except psycopg.Error as error:
        raise EngineFailed(
            f"cannot hold WAL for the backup by a temporary replication slot: {error.diag.message_primary or error}",
            hint="Give the role REPLICATION, and raise max_replication_slots if all are in use.",
        ) from error
    return slot


def _release_wal(session: psycopg.Connection, slot: str) -> None:
    session.execute(sql.SQL("SELECT pg_drop_replication_slot({})").format(sql.Literal(slot)))


def _tablespaces(session: psycopg.Connection) -> dict[str, str]:
    rows = session.execute(
        "SELECT oid::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) <> ''"
    ).fetchall()
    return {str(oid): str(location) for oid, location in rows}


def _superuser(session: psycopg.Connection) -> str:
    # Whoever restores needs a role to connect as: the one that initdb made, whatever it is called now (OID 10).
    return str(single_value(session, "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10"))


def _labels(parent: Parent | None) -> list[str]:
    return [] if parent is None else list(parent.manifest.details["chain"])


def _needed_tools(major: int, chain_length: int) -> dict[str, str]:
    tools = {"postgres": str(major), "tar": "any", "gzip": "any"}
    return tools | ({"pg_combinebackup": str(major)} if chain_length > 1 else {})
