"""Takes the fingerprint of the source while an engine runs, under the right snapshot."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg

from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import ConnectionInfo, SourceUnavailable, connect, single_value
from lifeboat.settings.drills import DrillSettings
from lifeboat.storage.manifest import Fingerprint
from lifeboat.verification.fingerprints import take_fingerprint
from lifeboat.verification.snapshots import GuardedSnapshot, snapshot_guard


class FingerprintLost(PermanentError):
    """The fingerprint could not be taken; the backup could then never be proven, so it fails."""


class SourceFingerprint:
    """One connection and one thread: `fix_snapshot` fixes the snapshot, the counting goes on beside the engine."""

    def __init__(self, source: ConnectionInfo, drills: DrillSettings) -> None:
        self._drills = drills
        self._connection = connect(source, application_name="lifeboat fingerprint", autocommit=True)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fingerprint")
        self._future: Future[Fingerprint] | None = None
        self._lock = threading.Lock()
        self.snapshot: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=5)
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._connection.close()

    def fix_snapshot(self) -> None:
        """Fix the snapshot now and start counting under it; later calls change nothing."""
        with self._lock:
            if self._future is not None:
                return
            try:
                guard = snapshot_guard(self._connection)
                self.snapshot = str(single_value(self._connection, "SELECT pg_catalog.pg_export_snapshot()"))
            except psycopg.Error as error:
                raise self._lost(error) from error
            self._future = self._pool.submit(self._take, guard)

    def result(self) -> Fingerprint:
        """Wait for the fingerprint; raises FingerprintLost."""
        if self._future is None:
            raise FingerprintLost("the engine never said that the backup had begun, so there is no fingerprint")
        try:
            return self._future.result()
        except psycopg.Error as error:
            raise self._lost(error) from error

    def _lost(self, error: psycopg.Error) -> FingerprintLost | SourceUnavailable:
        said = f"the fingerprint of the source could not be taken: {str(error).strip()}"
        if self._connection.broken or isinstance(error, psycopg.OperationalError):
            return SourceUnavailable(said, hint="The server restarted or the connection was cut: run the backup again.")
        return FingerprintLost(
            said, hint="The role needs to read every table (pg_read_all_data) and to bypass row security."
        )

    def _take(self, guard: GuardedSnapshot) -> Fingerprint:
        return take_fingerprint(
            self._connection, budget=self._drills.fingerprint, lsn=guard.lsn, busy_tables=guard.busy_tables
        )
