"""Takes pg_waldump's output as it comes, and counts what commits."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lifeboat.catalog.wal_values import IndexPoint, WalEvent
from lifeboat.wal.activity.buckets import Buckets
from lifeboat.wal.activity.notable import Judgement, database_event, judge, other_ddl_event, to_event
from lifeboat.wal.activity.records import (
    DELETED,
    UPDATED,
    OtherKey,
    Record,
    first_lsn,
    last_lsn,
    other_lines,
    simple_commit_time,
    to_datetime,
    to_record,
)
from lifeboat.wal.activity.relation_names import RelationNames
from lifeboat.wal.activity.row_changes import OTHER, Item, commit_line, commit_time, find_items
from lifeboat.wal.activity.steps import STORAGE, steps
from lifeboat.wal.activity.transactions import Counts, OpenTransactions, Work

# Small enough for the processor's cache, large enough that the work per chunk does not count.
_CHUNK_BYTES = 1024 * 1024
# A recovery target is read from the point before it: at most so much WAL, or a minute.
_POINT_BYTES = 2 * 1024 * 1024
# A point with more than this is not worth storing: an earlier one does, only slower.
_POINT_COUNTS = 5_000


class Landed(Exception):
    """All was read that a recovery target needs: up to the first change that committed after it."""


@dataclass(frozen=True)
class Landing:
    """The first end of a transaction after a recovery target: recovery stops before it.

    Until there `counts` rows and `commits` transactions had been counted in the buckets that begin with a text.
    """

    lsn: int
    counts: Counts
    commits: int


@dataclass
class Reading:
    """What the WAL up to `last_lsn`, the last record taken, says.

    With `stop_after` it raises Landed at the first change that commits after that time, and has `landing`; `bucket`
    is the beginning of the target's text that says which buckets matter there.
    """

    cluster: str
    timeline: int
    names: RelationNames
    transactions: OpenTransactions
    bulk_rows: int
    buckets: Buckets = field(default_factory=Buckets)
    last_lsn: int | None = None
    stop_after: bytes | None = None
    bucket: bytes = b""
    landing: Landing | None = None
    first_lost: bytes = b""
    events: list[WalEvent] = field(default_factory=list)
    points: list[IndexPoint] = field(default_factory=list)
    records: int = 0
    on_chunk: Callable[[], None] | None = None
    _blocks: list[bytes] = field(default_factory=list)
    _size_bytes: int = 0
    _point_lsn: int = 0
    _point_minute: bytes = b""

    def feed(self, block: bytes) -> None:
        """Take the next piece of output; raises Landed."""
        self._blocks.append(block)
        self._size_bytes += len(block)
        if self._size_bytes >= _CHUNK_BYTES:
            text = b"".join(self._blocks)
            whole = text.rfind(b"\n") + 1
            self._blocks, self._size_bytes = [text[whole:]], len(text) - whole
            self._take(text[:whole])

    def end(self) -> None:
        """The output has ended; a line without its end is not taken."""
        text = b"".join(self._blocks)
        self._blocks, self._size_bytes = [], 0
        self._take(text[: text.rfind(b"\n") + 1])

    def point(self) -> IndexPoint | None:
        """All that decoding needs to go on from here; None before the first time."""
        if self.last_lsn is None or not self.buckets.latest:
            return None
        latest_at = to_datetime(self.buckets.latest)
        return IndexPoint(self.last_lsn, latest_at, self.buckets.to_json(), self.transactions.to_json())

    def _take(self, chunk: bytes) -> None:
        # Decoding resumes at the last record that was taken: it comes again.
        first = first_lsn(chunk)
        if first is not None and first[0] == self.last_lsn:
            chunk = chunk[first[1] :]
        last = last_lsn(chunk)
        if last is None:
            return
        items = find_items(chunk)
        self.records += len(items)
        if self._is_mass_change(items):
            self.transactions.take_changes({items[0]: len(items)})
        else:
            self._take_mixed(chunk, items)
        self.last_lsn = last
        self.transactions.bound()
        self._consider_point()
        if self.on_chunk is not None:
            self.on_chunk()

    def _is_mass_change(self, items: list[Item]) -> bool:
        """Whether these are many records of a transaction on end that do the same."""
        if not items or items[0] != items[-1] or not items[0][1]:
            return False
        if items[0][1] == b"DELETE" and self.transactions.makers:
            return False  # of a single record: the one behind which nothing is copied any more
        return items.count(items[0]) == len(items)

    def _take_mixed(self, chunk: bytes, items: list[Item]) -> None:
        transactions, begin = self.transactions, 0
        if transactions.makers or (OTHER in items and STORAGE in chunk):
            for end, xid in steps(chunk, transactions.makers, transactions.is_pg_class):
                part = chunk[begin:end]
                self._take_together(part, find_items(part))
                if xid is not None:
                    transactions.end_copies(xid)
                begin = end
        self._take_together(chunk[begin:], find_items(chunk[begin:]) if begin else items)

    def _take_together(self, chunk: bytes, items: list[Item]) -> None:
        others = other_lines(chunk) if OTHER in items else None
        if simple := self._simple(items, others or ()):
            items = self._take_simple(simple, items)
        self.transactions.take_changes(Counter(items))
        if others is None:
            others = [commit_line(item) for item in items if item[3]]
        elif simple:
            others = [line for line in others if line[1] not in simple or simple_commit_time(line) is None]
        for line in others:
            self._take_other(to_record(line))

    def _simple(self, items: list[Item], others: Iterable[OtherKey]) -> dict[bytes, bytes]:
        """The transactions that can be counted together, with their times: most WAL is made of such.

        They begin and commit in one chunk, all within the current minute and before a landing, and do no more than
        change rows.
        """
        if self.landing is not None or not self.buckets.minute:
            return {}
        simple = {item[0]: commit_time(item[3]) for item in items if item[3]}
        newest = max(simple.values(), default=b"")
        for line in others:
            if line[0] == b"Transaction" and simple_commit_time(line) is None:
                newest = max(newest, to_record(line).time())
        another_minute = newest > self.buckets.latest and not newest.startswith(self.buckets.minute)
        if another_minute or (self.stop_after is not None and newest > self.stop_after):
            return {}
        for line in others:
            if line[0] == b"Storage":
                simple.pop(line[1], None)
        self.transactions.drop_known(simple)
        return simple

    def _take_simple(self, simple: dict[bytes, bytes], items: list[Item]) -> list[Item]:
        """Count the simple transactions; returns the items of all others and empties `simple` when there are none."""
        found = self.transactions.count_simple(items, simple, self.bulk_rows)
        if found is None:
            simple.clear()
            return items
        counts, xids = found
        self.buckets.tell_time(max(simple.values()))
        if xids:
            times = [simple[xid] for xid in xids]
            self.buckets.add_many(counts, len(xids), min(times), max(times))
        return [item for item in items if item[0] not in simple]

    def _take_other(self, record: Record) -> None:
        what = record.what
        if record.manager == b"Transaction":
            if what == b"ASSIGNMENT":
                self.transactions.take_assignment(record)
            elif what == b"PREPARE":
                self.transactions.prepare(record)
            else:
                self._take_end(record, committed=what.startswith(b"COMMIT"))
        elif record.manager == b"Storage":
            if what == b"CREATE":
                self.transactions.take_file(record)
            elif what == b"TRUNCATE":
                self.transactions.empty_file(record)
        elif record.manager == b"Database":
            if record.moves_database():
                return
            time = self.buckets.latest or b"1970-01-01 00:00:00.000000"
            event = to_event(self.cluster, self.timeline, record, time, *database_event(record, self.names))
            self.events.append(event)
        elif what == b"RUNNING_XACTS" and (oldest := record.oldest_running()) is not None:
            self.transactions.forget_before(oldest)
        elif what == b"CHECKPOINT_SHUTDOWN" and (next_xid := record.next_xid()) is not None:
            self.transactions.stop(next_xid)

    def _take_end(self, record: Record, *, committed: bool) -> None:
        time = record.time()
        if self.stop_after is not None and time > self.stop_after and self.landing is None:
            self.landing = Landing(record.lsn, *self.buckets.in_bucket(self.bucket))
        self.buckets.tell_time(time)
        work = self.transactions.end(record)
        if committed and (work.counts or work.ddl or work.created):
            self._count(record, time, work)

    def _count(self, record: Record, time: bytes, work: Work) -> None:
        if work.ddl or work.created or self._has_bulk_change(work):
            found = judge(record, work, self.names, to_datetime(time), self.bulk_rows)
            self._note(record, time, found)
        if work.counts or work.ddl:
            self.buckets.add(work.counts, time)
            if self.landing is not None:
                self.first_lost = time
                raise Landed

    def _note(self, record: Record, time: bytes, found: Judgement) -> None:
        for event in found.events:
            self.events.append(to_event(self.cluster, self.timeline, record, time, *event))
        if found.other_ddl:
            databases = [self.names.database(oid) if oid else "the cluster" for oid in found.other_ddl]
            self.events.append(other_ddl_event(self.cluster, self.timeline, record.lsn, self.buckets.minute, databases))

    def _has_bulk_change(self, work: Work) -> bool:
        return any(max(counts[UPDATED], counts[DELETED]) >= self.bulk_rows for counts in work.counts.values())

    def _consider_point(self) -> None:
        if self.last_lsn is None or self.transactions.size > _POINT_COUNTS:
            return
        if self.buckets.minute != self._point_minute or self.last_lsn - self._point_lsn >= _POINT_BYTES:
            point = self.point()
            if point is not None:
                self.points.append(point)
                self._point_lsn, self._point_minute = self.last_lsn, self.buckets.minute
