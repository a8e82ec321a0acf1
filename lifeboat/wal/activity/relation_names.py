"""What the files in WAL are called, from what was observed of pg_class; and the observing."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from lifeboat.catalog.store import Catalog
from lifeboat.catalog.wal_values import RelationFile, RelationName

_CATALOG_SCHEMA = "pg_catalog."

# Not temporary ones, whose changes are not in WAL. What the index leaves out has to be known too, else it could not
# be told from a table that was never observed; of catalogs those that a rewrite gave a number of the users' range.
_RELATIONS = """
SELECT coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint, c.oid::bigint, n.nspname || '.' || c.relname,
       c.relkind::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'p', 't', 'i', 'S') AND c.relpersistence <> 't'
  AND (c.oid >= 16384 OR pg_catalog.pg_relation_filenode(c.oid) >= 16384)
"""
_HERE = """
SELECT d.oid::bigint, d.datname::text, pg_catalog.clock_timestamp()
FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
"""


def observe_relations(connection: psycopg.Connection[Any], catalog: Catalog, cluster: str) -> int:
    """Take pg_class of the connected database into the catalog; returns how many names are new, back or gone.

    The index names relations from it, so it is worth calling often: a table that was never seen keeps its numbers.
    Raises CatalogError and psycopg.Error.
    """
    with connection.cursor(row_factory=tuple_row) as cursor:
        here = cursor.execute(_HERE).fetchone()
        if here is None:
            raise RuntimeError("the connection has no database")
        database_oid, database, at = here
        rows = cursor.execute(_RELATIONS).fetchall()
    seen = [RelationName(cluster, database, database_oid, row[0], row[1], row[2], row[3], at) for row in rows]
    return catalog.relations.observe(cluster, database_oid, seen, at)


class RelationNames:
    """What was observed, by file and by OID."""

    def __init__(self, observed: Iterable[RelationName]) -> None:
        self._by_file: defaultdict[RelationFile, list[RelationName]] = defaultdict(list)
        self._by_oid: defaultdict[tuple[int, int], list[RelationName]] = defaultdict(list)
        self._there: dict[tuple[int, str], RelationName] = {}
        self._databases: dict[int, str] = {}
        for item in sorted(observed, key=lambda name: name.observed_at):
            self._by_file[item.database_oid, item.relfilenode].append(item)
            self._by_oid[item.database_oid, item.oid].append(item)
            self._databases[item.database_oid] = item.database
            if item.gone_at is None:
                self._there[item.database_oid, item.name] = item

    def of_file(self, file: RelationFile, at: datetime | None = None) -> RelationName | None:
        """Whose file it is: as of a time, or the latest."""
        return _as_of(self._by_file.get(file, []), at) if file[1] else None

    def of_oid(self, database_oid: int, oid: int, at: datetime | None = None) -> RelationName | None:
        """The relation with an OID: as of a time, or the latest."""
        return _as_of(self._by_oid.get((database_oid, oid), []), at)

    def there_now(self, database_oid: int, name: str) -> RelationName | None:
        """The relation that had a name, `schema.table`, when it was last looked; None where none had it."""
        return self._there.get((database_oid, name))

    def files_of(self, database_oid: int, oid: int) -> set[RelationFile]:
        """All files that a relation was seen with."""
        return {(database_oid, item.relfilenode) for item in self._by_oid.get((database_oid, oid), [])}

    def database(self, database_oid: int) -> str:
        """A database's name; its OID when it was never observed."""
        return self._databases.get(database_oid, str(database_oid))

    @property
    def hidden(self) -> set[RelationFile]:
        """Files that the index leaves out."""
        return {file for file, known in self._by_file.items() if not known[-1].is_counted}

    @property
    def catalogs(self) -> dict[RelationFile, int]:
        """Files of catalogs, with their OIDs."""
        return {
            file: known[-1].oid for file, known in self._by_file.items() if known[-1].name.startswith(_CATALOG_SCHEMA)
        }


def file_text(file: RelationFile) -> str:
    """What a relation is called that was never observed: database OID and relfilenode, `16384/16390`."""
    return f"{file[0]}/{file[1]}"


def _as_of(known: list[RelationName], at: datetime | None) -> RelationName | None:
    if not known:
        return None
    if at is None:
        return max(known, key=lambda item: (item.gone_at is None, item.observed_at))
    before = [item for item in known if item.observed_at <= at]
    there = [item for item in before if item.gone_at is None or item.gone_at > at]
    # Seen late: the first time is nearest. Gone meanwhile: the last time is.
    return (there or before or known[:1])[-1]
