"""Transactions that have not ended yet: what they did so far, carried over from one stretch of WAL to the next.

Transaction numbers have 32 bits and are used again. That cannot confuse: of those kept here the server's
RUNNING_XACTS (written with each checkpoint and every 15 s of activity) names the oldest that can still run, older ones
(compared modulo 2^32, as the server does) are forgotten, and the server never has numbers in use that are 2^31 apart.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from lifeboat.catalog.wal_values import RelationFile
from lifeboat.wal.activity.records import DELETED, INSERTED, UPDATED, Record
from lifeboat.wal.activity.row_changes import Item, change_of, xid_text

_XID_MASK = 0xFFFFFFFF
_XID, _WITHOUT_XID = itemgetter(0), itemgetter(1, 2)
_FIRST_USER_OBJECT = 16384
_PG_CLASS = 1259
# They change without DDL: statistics with their TOAST, large objects, who depends on those, the state of subscriptions.
_DATA_CATALOGS = frozenset((2619, 2840, 3429, 3430, 2613, 2995, 1214, 6102))
# Some hundred bytes each: a transaction with very many subtransactions must not take all memory.
MAX_OPEN_COUNTS = 100_000
# Few differ but those of COPY, which list where rows lie.
_MOST_CHANGES = 10_000

Counts = dict[RelationFile, list[int]]
_NO_FILES: Mapping[RelationFile, int] = MappingProxyType({})
_NO_COUNTS: Mapping[RelationFile, list[int]] = MappingProxyType({})


@dataclass(slots=True)
class Work:
    """What one transaction or subtransaction did: rows per relation file, files made, catalogs written (databases).

    Very many subtransactions can be open, and few of them make files: what is about these is made when it is needed.
    """

    counts: Counts = field(default_factory=dict)
    _created: dict[RelationFile, int] | None = None
    _copied: Counts | None = None
    _ddl: set[int] | None = None

    @property
    def created(self) -> Mapping[RelationFile, int]:
        """The files that it made, with the tablespace of each, 0 for the database's own folder."""
        return self._created or _NO_FILES

    @property
    def copied(self) -> Mapping[RelationFile, list[int]]:
        """The counts, in files that it made, that were copies of rows if the file is that of a rewritten table."""
        return self._copied or _NO_COUNTS

    @property
    def ddl(self) -> Collection[int]:
        """The databases in whose catalogs it wrote; 0 for the shared ones."""
        return self._ddl or ()

    def create(self, files: Mapping[RelationFile, int]) -> None:
        """Note files that it made, and their tablespaces."""
        if self._created is None:
            self._created = {}
        self._created.update(files)

    def copy(self, files: Counts) -> None:
        """Note what was counted of files that it made while rows were copied into them."""
        if self._copied is None:
            self._copied = {}
        self._copied.update(files)

    def leave_out_copies(self, file: RelationFile) -> None:
        """The file is that of a rewritten table: what was copied into it was not inserted."""
        counts = self.counts.get(file)
        if counts is not None:
            copied = self.copied.get(file, [counts[INSERTED], 0, 0])
            for column, rows in enumerate(copied):
                counts[column] -= rows
            if not any(counts):
                del self.counts[file]

    def define(self, *databases: int) -> None:
        """Note databases in whose catalogs it wrote."""
        if self._ddl is None:
            self._ddl = set()
        self._ddl.update(databases)

    def add(self, other: "Work") -> None:
        """Take over what another one did."""
        for file, (inserted, updated, deleted) in other.counts.items():
            mine = self.counts.setdefault(file, [0, 0, 0])
            mine[0] += inserted
            mine[1] += updated
            mine[2] += deleted
        if other.created:
            self.create(other.created)
        if other.copied:
            self.copy({**other.copied})
        if other.ddl:
            self.define(*other.ddl)


class OpenTransactions:
    """The open and prepared transactions at one place in WAL.

    `hidden` are files whose rows are not counted (TOAST, our own tables); `catalogs` says which files of user numbers
    are catalogs: those that VACUUM FULL moved. `makers` are transactions with the files that they have made and may
    still be copying rows into.
    """

    def __init__(
        self, hidden: Collection[RelationFile] = (), catalogs: Mapping[RelationFile, int] | None = None
    ) -> None:
        self._work: dict[int, Work] = {}
        self._prepared: set[int] = set()
        self._parents: dict[int, int] = {}
        self.makers: dict[int, set[RelationFile]] = {}
        self._hidden, self._catalogs = frozenset(hidden), dict(catalogs or {})
        self._changes: dict[tuple[bytes, bytes], _Change] = {}
        self.approximate = False

    def take_changes(self, items: Mapping[Item, int]) -> None:
        """Add what changes of rows say, each so many times; other items are left out."""
        work = self._work
        for (number, operation, argument, _), times in items.items():
            if not operation:
                continue
            change = self._change(operation, argument)
            if change.file is None and change.ddl_database is None:
                continue
            xid = int(number)
            mine = work.get(xid)
            if mine is None:
                mine = work[xid] = Work()
            if change.file is None:
                mine.define(change.ddl_database or 0)
            elif change.rows:
                counts = mine.counts.get(change.file)
                if counts is None:
                    counts = mine.counts[change.file] = [0, 0, 0]
                counts[change.column] += change.rows * times

    def count_simple(
        self, items: Sequence[Item], simple: Collection[bytes], bulk_rows: int
    ) -> tuple[Counts, set[bytes]] | None:
        """What all transactions in `simple` together changed, and which of them changed something.

        They have begun and committed among these items. None when they have to be looked at one by one: some may
        have written catalogs, taken back a speculative insert, or deleted or updated many rows.
        """
        mine = [item for item in items if item[1] and item[0] in simple]
        counts: Counts = {}
        hidden: set[tuple[bytes, bytes]] = set()
        has_bulk = False
        for (operation, argument), times in Counter(map(_WITHOUT_XID, mine)).items():
            change = self._change(operation, argument)
            if change.file is None and change.ddl_database is None:
                hidden.add((operation, argument))
                continue
            if change.file is None or not change.rows:
                return None
            found = counts.setdefault(change.file, [0, 0, 0])
            found[change.column] += change.rows * times
            has_bulk = has_bulk or max(found[UPDATED], found[DELETED]) >= bulk_rows
        if hidden:
            mine = [item for item in mine if item[1:3] not in hidden]
        # All together often change so many rows, one of them seldom does: each record deletes or updates one row.
        if has_bulk and max(Counter(map(_XID, mine)).values()) >= bulk_rows:
            return None
        return counts, set(map(_XID, mine))

    def drop_known(self, simple: dict[bytes, bytes]) -> None:
        """Take out those that have begun before."""
        if len(self._work) < len(simple):
            for xid in self._work:
                simple.pop(xid_text(xid), None)
        else:
            for text in [text for text in simple if int(text) in self._work]:
                del simple[text]

    def take_file(self, record: Record) -> None:
        """A transaction made a file."""
        file = record.file()
        if file is not None and record.xid:
            self._work.setdefault(record.xid, Work()).create({file: record.tablespace()})
            self.makers.setdefault(record.xid, set()).add(file)

    def end_copies(self, xid: int) -> None:
        """Whatever that transaction's new files hold by now was copied, if they are those of rewritten tables."""
        files, work = self.makers.pop(xid, ()), self._work.get(xid)
        if work is not None:
            work.copy({file: [*work.counts.get(file, (0, 0, 0))] for file in files})

    def empty_file(self, record: Record) -> None:
        """A file was emptied that the transaction made: with subtransactions, but nobody else has put rows into it."""
        file = record.file()
        if file is None or not record.has_emptied():
            return
        for work in self._work.values():
            work.counts.pop(file, None)
            if file in work.copied:
                work.copy({file: [0, 0, 0]})

    def is_pg_class(self, file: RelationFile) -> bool:
        """Whether it is a file of pg_class."""
        return file[1] == _PG_CLASS or self._catalogs.get(file) == _PG_CLASS

    def take_assignment(self, record: Record) -> None:
        """Some subtransactions belong to a transaction."""
        top, children = record.assignment()
        self._parents.update((child, top) for child in children)

    def end(self, record: Record) -> Work:
        """A transaction, or a subtransaction, ended with those of its children that it takes along: what they did."""
        total = Work()
        for xid in chain((record.transaction(),), record.subtransactions()):
            self._prepared.discard(xid)
            self._parents.pop(xid, None)
            self.makers.pop(xid, None)
            mine = self._work.pop(xid, None)
            if mine is not None:
                total.add(mine)
        return total

    def prepare(self, record: Record) -> None:
        """A transaction survives the end of its session, and of the server."""
        self._prepared.add(record.xid)
        self._prepared.update(xid for xid in record.subtransactions() if xid in self._work)

    def forget_before(self, oldest: int) -> None:
        """Everything before this number has ended; what has not told so died with its server."""
        self._keep(xid for xid in self._known() if (xid - oldest) & _XID_MASK < 1 << 31)

    def stop(self, next_xid: int) -> None:
        """The server has stopped before this number: of the earlier ones only prepared transactions live on."""
        prepared = set(self._prepared)
        self._keep(xid for xid in self._known() if xid in prepared or (xid - next_xid) & _XID_MASK < 1 << 31)

    def bound(self) -> None:
        """Keep memory bounded: subtransactions of which there are too many count for their transaction.

        Then one that is rolled back later can no longer be told apart; `approximate` says that it happened. Whose they
        are is not needed again: the end of a transaction lists all that end with it, with what they do from here on.
        """
        if self.size <= MAX_OPEN_COUNTS:
            return
        for child, top in self._parents.items():
            mine = self._work.pop(child, None)
            if mine is not None:
                self._work.setdefault(top, Work()).add(mine)
                self.approximate = True
                if child in self.makers:
                    self.makers.setdefault(top, set()).update(self.makers.pop(child))
        self._parents.clear()

    @property
    def size(self) -> int:
        """How many numbers are kept."""
        return len(self._parents) + sum(1 + len(work.counts) + len(work.created) for work in self._work.values())

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "work": {str(xid): _work_to_json(work) for xid, work in self._work.items()},
            "prepared": sorted(self._prepared),
            "parents": {str(child): top for child, top in self._parents.items()},
        }

    def load(self, stored: Mapping[str, Any]) -> None:
        """Go on from what `to_json` gave."""
        self._work = {int(xid): _work_from_json(work) for xid, work in stored.get("work", {}).items()}
        self._prepared = set(stored.get("prepared", ()))
        self._parents = {int(child): top for child, top in stored.get("parents", {}).items()}
        filling = {xid: work.created.keys() - work.copied.keys() for xid, work in self._work.items() if work.created}
        self.makers = {xid: files for xid, files in filling.items() if files}

    def _known(self) -> set[int]:
        return self._work.keys() | self._parents.keys() | self._prepared

    def _keep(self, xids: Iterable[int]) -> None:
        kept = set(xids)
        self._work = {xid: work for xid, work in self._work.items() if xid in kept}
        self._parents = {child: top for child, top in self._parents.items() if child in kept}
        self._prepared &= kept
        self.makers = {xid: files for xid, files in self.makers.items() if xid in kept}

    def _change(self, operation: bytes, argument: bytes) -> "_Change":
        change = self._changes.get((operation, argument))
        if change is None:
            if len(self._changes) >= _MOST_CHANGES:
                self._changes.clear()
            change = self._changes[operation, argument] = self._classify(operation, argument)
        return change

    def _classify(self, operation: bytes, argument: bytes) -> "_Change":
        change, file = change_of(operation, argument)
        column, rows = change or (0, 0)
        catalog = file[1] if file[1] < _FIRST_USER_OBJECT else self._catalogs.get(file)
        if catalog is not None:
            return _Change(None, None if catalog in _DATA_CATALOGS else file[0])
        return _Change(None if file in self._hidden else file, None, column, rows)


@dataclass(frozen=True, slots=True)
class _Change:
    """What one kind of record does: to which count how many rows are added, or in which database's catalogs it wrote.

    Neither `file` nor `ddl_database`: it does not matter. No `rows`: it has begun to change some.
    """

    file: RelationFile | None
    ddl_database: int | None
    column: int = 0
    rows: int = 0


def _work_to_json(work: Work) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if work.counts:
        found["rows"] = [[*file, *counts] for file, counts in work.counts.items()]
    if work.created:
        found["created"] = [[*file, space] for file, space in sorted(work.created.items())]
    if work.copied:
        found["copied"] = [[*file, *counts] for file, counts in sorted(work.copied.items())]
    if work.ddl:
        found["ddl"] = sorted(work.ddl)
    return found


def _work_from_json(stored: Mapping[str, Any]) -> Work:
    work = Work({(row[0], row[1]): list(row[2:5]) for row in stored.get("rows", ())})
    if created := stored.get("created"):
        work.create({(row[0], row[1]): row[2] for row in created})
    if copied := stored.get("copied"):
        work.copy({(row[0], row[1]): list(row[2:5]) for row in copied})
    if ddl := stored.get("ddl"):
        work.define(*ddl)
    return work
