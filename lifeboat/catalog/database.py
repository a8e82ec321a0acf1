"""Connections to the catalog's database, and what its errors mean."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, NullPool, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lifeboat.catalog.errors import CatalogError, CatalogRefused, CatalogUnavailable, not_migrated
from lifeboat.postgres.connections import AuthenticationFailed, ConnectionInfo, SourceUnavailable, connect

CONNECT_TIMEOUT_SECONDS = 5
LOCK_TIMEOUT_SECONDS = 10
_RECYCLE_SECONDS = 300
_UNACKNOWLEDGED_MILLISECONDS = "30000"

# PostgreSQL's appendix A. Missing schema, table, column; of the classes: connection, transaction rollback,
# resources, object not in the needed state (a lock), operator intervention, system error.
_NOT_MIGRATED = {"3F000", "42P01", "42703"}
_TRANSIENT_CLASSES = {"08", "40", "53", "55", "57", "58"}
_READ_ONLY = "25006"
_NO_RIGHT = "42501"


class _Kept(threading.local):
    """The connection that a thread's transactions share, once there is one."""

    is_wanted: bool = False
    connection: Connection | None = None


class Database:
    """Transactions in the catalog's database; nothing connects before the first one.

    Without a pool every transaction has its own connection: a backup of hours holds none, and a process that ends
    leaves none. `pool_size` keeps that many open for a process that answers requests.
    """

    def __init__(
        self,
        dsn: str | ConnectionInfo,
        *,
        connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
        pool_size: int = 0,
    ) -> None:
        self.info = ConnectionInfo.parse(dsn)
        self._connect_timeout_seconds = connect_timeout_seconds
        self._lock_timeout_seconds = lock_timeout_seconds
        pool: dict[str, Any] = {"poolclass": NullPool}
        if pool_size:
            pool = {
                "poolclass": QueuePool,
                "pool_size": pool_size,
                "max_overflow": 0,
                "pool_timeout": connect_timeout_seconds,
                "pool_recycle": _RECYCLE_SECONDS,
                "pool_pre_ping": True,
            }
        self._kept = _Kept()
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            hide_parameters=True,
            use_native_hstore=False,
            **pool,
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction, committed at the end.

        Raises CatalogUnavailable, CatalogNotMigrated, CatalogRefused.
        """
        try:
            with self._transaction() as connection:
                yield connection
        except DBAPIError as error:
            raise self._meaning(error) from error
        except PoolTimeout as error:
            raise CatalogUnavailable(
                f"the catalog's {self._engine.pool.status()} are all in use",
                hint="Try again; a larger pool helps where this happens often.",
            ) from error

    @contextmanager
    def one_connection(self) -> Iterator[None]:
        """Within it this thread's transactions share one connection: for many short ones in a row."""
        kept = self._kept
        if kept.is_wanted:
            yield
            return
        kept.is_wanted = True
        try:
            yield
        finally:
            connection, kept.connection, kept.is_wanted = kept.connection, None, False
            if connection is not None:
                connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        kept = self._kept
        if not kept.is_wanted or (kept.connection is not None and kept.connection.in_transaction()):
            with self._engine.begin() as connection:
                yield connection
            return
        if kept.connection is None:
            kept.connection = self._engine.connect()
        with kept.connection.begin():
            yield kept.connection

    def close(self) -> None:
        """Close the connections that the pool keeps."""
        self._engine.dispose()

    def _connect(self) -> psycopg.Connection[Any]:
        parameters = {"tcp_user_timeout": _UNACKNOWLEDGED_MILLISECONDS, **self.info.parameters}
        try:
            return connect(
                ConnectionInfo(parameters),
                application_name="lifeboat catalog",
                lock_timeout_seconds=self._lock_timeout_seconds,
                connect_timeout_seconds=self._connect_timeout_seconds,
            )
        except SourceUnavailable as error:
            raise CatalogUnavailable(f"the catalog is away: {error.message}", hint=error.hint) from None
        except AuthenticationFailed as error:
            raise CatalogRefused(
                f"the catalog refuses us: {error.message}",
                hint="Check `catalog.dsn` (or `platform.dsn`) in lifeboat.toml and the server's pg_hba.conf.",
            ) from None

    def _meaning(self, error: DBAPIError) -> CatalogError:
        cause = error.orig if isinstance(error.orig, psycopg.Error) else psycopg.Error(str(error.orig))
        said = self._redacted(cause)
        state = cause.sqlstate or ""
        if state in _NOT_MIGRATED:
            return not_migrated(f"the catalog's tables are missing or outdated: {said}")
        lost = not state and isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
        if lost or error.connection_invalidated or state[:2] in _TRANSIENT_CLASSES or state == _READ_ONLY:
            return CatalogUnavailable(
                f"the catalog did not answer: {said}", hint="Look in the log of the catalog's server, then try again."
            )
        if state == _NO_RIGHT:
            return CatalogRefused(
                f"the catalog's role may not do this: {said}",
                hint=f"Grant {self.info.user or 'the role'} the schema lifeboat and its tables, or let it own them.",
            )
        return CatalogRefused(f"the catalog refused a statement: {said}")

    def _redacted(self, cause: psycopg.Error) -> str:
        words = [cause.diag.message_primary or str(cause).strip().partition("\n")[0], cause.diag.message_detail]
        said = "; ".join(word for word in words if word)
        for secret in self.info.secrets:
            said = said.replace(secret, "***")
        return said
