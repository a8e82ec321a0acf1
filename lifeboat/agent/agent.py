"""The resident agent: one thread writes the heartbeat, one observes relation names, for as long as we run."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from lifeboat.agent.heartbeat import HEARTBEAT_TABLE, beat, prepare_heartbeat
from lifeboat.agent.lock import wait_for_turn
from lifeboat.agent.notifying import notify_systemd
from lifeboat.agent.observing import observe_databases
from lifeboat.agent.reconnecting import keep_working
from lifeboat.agent.waking import wake_checkpointer
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.lock import LOCK_DATABASE, LockHolder
from lifeboat.settings.agent import AgentSettings

LOG = logging.getLogger("lifeboat")

_TICK_SECONDS = 0.5
_LEAVE_SECONDS = 5.0
_STATEMENT_TIMEOUT = "20s"
_LOCK_TIMEOUT_SECONDS = 10.0
# More than any statement, pause or attempt to connect takes.
_HANGS_SECONDS = 90.0
# A server that is gone without a word is noticed in seconds, not in the hours of TCP's defaults.
_IMPATIENT = {"tcp_user_timeout": "15000", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}


@dataclass
class Agent:
    """Writes the heartbeat and observes names until `stopping` is set; errors of servers never end it."""

    source: ConnectionInfo
    catalog: Catalog
    cluster: str
    settings: AgentSettings
    stopping: threading.Event = field(default_factory=threading.Event)
    _leading: threading.Event = field(default_factory=threading.Event, init=False)
    _failure: BaseException | None = field(default=None, init=False)
    _unseen: dict[str, str] = field(default_factory=dict, init=False)
    _newest: datetime | None = field(default=None, init=False)
    _alive_at: float = field(default_factory=time.monotonic, init=False)

    @property
    def name(self) -> str:
        """How the agent signs its heartbeats."""
        return f"{socket.gethostname()} (process {os.getpid()})"

    def run(self) -> None:
        """Work until `stopping` is set; raises only what nobody foresaw."""
        work = {"heartbeat": self._beat, "relation names": self._observe}
        threads = [
            threading.Thread(target=self._keep, args=(name, step), name=name, daemon=True)
            for name, step in work.items()
        ]
        for thread in threads:
            thread.start()
        LOG.info("the agent of %s works on %s", self.cluster, self.source.redacted())
        notify_systemd("READY=1", f"STATUS=agent of {self.cluster}")
        while not self.stopping.wait(_TICK_SECONDS):
            state = (
                f"STATUS=newest heartbeat {self._newest:%Y-%m-%d %H:%M:%S} UTC" if self._newest else "STATUS=waiting"
            )
            # While the server is away the heartbeat's thread tries again and again; one that hangs does not.
            is_alive = time.monotonic() - self._alive_at < _HANGS_SECONDS + self.settings.heartbeat_seconds
            notify_systemd(*(["WATCHDOG=1"] if is_alive else []), state)
        notify_systemd("STOPPING=1")
        deadline = time.monotonic() + _LEAVE_SECONDS
        for thread in threads:
            # One that hangs on a dead network ends with the process.
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._failure is not None:
            raise self._failure
        LOG.info("the agent of %s has ended", self.cluster)

    def _keep(self, name: str, work: Callable[[Callable[[], None]], None]) -> None:
        try:
            keep_working(name, work, self.stopping)
        except BaseException as error:  # noqa: BLE001 - raised again by `run`, in the main thread
            self._failure = error
            self.stopping.set()

    def _beat(self, succeeded: Callable[[], None]) -> None:
        self._show_life()
        with closing(self._connect(LOCK_DATABASE, "lifeboat agent")) as holder:
            if not wait_for_turn(holder, self.stopping, _tell_wait, self._show_life):
                return
            with closing(self._connect(self.source.database, "lifeboat agent: heartbeat")) as session:
                # Our commits need no standby: one that hangs must not silence us.
                session.execute("SET synchronous_commit = local")
                if prepare_heartbeat(session):
                    LOG.info("made %s in the database %s", HEARTBEAT_TABLE, session.info.dbname)
                if wake_checkpointer(session):
                    LOG.info("the server was started just now: had it reload, so that archive_timeout counts at once")
                self._leading.set()
                try:
                    self._beat_on(holder, session, succeeded)
                finally:
                    self._leading.clear()

    def _beat_on(
        self, holder: psycopg.Connection[Any], session: psycopg.Connection[Any], succeeded: Callable[[], None]
    ) -> None:
        while not self.stopping.is_set():
            began = time.monotonic()
            self._show_life()
            # The lock is gone with its session: then another agent may work already.
            holder.execute("SELECT 1")
            at = beat(session, self.name)
            if self._newest is None:
                LOG.info("the first heartbeat was written at %s UTC", f"{at:%Y-%m-%d %H:%M:%S}")
            self._newest = at
            succeeded()
            self.stopping.wait(max(0.0, began + self.settings.heartbeat_seconds - time.monotonic()))

    def _show_life(self) -> None:
        self._alive_at = time.monotonic()

    def _observe(self, succeeded: Callable[[], None]) -> None:
        while not self.stopping.is_set():
            if not self._leading.wait(_TICK_SECONDS):
                continue
            began = time.monotonic()
            found = observe_databases(self._impatient, self.catalog, self.cluster)
            if found.changed:
                LOG.debug("%d relation names are new, back or gone", found.changed)
            for database, why in found.unseen.items():
                if database not in self._unseen:
                    LOG.warning("relation names of the database %s cannot be seen: %s", database, why)
            self._unseen = found.unseen
            succeeded()
            self.stopping.wait(max(0.0, began + self.settings.observe_seconds - time.monotonic()))

    @property
    def _impatient(self) -> ConnectionInfo:
        return ConnectionInfo({**_IMPATIENT, **self.source.parameters})

    def _connect(self, database: str | None, purpose: str) -> psycopg.Connection[Any]:
        info = self._impatient
        session = connect(
            info.with_database(database) if database else info,
            application_name=purpose,
            autocommit=True,
            lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS,
        )
        session.execute(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
        return session


def _tell_wait(holder: LockHolder) -> None:
    LOG.info("another agent works for this cluster: %s; waiting until it ends", holder)
