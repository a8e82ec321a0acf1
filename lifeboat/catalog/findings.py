"""The rows of what asset checks found: opened once, seen again, closed when the file is sound or healed."""

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.dialects.postgresql import Insert, insert

from lifeboat.catalog.database import Database
from lifeboat.catalog.pages import DEFAULT_LIMIT, Listing, Page
from lifeboat.catalog.tables import AssetFinding
from lifeboat.catalog.values import AssetProblem, FindingRow, SeenFinding

LISTING = Listing(AssetFinding, FindingRow, "first_seen_at")
_OPEN = AssetFinding.closed_at.is_(None)
_BATCH = 500


class FindingStore:
    """Reads and writes `asset_findings`. Raises CatalogError's subclasses only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def upsert_open(self, findings: Iterable[SeenFinding], seen_at: datetime) -> int:
        """Open findings, or see them again where they are open; all or none, however many. Returns how many."""
        seen, statement = iter(findings), _open_or_see_again()
        count = 0
        with self._database.begin() as connection:
            while batch := [_row(finding, seen_at) for finding in islice(seen, _BATCH)]:
                connection.execute(statement, batch)
                count += len(batch)
        return count

    def close(self, identifiers: Sequence[UUID], at: datetime) -> int:
        """Close findings by id, those that are open; returns how many."""
        return self._close(AssetFinding.id.in_(identifiers), at)

    def close_unseen(self, since: datetime, at: datetime) -> int:
        """Close what a complete check that began at `since` has not seen again; returns how many."""
        return self._close(AssetFinding.last_seen_at < since, at)

    def list_open(
        self, problem: AssetProblem | None = None, *, limit: int = DEFAULT_LIMIT, cursor: str | None = None
    ) -> Page[FindingRow]:
        """A page of open findings, the newest first; raises CursorInvalid."""
        conditions = [_OPEN] if problem is None else [_OPEN, AssetFinding.finding == problem]
        with self._database.begin() as connection:
            return LISTING.read(connection, conditions, limit, cursor)

    def count_open(self) -> dict[AssetProblem, int]:
        """How many findings of each kind are open; kinds without any are left out."""
        statement = select(AssetFinding.finding, func.count()).where(_OPEN).group_by(AssetFinding.finding)
        with self._database.begin() as connection:
            return {finding: count for finding, count in connection.execute(statement)}

    def _close(self, which: ColumnElement[bool], at: datetime) -> int:
        with self._database.begin() as connection:
            return connection.execute(update(AssetFinding).where(_OPEN, which).values(closed_at=at)).rowcount


def _row(finding: SeenFinding, seen_at: datetime) -> dict[str, Any]:
    return {**dataclasses.asdict(finding), "id": uuid4(), "first_seen_at": seen_at, "last_seen_at": seen_at}


def _open_or_see_again() -> Insert:
    statement = insert(AssetFinding)
    new = statement.excluded
    said = {field.name: new[field.name] for field in dataclasses.fields(SeenFinding)}
    same = AssetFinding.finding == new["finding"]
    return statement.on_conflict_do_update(
        index_elements=[AssetFinding.path, AssetFinding.asset_id],
        index_where=_OPEN,
        set_={
            **said,
            "first_seen_at": case((same, AssetFinding.first_seen_at), else_=new["first_seen_at"]),
            "last_seen_at": func.greatest(AssetFinding.last_seen_at, new["last_seen_at"]),
        },
    )
