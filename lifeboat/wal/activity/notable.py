"""What a committed transaction did to whole relations: drop, empty, rewrite, define, or change many rows.

A commit lists the files and the definitions (dropped statistics) that go with it. A file whose relation stays was
replaced: by an empty one (TRUNCATE), or, in a rewrite (VACUUM FULL, CLUSTER, ALTER TABLE, REFRESH), by the file of a
transient relation that was made and dropped in the same transaction, while its file stays. SET TABLESPACE makes a file
in another tablespace. New relations have the OID as relfilenode.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from lifeboat.catalog.wal_values import RelationFile, RelationName, WalEvent
from lifeboat.wal.activity.records import DELETED, UPDATED, Record, to_datetime
from lifeboat.wal.activity.relation_names import RelationNames, file_text
from lifeboat.wal.activity.transactions import Work
from lifeboat.wal.names import format_lsn

_NAMESPACE = UUID("6c696665-626f-6174-8000-77616c000000")
_NAMES_TOLD = 5
_TABLES = frozenset("rmp")


class EventKind(StrEnum):
    """The kinds of notable events, as their annotations' detail names them."""

    DROP = "drop"
    TRUNCATE = "truncate"
    REWRITE = "rewrite"
    REPLACED = "replaced"
    CREATE = "create"
    DDL = "ddl"
    BULK_DELETE = "bulk-delete"
    BULK_UPDATE = "bulk-update"
    CREATE_DATABASE = "create-database"
    DROP_DATABASE = "drop-database"


_TEXTS = {
    EventKind.DROP: "DROP of {}",
    EventKind.TRUNCATE: "TRUNCATE of {}",
    EventKind.REWRITE: "rewrite (VACUUM FULL, CLUSTER, ALTER TABLE or REFRESH) of {}",
    EventKind.REPLACED: "TRUNCATE or rewrite of {}",
    EventKind.CREATE: "CREATE of {}",
    EventKind.DDL: "DDL on {}",
    EventKind.BULK_DELETE: "DELETE of {rows:,} rows from {}",
    EventKind.BULK_UPDATE: "UPDATE of {rows:,} rows of {}",
    EventKind.CREATE_DATABASE: "CREATE DATABASE {}",
    EventKind.DROP_DATABASE: "DROP DATABASE {}",
}
# By the count that is large.
_BULK = {DELETED: EventKind.BULK_DELETE, UPDATED: EventKind.BULK_UPDATE}


@dataclass(frozen=True, slots=True)
class Affected:
    """A relation that an event is about, as far as it is known; relfilenode 0: without a file of its own."""

    text: str
    database_oid: int
    relfilenode: int
    oid: int | None


@dataclass
class Judgement:
    """The events of one commit."""

    events: list[tuple[EventKind, list[Affected], int]] = field(default_factory=list)
    other_ddl: set[int] = field(default_factory=set)


def judge(record: Record, work: Work, names: RelationNames, at: datetime, bulk_rows: int) -> Judgement:
    """What the commit `record` of a transaction that did `work` means.

    Takes out of `work` what was copied into rewritten tables, or is gone again.
    """
    found = Judgement()
    dropped_files, dropped = record.dropped_files(), record.dropped_relations()
    made = set(work.created)
    brief = made & dropped_files.keys()
    rewritten = (made & dropped) - brief
    if rewritten:
        # Rows of a brief file may live on in the next one: those of a table that was made here, or rewritten before.
        rewritten |= brief & dropped
    else:
        for file in brief:
            work.counts.pop(file, None)
    for file in rewritten:
        work.leave_out_copies(file)
    old_files = {file: space for file, space in dropped_files.items() if file not in made}
    groups = _lost(old_files, dropped, work, rewritten, names, at)
    kept = sorted((made - rewritten) if rewritten else (made - brief))
    created = [(file, names.of_file(file, at) or names.of_oid(*file, at)) for file in kept]
    groups[EventKind.CREATE] = [
        _affected(name) for file, name in created if name and name.is_counted and name.oid == file[1]
    ]
    found.events = [(kind, affected, 0) for kind, affected in groups.items() if affected]
    if work.ddl and not found.events:
        _judge_ddl(found, record, work, names, at)
    for file, counts in work.counts.items():
        for column, kind in _BULK.items():
            if counts[column] >= bulk_rows:
                name = names.of_file(file, at)
                affected = [_affected(name) if name else Affected(file_text(file), *file, None)]
                found.events.append((kind, affected, counts[column]))
    return found


def _lost(  # noqa: PLR0913 - all that one commit says of files
    old_files: dict[RelationFile, int],
    dropped: set[RelationFile],
    work: Work,
    swapped: set[RelationFile],
    names: RelationNames,
    at: datetime,
) -> dict[EventKind, list[Affected]]:
    """Tables that were dropped, emptied or rewritten; of unknown ones only if no known one explains them."""
    groups: dict[EventKind, list[Affected]] = {EventKind.DROP: [], EventKind.TRUNCATE: [], EventKind.REWRITE: []}
    spaces = set(work.created.values())
    unknown: dict[EventKind, list[Affected]] = {EventKind.DROP: [], EventKind.REPLACED: []}
    seen: set[tuple[int, int]] = set()
    for file, space in old_files.items():
        name = names.of_file(file, at)
        if name is None:
            kind = EventKind.DROP if file in dropped or not work.created else EventKind.REPLACED
            unknown[kind].append(Affected(file_text(file), *file, None))
        elif name.is_counted:
            seen.add((name.database_oid, name.oid))
            replaced = EventKind.REWRITE if swapped or space not in spaces else EventKind.TRUNCATE
            kind = EventKind.DROP if (name.database_oid, name.oid) in dropped else replaced
            groups[kind].append(_affected(name))
    unseen_file = any(names.of_file(file, at) is None for file in old_files)
    for database_oid, oid in sorted(dropped - seen):
        # Partitioned tables have no file; the newest file of another may never have been observed.
        known = names.of_oid(database_oid, oid, at)
        if known is not None and known.is_counted and (known.kind == "p" or unseen_file):
            groups[EventKind.DROP].append(Affected(known.name, database_oid, 0, oid))
    if not any(groups.values()) and not any(names.of_file(file, at) for file in old_files):
        groups |= unknown
    return groups


def _judge_ddl(found: Judgement, record: Record, work: Work, names: RelationNames, at: datetime) -> None:
    for database_oid in sorted(work.ddl):
        known = [names.of_oid(database_oid, oid, at) for oid in record.invalidated()]
        tables = [_affected(name) for name in known if name and name.kind in _TABLES and name.is_counted]
        if tables:
            found.events.append((EventKind.DDL, tables, 0))
    if not found.events:
        found.other_ddl = set(work.ddl)


def database_event(record: Record, names: RelationNames) -> tuple[EventKind, list[Affected], int]:
    """The event of a record that makes or drops a database."""
    oid = record.database()
    kind = EventKind.DROP_DATABASE if record.what == b"DROP" else EventKind.CREATE_DATABASE
    return kind, [Affected(names.database(oid), oid, 0, None)], 0


def to_event(  # noqa: PLR0913 - where, when and what
    cluster: str,
    timeline: int,
    record: Record,
    time: bytes,
    kind: EventKind,
    affected: list[Affected],
    rows: int,
) -> WalEvent:
    """An event as the catalog stores it: all relations in the detail, the first in the text.

    The same record and kind give the same id.
    """
    texts = list(dict.fromkeys(item.text for item in affected))
    relations = ", ".join(texts[:_NAMES_TOLD])
    if len(texts) > _NAMES_TOLD:
        relations += f" and {len(texts) - _NAMES_TOLD} more"
    text = _TEXTS[kind].format(relations, rows=rows)
    detail = {
        "event": kind,
        "timeline": timeline,
        "lsn": format_lsn(record.lsn),
        "xid": record.transaction(),
        "rows": rows,
        "relations": [
            {"name": item.text, "database_oid": item.database_oid, "relfilenode": item.relfilenode, "oid": item.oid}
            for item in affected
        ],
    }
    identity = f"{cluster}/{timeline}/{record.lsn}/{kind}/{affected[0].text if affected else ''}"
    return WalEvent(uuid5(_NAMESPACE, identity), to_datetime(time), text, detail)


def other_ddl_event(cluster: str, timeline: int, lsn: int, minute: bytes, databases: Iterable[str]) -> WalEvent:
    """DDL on nothing that has a name here (functions, views, roles, temporary tables): one event a minute.

    The catalog keeps the first of a minute.
    """
    where = ", ".join(sorted(databases))
    identity = f"{cluster}/{timeline}/{minute.decode()}/other-ddl/{where}"
    detail = {"event": EventKind.DDL, "timeline": timeline, "lsn": format_lsn(lsn), "relations": []}
    text = f"other DDL (functions, views, roles, temporary tables, …) in {where}"
    return WalEvent(uuid5(_NAMESPACE, identity), to_datetime(minute), text, detail)


def _affected(name: RelationName) -> Affected:
    return Affected(name.name, name.database_oid, name.relfilenode, name.oid)
