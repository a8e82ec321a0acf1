"""What a restore undoes, table by table and object by object: pure, from the index, its events, and what is known of
row counts.

WAL has no row counts for DROP, TRUNCATE and rewrites: there it is the last known count, moved on by what the index
counted since, and marked estimated.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from lifeboat.catalog.wal_values import RelationFile, RelationName, WalEvent
from lifeboat.wal.activity.notable import EventKind
from lifeboat.wal.activity.preview import Undone
from lifeboat.wal.activity.relation_names import RelationNames, file_text
from lifeboat.wal.activity.transactions import Counts

_INSERTED, _DELETED = 0, 2
_WITHOUT_COUNTS = frozenset({EventKind.DROP, EventKind.TRUNCATE, EventKind.REWRITE, EventKind.REPLACED})
_ORDER = {kind.value: number for number, kind in enumerate(EventKind)}
_OF_ROWS = frozenset({EventKind.BULK_DELETE, EventKind.BULK_UPDATE})
_EMPTYING = frozenset({EventKind.TRUNCATE, EventKind.REPLACED})


class Change(StrEnum):
    """What becomes of an object in a restore."""

    COMES_BACK = "comes back"
    GOES = "goes"
    CHANGES_BACK = "changes back"
    REPLACED = "replaced since: the earlier one comes back"


@dataclass(frozen=True)
class TableUndone:
    """One table: rows inserted, updated and deleted since the target, which a restore takes back.

    `events` are what happened to it as a whole. Where WAL does not tell how many rows that concerned, `rows_at_target`
    is how many it had, estimated; None when no count is known.
    """

    database: str
    table: str
    inserted_rows: int = 0
    updated_rows: int = 0
    deleted_rows: int = 0
    events: tuple[str, ...] = ()
    estimated: bool = False
    rows_at_target: int | None = None


@dataclass(frozen=True)
class ObjectUndone:
    """A table or database that comes back, goes, or gets its former definition again; `at` is when that was done.

    One that was replaced by another of its name has both events, `drop, create`, and the time of the first.
    """

    change: Change
    database: str
    name: str
    event: str
    at: datetime


@dataclass(frozen=True)
class LastCounts:
    """The newest row counts before a target: of one database, at one moment, by `schema.table`.

    `since` is what the index counted from about then on.
    """

    database: str
    taken_at: datetime
    rows: Mapping[str, int]
    since: Counts = field(default_factory=dict)


@dataclass(frozen=True)
class Knowledge:
    """What row counts are estimated from. `ever` is all that the index has counted, `events` all that it has noted."""

    names: RelationNames
    at: datetime
    counted: LastCounts | None
    ever: Counts
    events: Sequence[WalEvent]


def tables_undone(undone: Undone, knowledge: Knowledge) -> tuple[TableUndone, ...]:
    """What is undone of each table, by database and name."""
    found: dict[tuple[str, str], TableUndone] = {}
    for item in undone.relations:
        key = (item.database, item.relation)
        # A table and the one that was made under its name later are one line, as their events are.
        table = found.get(key, TableUndone(*key))
        found[key] = replace(
            table,
            inserted_rows=table.inserted_rows + item.inserted_rows,
            updated_rows=table.updated_rows + item.updated_rows,
            deleted_rows=table.deleted_rows + item.deleted_rows,
        )
    for event, kind, entry in _entries(undone.events):
        name = _name(knowledge.names, entry, event.at)
        if kind in _OF_ROWS or (name is not None and not name.is_counted):
            continue
        database = knowledge.names.database(entry["database_oid"])
        key = (database, _latest_text(knowledge.names, entry, name))
        table = found.get(key, TableUndone(*key))
        table = replace(table, events=tuple(dict.fromkeys((*table.events, kind.value))))
        if kind in _WITHOUT_COUNTS and not table.estimated and (name is None or name.kind != "p"):
            table = replace(table, estimated=True, rows_at_target=_rows_at_target(undone, knowledge, entry, name))
        found[key] = table
    return tuple(found[key] for key in sorted(found))


def objects_undone(undone: Undone, names: RelationNames) -> tuple[ObjectUndone, ...]:
    """Which objects come back, go, or get their former definition: what was made and dropped since does neither.

    A name that one object lost and another one got since is one line, of the object that gets it back.
    """
    events = list(_entries(undone.events))
    made = {_identity(entry) for _, kind, entry in events if kind in {EventKind.CREATE, EventKind.CREATE_DATABASE}}
    gone = {_identity(entry) for _, kind, entry in events if kind in {EventKind.DROP, EventKind.DROP_DATABASE}}
    found: dict[tuple[str, str], dict[Change, ObjectUndone]] = {}
    for event, kind, entry in events:
        change = _CHANGES.get(kind)
        identity, name = _identity(entry), _name(names, entry, event.at)
        if change is None or (identity in made and identity in gone) or (name is not None and not name.is_counted):
            continue
        if change is Change.CHANGES_BACK and (identity in made or identity in gone):
            continue
        text = name.name if name is not None else entry["name"]
        database = names.database(entry["database_oid"])
        if change is Change.COMES_BACK and _has_successor(names, identity, text, event.at):
            change = Change.REPLACED
        mine = found.setdefault((database, text), {})
        mine.setdefault(change, ObjectUndone(change, database, text, kind.value, event.at))
    return tuple(item for mine in found.values() for item in _without_contradiction(list(mine.values())))


def _has_successor(names: RelationNames, dropped: tuple[int, int], text: str, at: datetime) -> bool:
    """Whether another relation has the name now: WAL does not tell that a partitioned table was made."""
    there = names.there_now(dropped[0], text)
    return there is not None and there.oid != dropped[1] and there.observed_at > at


def _without_contradiction(of_name: list[ObjectUndone]) -> list[ObjectUndone]:
    changes = {item.change for item in of_name}
    if Change.REPLACED not in changes and (len(of_name) < 2 or Change.GOES not in changes):
        return of_name
    # Of a partitioned table that was made, WAL tells as of one that was altered.
    events = ", ".join(dict.fromkeys(item.event for item in of_name if item.change is not Change.CHANGES_BACK))
    return [replace(of_name[0], change=Change.REPLACED, event=events)]


_CHANGES = {
    EventKind.DROP: Change.COMES_BACK,
    EventKind.DROP_DATABASE: Change.COMES_BACK,
    EventKind.CREATE: Change.GOES,
    EventKind.CREATE_DATABASE: Change.GOES,
    EventKind.DDL: Change.CHANGES_BACK,
}


def _entries(events: Iterable[WalEvent]) -> Iterator[tuple[WalEvent, EventKind, Mapping[str, Any]]]:
    # Of one commit: what was dropped before what was made in its place.
    for event in sorted(events, key=lambda each: (each.at, _ORDER[each.detail_json["event"]])):
        for entry in event.detail_json.get("relations", ()):
            yield event, EventKind(event.detail_json["event"]), entry


def _identity(entry: Mapping[str, Any]) -> tuple[int, int]:
    """New relations have their OID as relfilenode, so that one which was never observed is known again."""
    return entry["database_oid"], entry["oid"] or entry["relfilenode"]


def _name(names: RelationNames, entry: Mapping[str, Any], at: datetime) -> RelationName | None:
    """The relation, which may have been observed only after the event was noted."""
    if entry["oid"] is not None:
        return names.of_oid(entry["database_oid"], entry["oid"], at)
    return names.of_file((entry["database_oid"], entry["relfilenode"]), at)


def _latest_text(names: RelationNames, entry: Mapping[str, Any], name: RelationName | None) -> str:
    """The name under which its counts are shown."""
    if name is None:
        return str(entry["name"] or file_text((entry["database_oid"], entry["relfilenode"])))
    latest = names.of_oid(name.database_oid, name.oid)
    return latest.name if latest is not None else name.name


def _rows_at_target(
    undone: Undone, knowledge: Knowledge, entry: Mapping[str, Any], name: RelationName | None
) -> int | None:
    """The rows that a table had at the target, from the newest count before it and what was counted since."""
    file: RelationFile = (entry["database_oid"], entry["relfilenode"])
    own = {file} if name is None else {file} | knowledge.names.files_of(name.database_oid, name.oid)
    counted = knowledge.counted
    emptied = _last_event(knowledge, own, entry, _EMPTYING)
    made = _last_event(knowledge, own, entry, frozenset({EventKind.CREATE}))
    if counted is not None and name is not None and counted.database == name.database:
        rows = counted.rows.get(name.name)
        # Else what was counted under its name was in another table, or is gone.
        is_same = all(at is None or at < counted.taken_at for at in (emptied, made))
        if rows is not None and is_same:
            return max(0, rows + _net(counted.since, own) - _net(undone.files, own))
    if emptied is not None and not file[1]:
        return None  # which file it had then was never observed
    if emptied is not None or made is not None:
        # Its file began empty where the index could see it: all that is in it was counted.
        mine = {file} if emptied is not None else own
        return max(0, _net(knowledge.ever, mine) - _net(undone.files, mine))
    return None


def _last_event(
    knowledge: Knowledge, own: set[RelationFile], entry: Mapping[str, Any], kinds: frozenset[EventKind]
) -> datetime | None:
    """When such an event last happened to the table before the target."""
    times = [
        event.at
        for event, kind, other in _entries(knowledge.events)
        if kind in kinds and event.at <= knowledge.at and _is_same(own, entry, other)
    ]
    return max(times, default=None)


def _is_same(own: set[RelationFile], entry: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return (other["database_oid"], other["relfilenode"]) in own or (
        entry["oid"] is not None and _identity(other) == _identity(entry)
    )


def _net(counts: Mapping[RelationFile, Sequence[int]], files: set[RelationFile]) -> int:
    return sum(counts[file][_INSERTED] - counts[file][_DELETED] for file in files if file in counts)
