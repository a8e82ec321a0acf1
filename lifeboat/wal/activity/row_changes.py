"""The changes of rows and the plain commits in pg_waldump's output, as one expression finds them in a whole chunk.

Nearly all lines are such, and the time that the index takes is the time of this expression. Hence its form: the head
is skipped by its fixed width (`%-11s`, `%6u/%6u` and `%10u` in pg_waldump.c: no heap record is so long that a field
overflows), fields are skipped up to one character, and what is kept of a line is as little as tells records apart.
"""

import re

from lifeboat.wal.activity.records import DELETED, INSERTED, UPDATED, OtherKey

# (transaction, operation, its argument with the file, b"") of a change, (transaction, b"", b"", text) of a plain commit
Item = tuple[bytes, bytes, bytes, bytes]
# Stands for each line that `other_lines` understands and that is no plain commit.
OTHER: Item = (b"", b"", b"", b"")

_HEAP_OPERATIONS = rb"(INSERT|DELETE|HOT_UPDATE|UPDATE|MULTI_INSERT|HEAP_CONFIRM)(?:\+INIT)?"
# Of 15 `INSERT off 3 flags 0x00`, of later ones `INSERT off: 3, flags: 0x00`; `DELETE off 3 flags 0x00` and
# `DELETE xmax: 750, off: 3, infobits: [], flags: 0x00`; `MULTI_INSERT 3 tuples` and `MULTI_INSERT ntuples: 3`.
_TO_ARGUMENT = rb"(?: off:? [^ ]+ flags:? | xmax[^\]]*\], flags: | (?=ntuples|\d)|[^#]*)"
# The widths skipped are those of `, lsn: `, ` prev ` and ` desc: `.
_ITEM = re.compile(
    rb"(?s)rmgr: (?:[HT].{45}(.{10}),.{6}(?:[^,]+,.{6}[^,]+,.{7}"
    + _HEAP_OPERATIONS
    + _TO_ARGUMENT
    + rb"([^#]*#0: rel [^ ]+)|([^,]+,.{6}[^,]+, desc: COMMIT [^\n]{26} UTC)\n)"
    + rb"|Transaction|Storage|Standby|Database|XLOG [^\n]*desc: CHECKPOINT_SHUTDOWN)"
)
_CHANGE = re.compile(rb"(?:ntuples: )?([0-9]\w*)?[^#]*#0: rel \d+/(\d+)/(\d+)")
_TIME_AT = slice(-len("2026-11-22 10:00:00.123456 UTC"), -len(" UTC"))
_XID_DIGITS = 10
_SPECULATIVE_INSERT = 0x04
_SUPER_DELETE = 0x08


def find_items(chunk: bytes) -> list[Item]:
    """What whole lines say, in the order of WAL; `OTHER` for each that has to be looked into."""
    return _ITEM.findall(chunk)


def xid_text(xid: int) -> bytes:
    """A transaction's number as items have it."""
    return b"%*d" % (_XID_DIGITS, xid)


def commit_time(text: bytes) -> bytes:
    """When a plain commit was, from its item's text."""
    return text[_TIME_AT]


def commit_line(item: Item) -> OtherKey:
    """What `other_lines` makes of the line of a plain commit."""
    xid, _, _, text = item
    return b"Transaction", xid, text[: text.index(b",")], b"COMMIT", b" " + commit_time(text) + b" UTC"


def change_of(operation: bytes, argument: bytes) -> tuple[tuple[int, int] | None, tuple[int, int]]:
    """Which count an item adds to and how many rows (None: it changes no row by itself), and its relation file."""
    found = _CHANGE.match(argument)
    if found is None:
        raise ValueError(f"no change of rows: {operation!r} {argument!r}")
    return rows_of(operation, found[1] or b""), (int(found[2]), int(found[3]))


def rows_of(operation: bytes, argument: bytes) -> tuple[int, int] | None:
    """Which count a heap record adds to and how many rows; None for one that changes no row by itself.

    A speculative insert (ON CONFLICT) counts when it is confirmed; the delete that takes it back does not count.
    """
    if operation == b"MULTI_INSERT":
        return INSERTED, int(argument)
    if operation == b"INSERT":
        return None if int(argument or b"0", 16) & _SPECULATIVE_INSERT else (INSERTED, 1)
    if operation == b"DELETE":
        return None if int(argument or b"0", 16) & _SUPER_DELETE else (DELETED, 1)
    return (INSERTED, 1) if operation == b"HEAP_CONFIRM" else (UPDATED, 1)
