"""Connection strings: parsed as libpq does, passed on without their password."""

import pickle

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from lifeboat.postgres.connections import (
    AuthenticationFailed,
    ConnectionInfo,
    ConnectionStringInvalid,
    SourceUnavailable,
    connection_error,
)

_PASSWORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSSLMODE", "PGCONNECT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "dsn",
    [
        "host=db.example port=5433 dbname=studio user=lifeboat password='a b' sslmode=require",
        "postgresql://lifeboat:a%20b@db.example:5433/studio?sslmode=require",
    ],
)
def test_both_forms_become_the_same_environment(dsn: str) -> None:
    assert ConnectionInfo.parse(dsn).env() == {
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGDATABASE": "studio",
        "PGUSER": "lifeboat",
        "PGPASSWORD": "a b",
        "PGSSLMODE": "require",
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "lifeboat",
    }


def test_the_environment_completes_the_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGUSER", "from-environment")
    monkeypatch.setenv("PGHOST", "not-this-one")

    info = ConnectionInfo.parse("host=here")

    assert (info.host, info.user, info.database) == ("here", "from-environment", "from-environment")


def test_another_database_of_the_same_server() -> None:
    info = ConnectionInfo.parse("postgresql://me:secret@db/studio").with_database("postgres")

    assert info.database == "postgres"
    assert info.parameters["password"] == "secret"


@given(password=_PASSWORDS)
def test_the_password_survives_and_is_in_no_text(password: str) -> None:
    info = ConnectionInfo.parse(make_conninfo("", host="h", user="u", password=password))

    assert info.env()["PGPASSWORD"] == password
    assert ConnectionInfo.parse(info.dsn) == info == pickle.loads(pickle.dumps(info))
    assert password in info.secrets
    # A short password may be part of an innocent word.
    shown = ConnectionInfo.parse(make_conninfo("", host="h", user="u", password="***"))
    assert info.redacted() == str(info) == shown.redacted()
    assert repr(info) == repr(shown)


def test_a_password_as_it_stands_in_a_url_is_a_secret_too() -> None:
    assert ConnectionInfo.parse("postgresql://u:p%40ss@h/d").secrets == ("p@ss", "p%40ss")


@pytest.mark.parametrize("dsn", ["hunter2", "postgresql://u:hunter2@[h/d", "host=h password='hunter2"])
def test_an_unreadable_string_is_not_quoted(dsn: str) -> None:
    with pytest.raises(ConnectionStringInvalid, match="cannot be parsed") as caught:
        ConnectionInfo.parse(dsn)

    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_passphrase_that_no_program_can_be_given_is_refused() -> None:
    with pytest.raises(ConnectionStringInvalid, match="sslpassword"):
        ConnectionInfo.parse("host=h sslpassword=x").env()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ('FATAL:  password authentication failed for user "u"', AuthenticationFailed),
        ('FATAL:  Peer authentication failed for user "u"', AuthenticationFailed),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "u"', AuthenticationFailed),
        ('FATAL:  role "u" does not exist', AuthenticationFailed),
        ('FATAL:  database "d" does not exist', AuthenticationFailed),
        ("fe_sendauth: no password supplied", AuthenticationFailed),
        ("FATAL:  the database system is starting up", SourceUnavailable),
        ("FATAL:  sorry, too many clients already", SourceUnavailable),
        ('could not translate host name "db" to address', SourceUnavailable),
    ],
)
def test_a_refusal_is_permanent_and_an_absence_is_not(said: str, kind: type[Exception]) -> None:
    error = connection_error(psycopg.OperationalError(said), ConnectionInfo.parse("host=h password=hunter2"))

    assert type(error) is kind
    assert error.transient is (kind is SourceUnavailable)
    assert said in str(error)
    assert error.hint


_SOCKET = 'connection to server on socket "/x/.s.PGSQL.5432" failed:'
_SIX = 'connection to server at "localhost" (::1), port 5432 failed:'
_FOUR = 'connection to server at "localhost" (127.0.0.1), port 5432 failed:'
_ASKED = "\tIs the server running on that host and accepting TCP/IP connections?"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            f"connection is bad: {_SOCKET} No such file or directory\n\tIs the server running locally and accepting?",
            "cannot be reached: No such file or directory",
        ),
        (
            f"connection failed: {_SIX} Connection refused\n{_ASKED}\n{_FOUR} Connection refused\n{_ASKED}",
            "cannot be reached: Connection refused",
        ),
        (
            f"{_SIX} Network is unreachable\n{_FOUR} timeout expired",
            f"cannot be reached: {_SIX} Network is unreachable; {_FOUR} timeout expired",
        ),
        (f"{_SOCKET} FATAL:  the database system is shutting down", "reached: FATAL:  the database system is shutting"),
    ],
)
def test_a_server_that_is_away_is_told_in_few_words(said: str, told: str) -> None:
    error = connection_error(psycopg.OperationalError(said), ConnectionInfo.parse("host=h port=5433 dbname=d"))

    assert type(error) is SourceUnavailable
    assert str(error.message).startswith("database d at h, port 5433 cannot be reached: ")
    assert told in error.message
    assert "Is the server" not in error.message


def test_a_server_that_quotes_the_password_is_redacted() -> None:
    error = connection_error(psycopg.OperationalError("bad hunter2"), ConnectionInfo.parse("password=hunter2"))

    assert "hunter2" not in str(error)


@pytest.mark.parametrize(("dsn", "firewall"), [("host=/run/postgresql", False), ("dbname=x", False), ("host=db", True)])
def test_only_a_server_behind_a_network_has_a_firewall(dsn: str, firewall: bool) -> None:
    error = connection_error(psycopg.OperationalError("Connection refused"), ConnectionInfo.parse(dsn))
    assert ("firewall" in str(error.hint)) is firewall
