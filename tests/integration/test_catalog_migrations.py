"""Migrations on a real server: from nothing, again, by two at once, and equal to the tables in the code."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from lifeboat.catalog import migrate as migrate_module
from lifeboat.catalog.database import Database
from lifeboat.catalog.errors import CatalogRefused, CatalogUnavailable
from lifeboat.catalog.migrate import Migration, current_revision, head_revision, migrate
from lifeboat.catalog.store import Catalog
from lifeboat.catalog.tables import REVISION, SCHEMA, Base
from lifeboat.postgres.connections import ConnectionInfo, connect
from tests.support.catalog import numbered, record_completed

COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation
FROM information_schema.columns WHERE table_schema = 'lifeboat' AND table_name <> 'alembic_version'
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'lifeboat'::regnamespace AND conrelid::regclass::text !~ 'alembic'
"""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'lifeboat' AND tablename <> 'alembic_version'"
MIGRATE = "import sys; from lifeboat.catalog.migrate import migrate; print(migrate(sys.argv[1]).changed)"


def shape(dsn: str) -> list[list[tuple[object, ...]]]:
    """Columns, constraints and indexes of the schema, as the server describes them."""
    with connect(dsn) as connection:
        return [sorted(connection.execute(query), key=str) for query in (COLUMNS, CONSTRAINTS, INDEXES)]


def test_an_empty_database_is_migrated_once_and_then_left_alone(platform_dsn: str) -> None:
    assert current_revision(platform_dsn) is None

    assert migrate(platform_dsn) == Migration(None, head_revision())
    before = shape(platform_dsn)
    again = migrate(platform_dsn)

    assert not again.changed
    assert current_revision(platform_dsn) == head_revision()
    assert shape(platform_dsn) == before
    with Catalog(platform_dsn) as catalog:
        catalog.ping()


def test_every_supported_server_takes_the_migrations(each_database: str) -> None:
    assert migrate(each_database).changed
    assert not migrate(each_database).changed
    with Catalog(each_database) as catalog:
        for number in (1, 1, 2):
            assert record_completed(catalog, number)
        assert [found.id for found in catalog.backups.list_backups(limit=1).rows] == [numbered(2)]


def test_two_processes_migrate_at_once_and_one_does_it(platform_dsn: str) -> None:
    argv = [sys.executable, "-c", MIGRATE, platform_dsn]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [(each.communicate(timeout=60), each.returncode) for each in both]

    assert [code for _, code in said] == [0, 0], said
    assert sorted(output.strip() for (output, _), _ in said) == ["False", "True"]
    assert current_revision(platform_dsn) == head_revision()


def test_a_migration_waits_for_another_one_and_says_so_when_it_takes_too_long(
    platform_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "_LOCK_TIMEOUT_SECONDS", 0.2)
    with connect(platform_dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [int.from_bytes(b"lifeboat", "big")])
        with pytest.raises(CatalogUnavailable, match="lock timeout"):
            migrate(platform_dsn)

    assert current_revision(platform_dsn) is None


def test_a_migration_that_fails_leaves_nothing(platform_dsn: str) -> None:
    with connect(platform_dsn) as connection:
        # The last table of the migration is in the way.
        connection.execute("CREATE SCHEMA lifeboat")
        connection.execute("CREATE TABLE lifeboat.audit_log (id int)")

    with pytest.raises(CatalogRefused, match='relation "audit_log" already exists'):
        migrate(platform_dsn)

    assert current_revision(platform_dsn) is None
    with connect(platform_dsn) as connection:
        assert connection.execute("SELECT to_regclass('lifeboat.backups')").fetchone() == (None,)
        connection.execute("DROP TABLE lifeboat.audit_log")
    assert migrate(platform_dsn).changed


def test_the_migrations_make_the_tables_of_the_code(platform_dsn: str) -> None:
    migrate(platform_dsn)
    with Database(platform_dsn).begin() as connection:
        options = {
            "version_table_schema": SCHEMA,
            "include_schemas": True,
            "include_name": lambda name, kind, parents: kind != "schema" or name == SCHEMA,
            "compare_type": True,
            "compare_server_default": True,
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_server_describes_both_alike_constraints_included(platform_dsn: str) -> None:
    migrate(platform_dsn)
    migrated = shape(platform_dsn)
    with Database(platform_dsn).begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA lifeboat CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA lifeboat")
        Base.metadata.create_all(connection)

    assert shape(platform_dsn) == migrated


def test_tables_of_a_newer_version_are_not_touched(platform_dsn: str) -> None:
    migrate(platform_dsn)
    with connect(platform_dsn) as connection:
        connection.execute("UPDATE lifeboat.alembic_version SET version_num = '9999'")

    with pytest.raises(CatalogRefused, match="revision 9999") as caught:
        migrate(platform_dsn)

    assert caught.value.hint is not None
    assert "upgrade" in caught.value.hint
    with Catalog(platform_dsn) as catalog:
        catalog.ping()  # migrations only add: an older worker goes on while others are upgraded
        assert catalog.backups.running() == []


def test_a_role_that_owns_the_schema_needs_no_right_to_create_one(platform_dsn: str) -> None:
    info = ConnectionInfo.parse(platform_dsn)
    role = f"owner_of_{info.database}"
    with connect(info, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            as_role = info.with_parameters(user=role)
            with pytest.raises(CatalogRefused, match="permission denied") as caught:
                migrate(as_role)
            assert caught.value.hint is not None
            assert role in caught.value.hint

            connection.execute(f"CREATE SCHEMA lifeboat AUTHORIZATION {role}".encode())
            assert migrate(as_role).changed
            assert not migrate(as_role).changed
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_the_migrations_are_found_below_a_path_with_a_percent_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "50% off"
    folder.mkdir()
    (folder / "migrations").symlink_to(Path(migrate_module.__file__).parent / "migrations")
    monkeypatch.setattr(migrate_module, "__file__", str(folder / "migrate.py"))

    assert head_revision() == REVISION
