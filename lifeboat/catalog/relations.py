"""The rows of observed relation names: what a database's pg_class said, and until when."""

import dataclasses
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.wal_tables import RelationNames
from lifeboat.catalog.wal_values import RelationName

_COLUMNS = [getattr(RelationNames, field.name) for field in dataclasses.fields(RelationName)]
_KEY = [RelationNames.oid, RelationNames.relfilenode, RelationNames.name]
_IDENTITY = [RelationNames.cluster, RelationNames.database_oid, *_KEY]
_BATCH = 500


class RelationStore:
    """Reads and writes `relation_names`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def observe(self, cluster: str, database_oid: int, seen: Iterable[RelationName], at: datetime) -> int:
        """Take over the whole of one database's pg_class as of `at`; returns how many names are new, back or gone.

        What was seen before keeps its first time; what is no longer there is gone since `at`.
        """
        now = {(item.oid, item.relfilenode, item.name): item for item in seen}
        here = (RelationNames.cluster == cluster, RelationNames.database_oid == database_oid)
        with self._database.begin() as connection:
            present = select(*_KEY, RelationNames.database).where(*here, RelationNames.gone_at.is_(None))
            known = {(row[0], row[1], row[2]): row[3] for row in connection.execute(present)}
            new = [dataclasses.asdict(now[key]) for key in now if known.get(key) != now[key].database]
            statement = insert(RelationNames)
            statement = statement.on_conflict_do_update(
                index_elements=_IDENTITY,
                set_={"gone_at": None, "database": statement.excluded.database, "kind": statement.excluded.kind},
            )
            for first in range(0, len(new), _BATCH):
                connection.execute(statement, new[first : first + _BATCH])
            gone = sorted(known.keys() - now.keys())
            for first in range(0, len(gone), _BATCH):
                which = tuple_(*_KEY).in_(gone[first : first + _BATCH])
                values = {"gone_at": func.greatest(RelationNames.observed_at, at)}
                connection.execute(update(RelationNames).where(*here, which).values(values))
        return len(new) + len(gone)

    def present_databases(self, cluster: str) -> set[int]:
        """The OIDs of databases that have names which are not gone."""
        statement = select(RelationNames.database_oid).distinct()
        statement = statement.where(RelationNames.cluster == cluster, RelationNames.gone_at.is_(None))
        with self._database.begin() as connection:
            return {int(row[0]) for row in connection.execute(statement)}

    def remove(self, cluster: str, gone_before: datetime) -> None:
        """Forget the names that were gone before a time: no WAL that can be restored speaks of their files."""
        statement = delete(RelationNames).where(
            RelationNames.cluster == cluster, RelationNames.gone_at.is_not(None), RelationNames.gone_at < gone_before
        )
        with self._database.begin() as connection:
            connection.execute(statement)

    def names(self, cluster: str) -> list[RelationName]:
        """All that was observed of a cluster and not removed since, the oldest first."""
        statement = select(*_COLUMNS).where(RelationNames.cluster == cluster).order_by(RelationNames.observed_at)
        with self._database.begin() as connection:
            return [RelationName(**row._mapping) for row in connection.execute(statement)]
