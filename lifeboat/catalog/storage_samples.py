"""The rows of how full the destinations were."""

import dataclasses
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog import tables
from lifeboat.catalog.database import Database
from lifeboat.catalog.values import StorageSample

_COLUMNS = [getattr(tables.StorageSample, field.name) for field in dataclasses.fields(StorageSample)]


class StorageSampleStore:
    """Reads and writes `storage_samples`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, sample: StorageSample) -> None:
        """Add a sample, or replace the one of the same destination and time."""
        values = dataclasses.asdict(sample)
        statement = insert(tables.StorageSample).values(values)
        keys = [tables.StorageSample.destination, tables.StorageSample.taken_at]
        changes = {name: statement.excluded[name] for name in values if name not in {key.key for key in keys}}
        with self._database.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))

    def since(self, destination: str, since: datetime) -> list[StorageSample]:
        """The samples of a destination from a time on, the oldest first."""
        table = tables.StorageSample
        statement = (
            select(*_COLUMNS).where(table.destination == destination, table.taken_at >= since).order_by(table.taken_at)
        )
        with self._database.begin() as connection:
            return [StorageSample(**row._mapping) for row in connection.execute(statement)]
