"""What pg_waldump of PostgreSQL 15 to 18 says of transactions and files: whole chunks of text at once."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from lifeboat.wal.names import parse_lsn

# The others (indexes, clog, …) say nothing about rows; pg_waldump leaves them out.
MANAGERS = ("Heap", "Heap2", "Transaction", "Storage", "Standby", "XLOG", "Database")

# (manager, transaction, position, operation, description) of another record
OtherKey = tuple[bytes, bytes, bytes, bytes, bytes]

# Lengths are padded to six places: those of long records touch what is before them.
HEAD = rb"len \(rec/tot\): +\d+/ *\d+, tx: ([ \d]{10}), lsn: "
_OTHER = re.compile(
    rb"rmgr: (Transaction|Storage|Standby|XLOG|Database) +" + HEAD + rb"([0-9A-F/]+), prev [^,]+, "
    rb"desc: (COMMIT_PREPARED|ABORT_PREPARED|COMMIT|ABORT|PREPARE|ASSIGNMENT|RUNNING_XACTS|CHECKPOINT_SHUTDOWN"
    rb"|CREATE\w*|DROP|TRUNCATE)\b(.*)"
)
_LSN = re.compile(rb"rmgr: \w+ +" + HEAD + rb"([0-9A-F]+/[0-9A-F]+)")
_TIME = re.compile(rb"(\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC")
_TOP = re.compile(rb" *(\d+): ")
_ASSIGNED = re.compile(rb" *xtop (\d+): subxacts:([ \d]+)")
_SUBTRANSACTIONS = re.compile(rb"subxacts:([ \d]+)")
_NUMBER = re.compile(rb"\d+")
_OLDEST = re.compile(rb"oldestRunningXid (\d+)")
_NEXT = re.compile(rb"; xid \d+:(\d+)")
_DROPPED_FILES = re.compile(rb"; rels:((?: [^ ;]+)+)")
# A main fork: `base/5/16384`, `pg_tblspc/16500/PG_15_202209061/5/16384`. Of an unlogged relation WAL has no other than
# `…_init`, which no other relation has.
_FILE = re.compile(rb"(?:base|pg_tblspc/(\d+)/PG_\w+)/(\d+)/(\d+)(?:_init)?(?=[ ;]|$)")
# pgstat_kind 2 is a relation: `2/5/16384`
_DROPPED_RELATION = re.compile(rb"\b2/(\d+)/(\d+)\b")
_INVALIDATED = re.compile(rb"relcache (\d+)")
# `copy dir 1663/1 to 1663/16384`, `create dir 1663/16384`, `dir 1663/16384 16500/16384`
_DATABASE = re.compile(rb"\d+/(\d+)")
_EMPTIED = re.compile(rb" to 0 blocks flags \d*[13579]\b")

_SIMPLE_BYTES = len(" 2026-11-22 10:00:00.123456 UTC")

INSERTED, UPDATED, DELETED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Record:
    """A record that is no change of rows; `text` is its description behind the first word."""

    manager: bytes
    xid: int
    lsn_text: bytes
    what: bytes
    text: bytes

    @property
    def lsn(self) -> int:
        """Where it begins."""
        return parse_lsn(self.lsn_text.decode())

    def time(self) -> bytes:
        """When the transaction ended, `2026-11-22 10:00:00.123456`; such texts sort by time."""
        found = _TIME.search(self.text)
        return found[1] if found else b""

    def transaction(self) -> int:
        """The transaction that ends: a prepared one's number is in the text."""
        found = _TOP.match(self.text) if self.what.endswith(b"_PREPARED") else None
        return int(found[1]) if found else self.xid

    def subtransactions(self) -> Iterator[int]:
        """Those that a commit or an abort takes along: possibly millions."""
        found = _SUBTRANSACTIONS.search(self.text)
        return (int(xid[0]) for xid in _NUMBER.finditer(self.text, *found.span(1))) if found else iter(())

    def assignment(self) -> tuple[int, list[int]]:
        """A transaction and some of its subtransactions."""
        found = _ASSIGNED.match(self.text)
        return (int(found[1]), [int(xid) for xid in found[2].split()]) if found else (0, [])

    def oldest_running(self) -> int | None:
        """Of RUNNING_XACTS: every transaction before this one has ended."""
        found = _OLDEST.search(self.text)
        return int(found[1]) if found else None

    def next_xid(self) -> int | None:
        """Of a checkpoint: the next transaction's number."""
        found = _NEXT.search(self.text)
        return int(found[1]) if found else None

    def file(self) -> tuple[int, int] | None:
        """Of Storage CREATE and TRUNCATE: the file, None for a fork that only goes with another."""
        found = _FILE.search(self.text)
        return (int(found[2]), int(found[3])) if found else None

    def tablespace(self) -> int:
        """Of Storage CREATE: where the file is made; 0 for the database's own folder."""
        found = _FILE.search(self.text)
        return int(found[1] or 0) if found else 0

    def has_emptied(self) -> bool:
        """Of Storage TRUNCATE: whether a transaction, no VACUUM, left no rows; flags are odd with the main fork."""
        return self.xid != 0 and _EMPTIED.search(self.text) is not None

    def dropped_files(self) -> dict[tuple[int, int], int]:
        """Of a commit: the files that go with it, and the tablespace of each as in `tablespace`."""
        found = _DROPPED_FILES.search(self.text)
        return {(int(a), int(b)): int(space or 0) for space, a, b in _FILE.findall(found[1])} if found else {}

    def dropped_relations(self) -> set[tuple[int, int]]:
        """Of a commit: (database, OID) of the relations whose definition goes with it."""
        _, found, rest = self.text.partition(b"; dropped stats:")
        return {(int(a), int(b)) for a, b in _DROPPED_RELATION.findall(rest.partition(b";")[0])} if found else set()

    def invalidated(self) -> list[int]:
        """Of a commit: the OIDs of relations whose definition it changed, in order, each once."""
        return list(dict.fromkeys(int(oid) for oid in _INVALIDATED.findall(self.text)))

    def database(self) -> int:
        """Of CREATE and DROP of a database: which one."""
        found = _DATABASE.findall(self.text)
        return int(found[-1]) if found else 0

    def moves_database(self) -> bool:
        """Whether it is half of ALTER DATABASE SET TABLESPACE: a copy of itself, or a folder that goes by itself."""
        if self.what == b"DROP":
            return self.xid == 0
        found = _DATABASE.findall(self.text)
        return len(found) > 1 and found[0] == found[-1]


def other_lines(chunk: bytes) -> list[OtherKey]:
    """The records of whole lines that tell about transactions and files, in the order of WAL, not looked into yet."""
    return _OTHER.findall(chunk)


def to_record(line: OtherKey) -> Record:
    """A line of `other_lines`, to be looked into."""
    manager, xid, lsn, what, text = line
    return Record(manager, int(xid), lsn, what, text)


def other_records(chunk: bytes) -> Iterator[Record]:
    """The records of whole lines that tell about transactions and files, in the order of WAL."""
    return map(to_record, other_lines(chunk))


def simple_commit_time(line: OtherKey) -> bytes | None:
    """When a transaction committed of which the record says no more than that; None for all others."""
    text = line[4]
    is_simple = line[3] == b"COMMIT" and len(text) == _SIMPLE_BYTES and text.endswith(b" UTC")
    return text[1:-4] if is_simple else None


def first_lsn(chunk: bytes) -> tuple[int, int] | None:
    """The position of the record in the first line and that line's length; None for a line that is no record."""
    found = _LSN.match(chunk)
    return (parse_lsn(found[2].decode()), chunk.index(b"\n") + 1) if found else None


def last_lsn(chunk: bytes) -> int | None:
    """The position of the record in the last line."""
    found = _LSN.match(chunk, chunk.rfind(b"\n", 0, len(chunk) - 1) + 1)
    return parse_lsn(found[2].decode()) if found else None


def to_datetime(time: bytes) -> datetime:
    """The moment that `Record.time` or a beginning of it says."""
    return datetime.fromisoformat(time.decode()).replace(tzinfo=UTC)


def from_datetime(at: datetime) -> bytes:
    """The text that `Record.time` would have for a moment."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f").encode()
