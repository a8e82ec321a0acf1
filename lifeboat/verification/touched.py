"""Which tables a range of WAL may have changed, read with pg_waldump of the server's major version."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from lifeboat import commands
from lifeboat.errors import PermanentError
from lifeboat.postgres.binaries import PgTools
from lifeboat.verification.comparison import UNKNOWN_CATALOG
from lifeboat.wal.names import format_lsn, is_segment_size, parse_lsn, segment_at, segment_before

# What stands for "DDL was committed, nothing tells on what": no relation has these numbers.
UNKNOWN_RELATION = (0, 0)

# A chunk's text is about as large as its WAL.
_CHUNK_BYTES = 64 * 1024 * 1024
_PAGE_BYTES = 8192
_PAGE_HEADER_BYTES, _FIRST_PAGE_HEADER_BYTES = 24, 40
_FIRST_USER_RELATION = 16384

# Of each record's line: resource manager, transaction, position, and the first word of its description.
_RECORD = re.compile(
    r"rmgr: (\S+) +len \(rec/tot\): *\d+/ *\d+, tx: +(\d+), lsn: ([0-9A-F/]+), prev [0-9A-F/]+, desc: ([A-Z_0-9]*)"
)
# It begins with plain letters, for which `re` looks several times faster than for a word boundary.
_BLOCK = re.compile(r"rel \d+/(\d+)/(\d+)")
_FILE = re.compile(r"\b(?:base|pg_tblspc/\d+/PG_\w+)/(\d+)/(\d+)")
_SUBTRANSACTIONS = re.compile(r"subxacts:((?: \d+)+)")
_PREPARED = re.compile(r"COMMIT_PREPARED (\d+)")
_SEGMENT = re.compile(r"[0-9A-F]{24}")

# Indexes hold nothing that their table does not; the rest of these has no relation at all.
_OTHER_MANAGERS = frozenset(
    ("Btree", "Hash", "Gin", "Gist", "SPGist", "BRIN", "Sequence", "CLOG", "MultiXact", "CommitTs", "Standby")
)
# They leave every visible row as it is: hint bits, locks, pruning, freezing, vacuum. Our own reading causes some of
# them, so a fingerprint would mark its own tables. INPLACE updates statistics and transaction horizons in pg_class.
_HARMLESS = frozenset(
    (
        *("XLOG FPI_FOR_HINT", "Heap LOCK", "Heap INPLACE", "Heap2 LOCK_UPDATED", "Heap2 VISIBLE", "Heap2 VACUUM"),
        *("Heap2 FREEZE_PAGE", "Heap2 PRUNE", "Heap2 PRUNE_ON_ACCESS", "Heap2 PRUNE_VACUUM_SCAN"),
        "Heap2 PRUNE_VACUUM_CLEANUP",
    )
)

_TABLES = """
SELECT DISTINCT n.nspname || '.' || c.relname
FROM pg_catalog.pg_class f
JOIN pg_catalog.pg_class c ON c.oid = f.oid AND f.relkind <> 't' OR c.reltoastrelid = f.oid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE f.relkind IN ('r', 'm', 't') AND pg_catalog.pg_relation_filenode(f.oid) = ANY (%s)
"""


class WalUnreadable(PermanentError):
    """A range of WAL is not complete: a segment is missing or damaged."""


def touched_relations(  # noqa: PLR0913 - which WAL, and how to read it
    tools: PgTools,
    wal_dir: Path,
    timeline: int,
    start_lsn: str,
    stop_lsn: str,
    *,
    timeout_seconds: float | None = None,
    chunk_bytes: int = _CHUNK_BYTES,
) -> set[tuple[int, int]]:
    """The relations, as (database OID, relfilenode), that a WAL record in [start, stop) may have changed the rows of.

    `wal_dir` holds plain segments that `tools.user` can read. The answer is never too small; left out are records
    that change no visible row. UNKNOWN_RELATION is in it when DDL committed whose changes of the catalogs are older
    than `start_lsn`. Raises WalUnreadable, CommandTimeout, ToolMissing.
    """
    wal = _Wal(tools, wal_dir, timeline, _segment_bytes(wal_dir), timeout_seconds)
    start, stop = parse_lsn(start_lsn), _end_of_records(parse_lsn(stop_lsn), wal.segment_bytes)
    reading = _Reading()
    size = chunk_bytes
    while start < stop:
        end = min(start + size, stop)
        _read_chunk(reading, wal, start, end)
        if end == stop:
            break
        # A record that crosses the end of a chunk was not decoded: go on at the last one that was.
        reached = parse_lsn(reading.last_lsn) if reading.last_lsn else start
        size = chunk_bytes if reached > start else 2 * size
        start = max(start, reached)
    return reading.relations


def touched_tables(connection: psycopg.Connection[Any], relations: Iterable[tuple[int, int]]) -> set[str]:
    """The tables ("schema.table", catalog tables too) of the connected, restored database among `relations`.

    TOAST relations count as their table. Indexes do not: rows change in the table's own files or not at all.
    """
    relations = set(relations)
    with connection.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()")
        (database,) = cursor.fetchone() or (0,)
        nodes = [node for owner, node in relations if owner == database]
        found = {str(row[0]) for row in cursor.execute(_TABLES, [nodes])}
    return found | ({UNKNOWN_CATALOG} if UNKNOWN_RELATION in relations else set())


@dataclass
class _Reading:
    """What the records told so far; `last_lsn` is where the last one begins."""

    relations: set[tuple[int, int]] = field(default_factory=set)
    catalog_writers: set[str] = field(default_factory=set)
    last_lsn: str = ""

    def take(self, line: str) -> None:
        """Read one line of pg_waldump's output."""
        record = _RECORD.match(line)
        if record is None:
            return
        manager, xid, lsn, what = record.groups()
        if lsn == self.last_lsn:  # each chunk begins with the record that ended the one before
            return
        self.last_lsn = lsn
        if manager in _OTHER_MANAGERS or f"{manager} {what}" in _HARMLESS:
            return
        found = [(int(owner), int(node)) for owner, node in _relations_in(line)]
        self.relations.update(found)
        if manager == "Transaction":
            if what.startswith("COMMIT") and "inval msgs:" in line:
                self._take_ddl(xid, line)
        elif any(node < _FIRST_USER_RELATION for _, node in found):
            self.catalog_writers.add(xid)

    def _take_ddl(self, xid: str, line: str) -> None:
        # DDL unlocks catalogs before it ends, so its locks could not be seen at the snapshot. Its commit tells.
        prepared, children = _PREPARED.search(line), _SUBTRANSACTIONS.search(line)
        members = {prepared[1] if prepared else xid, *(children[1].split() if children else ())}
        if members.isdisjoint(self.catalog_writers):
            self.relations.add(UNKNOWN_RELATION)


def _relations_in(line: str) -> Iterator[tuple[str, str]]:
    yield from _BLOCK.findall(line)
    # A new, truncated or dropped file is named by its path: TRUNCATE leaves no other trace of the table.
    if "base/" in line or "pg_tblspc/" in line:
        yield from _FILE.findall(line)


@dataclass(frozen=True)
class _Wal:
    tools: PgTools
    folder: Path
    timeline: int
    segment_bytes: int
    timeout_seconds: float | None


def _read_chunk(reading: _Reading, wal: _Wal, start: int, end: int) -> None:
    arguments: list[str | Path] = ["--path", wal.folder, "--timeline", str(wal.timeline)]
    arguments += ["--start", format_lsn(start), "--end", format_lsn(end)]
    # Without a segment's name pg_waldump takes the segment size from any file there, even one still full of zeros.
    arguments.append(segment_at(start, wal.timeline, wal.segment_bytes).name)
    arguments.append(segment_before(end, wal.timeline, wal.segment_bytes).name)
    with tempfile.TemporaryDirectory(prefix="lifeboat-wal-") as folder:
        listing = Path(folder) / "records.txt"
        try:
            wal.tools.run("pg_waldump", arguments, timeout_seconds=wal.timeout_seconds, stdout_path=listing)
        except commands.CommandFailed as error:
            raise WalUnreadable(
                f"the WAL from {format_lsn(start)} to {format_lsn(end)} on timeline {wal.timeline} in {wal.folder} "
                f"is not complete: {error.stderr_tail}",
                hint="Look for the segment in the archive; `lifeboat wal status` lists gaps.",
            ) from error
        with listing.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                reading.take(line)


def _end_of_records(position: int, segment_bytes: int) -> int:
    """The position without a page header before it: no record ends in one.

    After a segment switch the server reports the first position behind the header of a segment that may not exist yet,
    and pg_waldump would fail for want of that file.
    """
    if position % segment_bytes <= _FIRST_PAGE_HEADER_BYTES:
        return position - position % segment_bytes
    if position % _PAGE_BYTES <= _PAGE_HEADER_BYTES:
        return position - position % _PAGE_BYTES
    return position


def _segment_bytes(wal_dir: Path) -> int:
    sizes = (path.stat().st_size for path in wal_dir.iterdir() if _SEGMENT.fullmatch(path.name))
    for size in sizes:
        if is_segment_size(size):
            return size
    raise WalUnreadable(
        f"there is no WAL segment in {wal_dir}", hint="Restore the WAL of the backup, or fetch it from the archive."
    )
