"""Runs pg_receivewal with a physical slot, in the foreground, and pushes what it finishes to the archive."""

import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lifeboat.commands import CommandFailed
from lifeboat.errors import LifeboatError, SettingsError, TransientError
from lifeboat.operations.installation import LOG, Installation
from lifeboat.operations.signals import stop_event
from lifeboat.operations.wal.received import spool_folder
from lifeboat.postgres.connections import connect, single_value, system_identifier
from lifeboat.postgres.folders import make_private_dir
from lifeboat.wal.archive_program.layout import ArchiveError, Config, archive_folder, read_marker
from lifeboat.wal.install import WalConfig, prepare_archive
from lifeboat.wal.receiving import Spool

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_PUSH_SECONDS = 1.0
# What pg_receivewal says, itself in English always, where the server does not send from there; source: receivelog.c.
_NOT_SENT = ('replication command "START_REPLICATION"', "unexpected termination of replication stream")
# What a server says of a position that it does not have; source: walsender.c and xlogreader.c of PostgreSQL.
_REMOVED, _OTHER_HISTORY = "has already been removed", "is not in this server's history"
_LIMIT = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'"
_SEGMENT_SIZE = "SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'"
_DROP_USELESS = """
SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_name = %s AND slot_type = 'physical' AND restart_lsn IS NULL AND wal_status IS NULL AND NOT active
"""
_CREATE_SLOT = """
SELECT pg_catalog.pg_create_physical_replication_slot(%s, true)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = %s)
"""
_SLOT_LSN = "SELECT restart_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
_ADVANCE = """
SELECT pg_catalog.pg_replication_slot_advance(slot_name, %(lsn)s::pg_lsn) FROM pg_catalog.pg_replication_slots
WHERE slot_name = %(slot)s AND restart_lsn < %(lsn)s::pg_lsn
"""
_DROP = (
    "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = %s"
)


class _Stopped(Exception):
    """The receiver was asked to end."""


@dataclass(frozen=True)
class _Server:
    identifier: str
    segment_size_bytes: int
    keeps_without_limit: bool
    slot_is_new: bool
    slot_lsn: str | None


def receive_wal_until_stopped(installation: Installation) -> None:
    """Receive until SIGINT, SIGTERM or SIGHUP, called from the main thread; raises as `receive_wal`."""
    with stop_event() as stopping:
        receive_wal(installation, stopping)


def receive_wal(installation: Installation, stopping: threading.Event) -> None:
    """Stream WAL into the archive until `stopping`; a server or an archive that is away is waited for, for ever.

    The slot stays when this ends: the server keeps WAL for it. Raises SettingsError, what tools that are not there
    raise, and what an archive raises that is not ready when we begin: ArchiveNotReady, DestinationFull.
    """
    settings = installation.settings
    if not settings.wal.receive or not settings.wal.archive or settings.pgbackrest_archives:
        raise SettingsError(
            "settings do not want a WAL receiver for Lifeboat's own archive",
            hint="Set `wal.receive = true`; pgBackRest's repository takes WAL from archive_command only.",
        )
    receiver, pause_seconds = _Receiver(installation, stopping), _FIRST_PAUSE_SECONDS
    while not stopping.is_set():
        receiver.push()
        began = time.monotonic()
        try:
            receiver.stream()
        except _Stopped:
            return
        except (TransientError, CommandFailed, psycopg.Error) as error:
            lasted_seconds = time.monotonic() - began
            if lasted_seconds > _LONGEST_PAUSE_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            said = error.message if isinstance(error, LifeboatError) else " ".join(str(error).split())
            LOG.warning("WAL is not received, trying again in %.0f s: %s", pause_seconds, said)
            if isinstance(error, CommandFailed):
                receiver.go_on_at_slot(error.stderr_tail, lasted_seconds)
            receiver.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
        else:
            pause_seconds = _FIRST_PAUSE_SECONDS


@dataclass
class _Receiver:
    """What outlasts one pg_receivewal: its spool, which is pushed to the archive whether the server is there or not."""

    installation: Installation
    stopping: threading.Event
    spool: Spool | None = None
    server: _Server | None = None
    slot_lsn: str | None = None
    slot_is_useless: bool = False

    def push(self) -> None:
        """Push what is finished, by us or a receiver before us: restores need it just when the server is away."""
        if self.spool is None:
            self.spool = _left_spool(self.installation)
        if self.spool is not None:
            self.spool.push_finished()

    def wait(self, seconds: float) -> None:
        """Wait for `stopping`, and push meanwhile."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.stopping.wait(min(left, _PUSH_SECONDS)):
            self.push()

    def stream(self) -> None:
        """Run pg_receivewal until it ends; raises _Stopped, CommandFailed, and what server and archive raise."""
        wal = self.installation.settings.wal
        server = self.server = self._ask()
        if self.spool is None or self.spool.config.system_identifier != server.identifier:
            self.spool = _spool(self.installation, server)
        # Else without a look at the archive: while that is away, WAL is safer in the spool than on the server alone.
        spool = self.spool
        make_private_dir(spool.folder, self.installation.tools.user)
        if server.keeps_without_limit:
            LOG.warning(
                "while the receiver is down, the server keeps WAL without a limit and its disk can fill; a superuser "
                "sets one: ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf();"
            )

        def tick() -> None:
            spool.push_finished()
            if self.stopping.is_set():
                raise _Stopped

        LOG.info("receiving WAL through the slot %s into %s", wal.receive_slot, spool.folder)
        # Without --no-loop it would try again by itself and say nothing of a changed server.
        options: list[str | Path] = ["--no-loop", "--status-interval", "1", "--no-password", "--slot", wal.receive_slot]
        self.installation.tools.run(
            "pg_receivewal",
            ["--directory", spool.folder, *options],
            connection=self.installation.source,
            timeout_seconds=None,
            on_tick=tick,
            on_stderr_line=lambda line: LOG.warning("%s", line),
        )

    def go_on_at_slot(self, said: str, lasted_seconds: float) -> None:
        """Put the spool's unfinished segment aside where the server cannot go on from it: it never could again.

        A new slot from which nothing is sent counts too: what the server says may be in any language. Nothing is lost
        where the slot is older than that segment, since the server has all of it.
        """
        if self.spool is None or self.server is None:
            return
        is_new = self.server.slot_is_new and lasted_seconds < _LONGEST_PAUSE_SECONDS
        is_refused = is_new and any(text in said for text in _NOT_SENT)
        if not (is_refused or _REMOVED in said or _OTHER_HISTORY in said):
            return
        aside = self.spool.set_aside()
        for name in aside:
            LOG.error(
                "WAL may be missing in the archive from %s on: the server does not have it, or has gone another way;"
                " receiving goes on where the slot %s stands; take a full backup if `lifeboat wal health` asks for one",
                name,
                self.installation.settings.wal.receive_slot,
            )
        # Where pg_receivewal began, it has set the slot back to what the server does not have.
        self.slot_lsn = self.server.slot_lsn
        self.slot_is_useless = _REMOVED in said and not aside and not self.spool.finished()
        if self.slot_is_useless:
            LOG.error(
                "WAL may be missing in the archive from %s on: the server has removed what the slot %s should keep; the"
                " slot is made anew; take a full backup if `lifeboat wal health` asks for one",
                self.slot_lsn,
                self.installation.settings.wal.receive_slot,
            )

    def _ask(self) -> _Server:
        """Have a slot that keeps WAL where the server has some, and ask what the server is."""
        slot = self.installation.settings.wal.receive_slot
        source = self.installation.source
        with closing(connect(source, application_name="lifeboat wal receive", autocommit=True)) as session:
            if self.slot_is_useless:
                session.execute(_DROP, [slot])
            elif self.slot_lsn is not None:
                session.execute(_ADVANCE, {"slot": slot, "lsn": self.slot_lsn})
            self.slot_lsn, self.slot_is_useless = None, False
            # Not by pg_receivewal: its slot keeps nothing before something was received, and even that is forgotten in
            # a crash before the next checkpoint. The receiver would go on at the present position: a gap.
            session.execute(_DROP_USELESS, [slot])
            made = session.execute(_CREATE_SLOT, [slot, slot]).fetchone() is not None
            return _Server(
                system_identifier(session),
                int(single_value(session, _SEGMENT_SIZE)),
                int(single_value(session, _LIMIT)) < 0,
                made,
                next((row[0] for row in session.execute(_SLOT_LSN, [slot])), None),
            )


def _spool(installation: Installation, server: _Server) -> Spool:
    settings = installation.settings
    installation.destination(settings.wal.destination).check()
    config = _config(installation, server.identifier, server.segment_size_bytes)
    prepare_archive(config, user=installation.run_as)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    return Spool(spool_folder(installation, server.identifier), Config(config.model_dump()))


def _left_spool(installation: Installation) -> Spool | None:
    """The spool of a receiver before us, if there is one of the server whose archive this is."""
    settings = installation.settings
    root = installation.destination(settings.wal.destination).path
    try:
        identifier, size_bytes = read_marker(archive_folder(str(root), settings.platform.cluster))
    except (ArchiveError, OSError):
        return None
    folder = spool_folder(installation, identifier)
    return (
        Spool(folder, Config(_config(installation, identifier, size_bytes).model_dump())) if folder.is_dir() else None
    )


def _config(installation: Installation, identifier: str, segment_size_bytes: int) -> WalConfig:
    settings = installation.settings
    return WalConfig.of(
        settings.wal,
        installation.destination(settings.wal.destination).path,
        settings.platform.cluster,
        system_identifier=identifier,
        segment_size_bytes=segment_size_bytes,
    )
