"""Makes a named restore point: a record in WAL that recovery can stop at, seen in the archive before it counts."""

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.backup.selection import tell_fault
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.journal import command_actor, point_annotation, writable_journal
from lifeboat.operations.recording import best_effort
from lifeboat.operations.wal.archives import wait_in_pgbackrest
from lifeboat.postgres.connections import connect, current_timeline, single_value, system_identifier
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, parse_target
from lifeboat.storage.journal import PointRecord
from lifeboat.wal.coverage import wait_for_segment

_CREATE = "SELECT pg_catalog.pg_create_restore_point(%s)::text, pg_catalog.clock_timestamp()"


class RestorePointRefused(PermanentError):
    """The server does not make a restore point, or one with that name is there already."""


@dataclass(frozen=True)
class RestorePointMade:
    """A restore point in the archive, and how recovery is told to stop there."""

    record: PointRecord
    target: RecoveryTarget


def add_restore_point(installation: Installation, name: str, *, actor: str | None = None) -> RestorePointMade:
    """Make a restore point now, remember it durably, and wait until the archive has it.

    Raises RestorePointRefused, TargetUnreadable for a name that is none, SettingsError where WAL is not archived,
    WalNotArchived in time (then the point is there, and remembered, but cannot be restored to yet),
    SourceUnavailable, ManifestError and the destination's errors.
    """
    parse_target(now=datetime.now(UTC), name=name)
    if not name.isprintable() or name != name.strip():
        raise SettingsError(
            f"{name!r} cannot be a restore point's name",
            hint="People have to type it: use printable characters, with no space at its ends.",
        )
    if not installation.settings.wal.archive:
        raise SettingsError("`wal.archive` is false: nothing leads to a restore point", hint="Set it to true.")
    journal = writable_journal(installation)
    if any(record.name == name for record in journal.points(tell_fault)):
        raise RestorePointRefused(
            f"there is a restore point {name!r} already",
            hint="Recovery stops at the first of that name: choose another one.",
        )
    with closing(connect(installation.source, application_name="lifeboat restore point", autocommit=True)) as session:
        record = _create(session, name, command_actor(actor))
        journal.add_point(record)
        with best_effort(f"the restore point {name}"):
            installation.catalog.annotations.record(point_annotation(journal.cluster, record))
            installation.catalog.audit.append(
                actor=record.actor,
                action="add restore point",
                object=f"restore point {name}",
                after={"lsn": record.lsn},
            )
        _wait_for_archive(installation, session, record)
    return RestorePointMade(record, RecoveryTarget(TargetKind.NAME, name=name, timeline=record.timeline))


def _create(session: psycopg.Connection[Any], name: str, actor: str) -> PointRecord:
    if single_value(session, "SELECT pg_catalog.pg_is_in_recovery()"):
        raise RestorePointRefused(
            "the source is in recovery: only a primary makes restore points",
            hint="Give the primary's address in `platform.dsn`.",
        )
    try:
        identifier, timeline = system_identifier(session), current_timeline(session)
        row = session.execute(_CREATE, (name,)).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise RestorePointRefused(
            f"the role {session.info.user} may not make restore points: {error.diag.message_primary}",
            hint=_grants(session),
        ) from error
    except psycopg.Error as error:
        raise RestorePointRefused(f"the server made no restore point: {error.diag.message_primary or error}") from error
    if row is None:
        raise psycopg.DataError(f"no row from {_CREATE}")
    return PointRecord(
        id=uuid4(),
        name=name,
        at=row[1].astimezone(UTC),
        timeline=timeline,
        lsn=row[0],
        system_identifier=identifier,
        actor=actor,
    )


def _wait_for_archive(installation: Installation, session: psycopg.Connection[Any], record: PointRecord) -> None:
    wal = installation.settings.wal
    try:
        session.execute("SELECT pg_catalog.pg_switch_wal()")
    except psycopg.Error as error:
        # Its segment is archived all the same when it is full, or by archive_timeout.
        LOG.warning("the WAL segment was not ended: %s. %s", error.diag.message_primary or error, _grants(session))
    if installation.settings.pgbackrest_archives:
        wait_in_pgbackrest(installation, timeline=record.timeline, lsn=record.lsn)
        return
    wait_for_segment(
        installation.destination(wal.destination).path,
        installation.settings.platform.cluster,
        timeline=record.timeline,
        lsn=record.lsn,
        timeout_seconds=wal.segment_timeout_seconds,
        connection=session,
    )


def _grants(session: psycopg.Connection[Any]) -> str:
    role = sql.Identifier(session.info.user).as_string()
    return f"As a superuser: GRANT EXECUTE ON FUNCTION pg_create_restore_point(text), pg_switch_wal() TO {role};"
