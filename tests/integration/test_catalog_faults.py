"""A catalog that is away, asleep, not migrated, read-only or closed to us: clear errors, no password in any."""

import socket
import time
from collections.abc import Callable

import pytest
from psycopg import sql

from lifeboat.catalog.database import Database
from lifeboat.catalog.migrate import current_revision, migrate
from lifeboat.catalog.store import Catalog, CatalogError, CatalogNotMigrated, CatalogRefused, CatalogUnavailable
from lifeboat.postgres.connections import ConnectionInfo, connect
from tests.support.catalog import record_completed, record_started
from tests.support.network import free_port

SECRET = "geheim/42"


def read_pooled(dsn: str) -> None:
    """Read through a pool."""
    with Catalog(dsn, pool_size=1) as catalog:
        catalog.audit.latest()


STORE_USES: dict[str, Callable[[str], object]] = {
    "ping": lambda dsn: Catalog(dsn).ping(),
    "read": lambda dsn: Catalog(dsn).backups.running(),
    "write": lambda dsn: record_completed(Catalog(dsn)),
    "pooled": read_pooled,
}
USES = {"migrate": migrate, "revision": current_revision, **STORE_USES}


def check(error: CatalogError, *, transient: bool) -> None:
    """It says whether to retry and what to do, and not the password, in no form."""
    assert error.transient is transient
    assert error.hint
    told, shown = str(error), repr(error)
    for form in (SECRET, "geheim%2F42", "geheim"):
        assert form not in told + shown


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_server_that_is_down_is_unavailable(use: Callable[[str], object]) -> None:
    with pytest.raises(CatalogUnavailable, match="cannot be reached") as caught:
        use(f"host=127.0.0.1 port={free_port()} dbname=catalog user=lifeboat password='{SECRET}'")

    check(caught.value, transient=True)


def test_a_server_that_never_answers_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        dsn = f"postgresql://lifeboat:geheim%2F42@127.0.0.1:{deaf.getsockname()[1]}/catalog"
        began = time.monotonic()
        with pytest.raises(CatalogUnavailable) as caught:
            record_started(Catalog(dsn, connect_timeout_seconds=2))

    check(caught.value, transient=True)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_role_that_the_server_does_not_know_is_refused(platform_dsn: str, use: Callable[[str], object]) -> None:
    info = ConnectionInfo.parse(platform_dsn).with_parameters(user="nobody_here", password=SECRET)

    with pytest.raises(CatalogRefused, match="nobody_here") as caught:
        use(info.dsn)

    check(caught.value, transient=False)


@pytest.mark.parametrize("use", STORE_USES.values(), ids=STORE_USES)
def test_a_database_without_the_tables_says_how_to_make_them(platform_dsn: str, use: Callable[[str], object]) -> None:
    with pytest.raises(CatalogNotMigrated) as caught:
        use(platform_dsn)

    check(caught.value, transient=False)
    assert caught.value.hint == "Run `lifeboat catalog migrate`."


def test_tables_of_an_older_version_say_how_to_upgrade_them(catalog: Catalog, platform_dsn: str) -> None:
    with connect(platform_dsn) as connection:
        connection.execute("UPDATE lifeboat.alembic_version SET version_num = '0000'")
    with pytest.raises(CatalogNotMigrated, match="revision 0000"):
        catalog.ping()

    with connect(platform_dsn) as connection:
        connection.execute("ALTER TABLE lifeboat.backups DROP COLUMN pinned")
    with pytest.raises(CatalogNotMigrated, match="pinned"):
        catalog.backups.running()


def test_a_read_only_catalog_is_worth_another_try(catalog: Catalog, platform_dsn: str) -> None:
    info = ConnectionInfo.parse(platform_dsn)
    with connect(info, autocommit=True) as connection:
        name = sql.Identifier(str(info.database))
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    reader = Catalog(platform_dsn)

    assert reader.backups.running() == []
    with pytest.raises(CatalogUnavailable, match="read-only") as caught:
        record_completed(reader)

    check(caught.value, transient=True)


def test_a_locked_table_is_waited_for_but_not_for_ever(catalog: Catalog, platform_dsn: str) -> None:
    with connect(platform_dsn) as other:
        other.execute("LOCK TABLE lifeboat.backups")
        with (
            pytest.raises(CatalogUnavailable, match="lock timeout") as caught,
            Database(platform_dsn, lock_timeout_seconds=0.2).begin() as connection,
        ):
            connection.exec_driver_sql("SELECT FROM lifeboat.backups")

    check(caught.value, transient=True)


def test_a_session_that_is_ended_fails_clearly_and_the_next_call_works(catalog: Catalog, platform_dsn: str) -> None:
    database = Database(platform_dsn, pool_size=1)

    with pytest.raises(CatalogUnavailable) as caught, database.begin() as connection:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    check(caught.value, transient=True)
    with database.begin() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()


def test_a_pooled_session_that_ended_unseen_is_replaced(catalog: Catalog, platform_dsn: str) -> None:
    catalog.ping()
    with connect(platform_dsn, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'lifeboat catalog'"
        )

    catalog.ping()
    assert record_completed(catalog)


def test_one_connection_serves_many_transactions_and_is_replaced_when_it_ends(
    catalog: Catalog, platform_dsn: str
) -> None:
    database = Database(platform_dsn)

    def session() -> object:
        with database.begin() as connection:
            return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

    with database.one_connection(), database.one_connection():
        first = session()
        assert session() == first
        with database.begin():
            assert session() != first  # a transaction in another one has its own
        with pytest.raises(CatalogUnavailable), database.begin() as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        second = session()
        assert second != first
        assert session() == second
    assert session() != second


def test_a_pool_that_is_used_up_is_unavailable(platform_dsn: str) -> None:
    database = Database(platform_dsn, pool_size=1, connect_timeout_seconds=2)

    with (
        database.begin(),
        pytest.raises(CatalogUnavailable, match="in use") as caught,
        database.begin(),
    ):
        pass

    check(caught.value, transient=True)
    database.close()


def test_a_role_without_rights_is_told_which(catalog: Catalog, platform_dsn: str) -> None:
    info = ConnectionInfo.parse(platform_dsn)
    role = f"reader_of_{info.database}"
    with connect(info, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        try:
            with pytest.raises(CatalogRefused, match="permission denied for schema lifeboat") as caught:
                Catalog(info.with_parameters(user=role)).backups.running()
        finally:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    check(caught.value, transient=False)
    assert role in str(caught.value.hint)


def test_no_connection_is_held_between_calls(catalog: Catalog, platform_dsn: str) -> None:
    catalog.close()
    plain = Catalog(platform_dsn)
    plain.ping()
    record_started(plain)

    with connect(platform_dsn) as connection:
        count = connection.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'lifeboat catalog'"
        ).fetchone()
    assert count == (0,)
