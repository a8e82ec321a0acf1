"""Annotations: what was happening at a moment, for whoever looks for one to restore to."""

import dataclasses
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.tables import Annotation
from lifeboat.catalog.values import AnnotationKind, AnnotationRow

_COLUMNS = [getattr(Annotation, field.name) for field in dataclasses.fields(AnnotationRow)]


class AnnotationStore:
    """Reads and writes `annotations`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, row: AnnotationRow) -> bool:
        """Add an annotation; False when one with its id was there already."""
        values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
        statement = insert(Annotation).values(values).on_conflict_do_nothing().returning(Annotation.id)
        with self._database.begin() as connection:
            return connection.execute(statement).first() is not None

    def remove(self, cluster: str, identities: Collection[UUID]) -> int:
        """Remove annotations of a cluster; returns how many were there."""
        statement = delete(Annotation).where(Annotation.cluster == cluster, Annotation.id.in_(list(identities)))
        with self._database.begin() as connection:
            return len(connection.execute(statement.returning(Annotation.id)).fetchall())

    def ids(self, cluster: str, kinds: Collection[AnnotationKind]) -> set[UUID]:
        """The ids of all annotations of these kinds."""
        statement = select(Annotation.id).where(Annotation.cluster == cluster, Annotation.kind.in_(list(kinds)))
        with self._database.begin() as connection:
            return {row[0] for row in connection.execute(statement)}

    def between(
        self,
        cluster: str,
        kinds: Collection[AnnotationKind],
        start: datetime | None,
        end: datetime | None,
        *,
        limit: int,
    ) -> list[AnnotationRow]:
        """The last `limit` annotations of these kinds from `start` to `end`, both included, the oldest first."""
        statement = select(*_COLUMNS).where(Annotation.cluster == cluster, Annotation.kind.in_(list(kinds)))
        if start is not None:
            statement = statement.where(Annotation.at >= start)
        if end is not None:
            statement = statement.where(Annotation.at <= end)
        statement = statement.order_by(Annotation.at.desc(), Annotation.id.desc()).limit(limit)
        with self._database.begin() as connection:
            return [AnnotationRow(**row._mapping) for row in connection.execute(statement)][::-1]
