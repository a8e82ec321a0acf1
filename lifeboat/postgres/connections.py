"""Connections to a server: parsed once, fixed session settings, clear errors, no password in any text."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, Self
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from lifeboat.errors import PermanentError, TransientError

CONNECT_TIMEOUT_SECONDS = 10
_SECRET_KEYWORDS = ("password", "sslpassword", "oauth_client_secret")
_APPLICATION_NAME_MAX_BYTES = 63
_KEEPALIVES = {
    "keepalives": "1",
    "keepalives_idle": "60",
    "keepalives_interval": "10",
    "keepalives_count": "6",
}

# What a role or a database may have changed must not change what we read (the same reasons as in pg_dump.c).
_SESSION_SETTINGS = {
    "search_path": "pg_catalog",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "extra_float_digits": "1",
    "row_security": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
_TRANSACTION_TIMEOUT_SINCE = 170000

# libpq gives no SQLSTATE for a refused connection, so the server's words must do: 28P01, 28000, 3D000, 42501.
_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|not permitted to log in"
    r"|no password supplied|(?:role|database) \".*\" does not exist|permission denied for database"
    r"|not currently accepting connections",
    re.IGNORECASE,
)
# As in libpq's fe-connect.c: an attempt for each address.
_ATTEMPT = re.compile(
    r"connection to server (?:on socket|at) .+? failed: (.+?)"
    r"(?=; Is the server running|; connection to server |; Multiple connection attempts failed|$)"
)


class SourceUnavailable(TransientError):
    """The server cannot be reached, is starting, stopping or full."""


class AuthenticationFailed(PermanentError):
    """The server refused the role, its password or the database."""


class ConnectionStringInvalid(PermanentError):
    """A connection string cannot be parsed."""


@dataclass(frozen=True)
class ConnectionInfo:
    """A parsed libpq connection string; its text forms never show a password."""

    parameters: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, dsn: "str | ConnectionInfo") -> Self:
        """Parse `key=value` words or a postgresql:// URL, completed from libpq's own environment variables.

        Raises ConnectionStringInvalid, whose text does not quote the string.
        """
        if isinstance(dsn, ConnectionInfo):
            return cls(dict(dsn.parameters))
        try:
            options = pq.Conninfo.parse(dsn.encode())
        except psycopg.Error:
            # libpq's message quotes parts of the string, perhaps of the password: it is not passed on.
            raise ConnectionStringInvalid(
                "the connection string cannot be parsed",
                hint="Write host=… dbname=… user=… or postgresql://user@host/dbname, quoted where needed.",
            ) from None
        found: dict[str, str] = {}
        for option in options:
            value = option.val.decode() if option.val is not None else None
            if value is None and option.envvar is not None:
                value = os.environ.get(option.envvar.decode())
            if value is not None:
                found[option.keyword.decode()] = value
        return cls(found)

    @property
    def host(self) -> str | None:
        """Host name or socket folder."""
        return self.parameters.get("host")

    @property
    def port(self) -> str | None:
        """Port, as written (several hosts may have several)."""
        return self.parameters.get("port")

    @property
    def user(self) -> str | None:
        """Role name."""
        return self.parameters.get("user")

    @property
    def database(self) -> str | None:
        """Database name; libpq takes the role's name when there is none."""
        return self.parameters.get("dbname") or self.parameters.get("user")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values to redact from whatever a program prints, as written and as in a URL."""
        plain = [value for key in _SECRET_KEYWORDS if (value := self.parameters.get(key))]
        return tuple(dict.fromkeys([*plain, *(quote(value, safe="") for value in plain)]))

    @property
    def dsn(self) -> str:
        """The connection string with its secrets, for psycopg only."""
        return make_conninfo("", **self.parameters)

    def with_database(self, name: str) -> Self:
        """The same server and role, another database."""
        return type(self)({**self.parameters, "dbname": name})

    def with_parameters(self, **parameters: str) -> Self:
        """The same connection with some libpq keywords replaced."""
        return type(self)({**self.parameters, **parameters})

    def redacted(self) -> str:
        """The connection string without its secrets."""
        shown = {key: "***" if key in _SECRET_KEYWORDS else value for key, value in self.parameters.items()}
        return make_conninfo("", **shown)

    def env(self) -> dict[str, str]:
        """The connection as environment variables for PostgreSQL's client programs."""
        if "sslpassword" in self.parameters:
            raise ConnectionStringInvalid(
                "PostgreSQL's programs cannot be given a sslpassword",
                hint="Use a client key without a passphrase, readable only by the account that runs backups.",
            )
        variables = {o.keyword.decode(): o.envvar.decode() for o in pq.Conninfo.get_defaults() if o.envvar}
        found = {variables[key]: value for key, value in self.parameters.items() if key in variables}
        return {"PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT_SECONDS), "PGAPPNAME": "lifeboat", **found}

    def __str__(self) -> str:
        return self.redacted()

    def __repr__(self) -> str:
        return f"ConnectionInfo({self.redacted()!r})"


def connect(
    dsn: str | ConnectionInfo,
    *,
    application_name: str = "lifeboat",
    autocommit: bool = False,
    lock_timeout_seconds: float = 0,
    connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS,
) -> psycopg.Connection[TupleRow]:
    """Open a connection whose session settings do not depend on the role's or the database's.

    `lock_timeout_seconds` 0 waits for ever. Raises SourceUnavailable, AuthenticationFailed,
    ConnectionStringInvalid.
    """
    info = ConnectionInfo.parse(dsn)
    name = application_name.encode()[:_APPLICATION_NAME_MAX_BYTES].decode("utf-8", "ignore")
    fixed = {
        "application_name": name,
        "client_encoding": "UTF8",
        "connect_timeout": str(connect_timeout_seconds),
    }
    text = make_conninfo("", **{**_KEEPALIVES, **info.parameters, **fixed})
    try:
        connection = psycopg.connect(text, autocommit=True)
    except psycopg.Error as error:
        raise connection_error(error, info) from None
    try:
        _fix_session(connection, lock_timeout_seconds)
        connection.autocommit = autocommit
    except psycopg.Error as error:
        connection.close()
        raise connection_error(error, info) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _fix_session(connection: psycopg.Connection[Any], lock_timeout_seconds: float) -> None:
    # search_path comes first: until it is fixed, any operator may be somebody else's.
    settings = {**_SESSION_SETTINGS, "lock_timeout": f"{round(lock_timeout_seconds * 1000)}ms"}
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        settings["transaction_timeout"] = "0"
    calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
    connection.execute(f"SELECT {calls}", [word for pair in settings.items() for word in pair])


def connection_error(error: psycopg.Error, info: ConnectionInfo) -> SourceUnavailable | AuthenticationFailed:
    """What a failed connection means: worth a retry or not; the password is taken out of the text."""
    said = _in_few_words("; ".join(line.strip() for line in str(error).splitlines() if line.strip()))
    for secret in info.secrets:
        said = said.replace(secret, "***")
    port = f", port {info.port}" if info.port else ""
    where = f"database {info.database or '(default)'} at {info.host or 'the default socket'}{port}"
    refused = error.sqlstate in {"28P01", "28000", "3D000", "42501"} or _REFUSED.search(said) is not None
    if refused or (error.pgconn is not None and error.pgconn.needs_password):
        return AuthenticationFailed(
            f"{where} refused the connection: {said}",
            hint="Check role, password and database in lifeboat.toml, and the server's pg_hba.conf.",
        )
    by_socket = not info.host or info.host.startswith(("/", "@"))
    hint = "has its socket there, on that port" if by_socket else "listens there, and that no firewall is in between"
    return SourceUnavailable(f"{where} cannot be reached: {said}", hint=f"Check that the server runs and {hint}.")


def _in_few_words(said: str) -> str:
    """libpq's message without what ours says beside it, place and question; all of it where attempts differ."""
    reasons = set(_ATTEMPT.findall(said))
    return reasons.pop() if len(reasons) == 1 else said


def server_version(connection: psycopg.Connection[Any]) -> str:
    """The server's version, such as "18.4" (the manifest's pg_version)."""
    number = connection.info.server_version
    return f"{number // 10000}.{number % 10000}"


def server_major(connection: psycopg.Connection[Any]) -> int:
    """The server's major version, such as 18."""
    return connection.info.server_version // 10000


def system_identifier(connection: psycopg.Connection[Any]) -> str:
    """The number that initdb gave the cluster: the same for all its copies."""
    return str(single_value(connection, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()"))


def current_timeline(connection: psycopg.Connection[Any]) -> int:
    """The timeline that WAL is written to, or replayed from on a standby."""
    # pg_control_checkpoint() lags behind a promotion until its checkpoint; the insert position does not.
    in_recovery = (
        "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)"
        " FROM pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_control_recovery() r"
    )
    if single_value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        return int(single_value(connection, in_recovery))
    segment = single_value(connection, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")
    return int(str(segment)[:8], 16)


def single_value(connection: psycopg.Connection[Any], query: LiteralString) -> Any:  # noqa: ANN401 - as SQL types go
    row = connection.execute(query).fetchone()
    return None if row is None else row[0]
