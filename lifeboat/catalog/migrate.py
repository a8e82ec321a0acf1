"""Creates and upgrades the catalog's tables with Alembic; the migrations are package data."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from lifeboat.catalog.database import CONNECT_TIMEOUT_SECONDS, Database
from lifeboat.catalog.errors import CatalogRefused
from lifeboat.catalog.tables import SCHEMA
from lifeboat.postgres.connections import ConnectionInfo

_LOCK_TIMEOUT_SECONDS = 60
# One advisory lock for all who migrate: the key is the eight letters of our name.
_LOCK_KEY = int.from_bytes(b"lifeboat", "big")


@dataclass(frozen=True)
class Migration:
    """The revisions before and after; `before` is None for a database without a catalog."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after


def migrate(dsn: str | ConnectionInfo, *, connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS) -> Migration:
    """Bring the catalog to this version's tables, in one transaction; whoever else migrates waits.

    Raises CatalogUnavailable (also when a table stays locked for a minute), CatalogRefused.
    """
    database = Database(
        dsn, connect_timeout_seconds=connect_timeout_seconds, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS
    )
    with database.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        _create_schema(connection)
        before = _revision(connection)
        _refuse_newer(before)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return Migration(before, head_revision())


def current_revision(
    dsn: str | ConnectionInfo, *, connect_timeout_seconds: int = CONNECT_TIMEOUT_SECONDS
) -> str | None:
    """The revision of the catalog's tables, None where there are none.

    Raises CatalogUnavailable, CatalogRefused.
    """
    with Database(dsn, connect_timeout_seconds=connect_timeout_seconds).begin() as connection:
        return _revision(connection)


def head_revision() -> str:
    """The revision that this version of Lifeboat needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise RuntimeError("the package has no migrations")
    return head


def _config() -> Config:
    config = Config()
    # Alembic reads the option through configparser, for which a percent sign is special.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    return config


def _create_schema(connection: Connection) -> None:
    # IF NOT EXISTS wants the right to create a schema even where it exists.
    if not connection.execute(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}).scalar():
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()


def _refuse_newer(revision: str | None) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is not None and revision not in known:
        raise CatalogRefused(
            f"the catalog's tables are of revision {revision}, which this Lifeboat does not know",
            hint="A newer Lifeboat has migrated them: upgrade this one too.",
        )
