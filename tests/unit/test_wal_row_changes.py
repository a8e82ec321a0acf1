"""Lines of pg_waldump of each version, as pg_waldump.c and heapdesc.c write them."""

import pytest

from lifeboat.wal.activity.records import DELETED, INSERTED, UPDATED, other_lines
from lifeboat.wal.activity.row_changes import OTHER, change_of, commit_line, commit_time, find_items, xid_text

XID, FILE = 333187, (16384, 16404)
BLOCK = "blkref #0: rel 1663/16384/16404 blk 3106"


def line(manager: str, text: str, xid: int = XID, length: int = 102) -> str:
    return (
        f"rmgr: {manager:<11} len (rec/tot): {length:6}/{length:6}, tx: {xid:10}, lsn: 0/0C9B9F68, prev 0/0C9B9F20, "
        f"desc: {text}\n"
    )


CHANGES = [
    ("15", "INSERT off 3 flags 0x00", (INSERTED, 1)),
    ("16 to 18", "INSERT off: 90, flags: 0x00", (INSERTED, 1)),
    ("15", "INSERT+INIT off 1 flags 0x08", (INSERTED, 1)),
    ("16 to 18", "INSERT+INIT off: 1, flags: 0x08", (INSERTED, 1)),
    ("15", "INSERT off 3 flags 0x04", None),
    ("16 to 18", "INSERT off: 3, flags: 0x04", None),
    ("15", "HEAP_CONFIRM off 3", (INSERTED, 1)),
    ("16 to 18", "HEAP_CONFIRM off: 3", (INSERTED, 1)),
    ("15", "DELETE off 3 flags 0x00 KEYS_UPDATED ", (DELETED, 1)),
    ("16 to 18", "DELETE xmax: 620760, off: 68, infobits: [KEYS_UPDATED], flags: 0x00", (DELETED, 1)),
    ("16 to 18", "DELETE xmax: 620760, off: 68, infobits: [], flags: 0x08", None),
    ("15", "DELETE off 3 flags 0x08 KEYS_UPDATED ", None),
    ("15", "UPDATE+INIT off 3 xmax 750 flags 0x00 KEYS_UPDATED ; new off 36 xmax 0", (UPDATED, 1)),
    ("15", "HOT_UPDATE off 3 xmax 750 flags 0x20 ; new off 36 xmax 0", (UPDATED, 1)),
    (
        "16 to 18",
        "HOT_UPDATE old_xmax: 7, old_off: 120, old_infobits: [], flags: 0x20, new_xmax: 0, new_off: 121",
        (UPDATED, 1),
    ),
]
COPIED = [
    ("15", "MULTI_INSERT+INIT 214 tuples flags 0x02", (INSERTED, 214)),
    ("15", "MULTI_INSERT 3 tuples flags 0x02", (INSERTED, 3)),
    ("16 to 18", "MULTI_INSERT+INIT ntuples: 214, flags: 0x02", (INSERTED, 214)),
    ("16 to 18", "MULTI_INSERT ntuples: 3, flags: 0x02, offsets: [1, 2, 3]", (INSERTED, 3)),
]
OTHERS = [
    line("Transaction", "COMMIT 2026-11-23 14:16:30.168569 UTC; subxacts: 333188 333189"),
    line("Transaction", "COMMIT 2026-11-23 14:16:30.168569 UTC; subxacts: 333188", length=12_345_678),
    line("Transaction", "ABORT 2026-11-23 14:16:30.168569 UTC"),
    line("Storage", "CREATE base/16384/16500"),
    line("Standby", "RUNNING_XACTS nextXid 333190 latestCompletedXid 333189 oldestRunningXid 333190", xid=0),
    line("Database", "DROP dir 1663/16384"),
    line("XLOG", "CHECKPOINT_SHUTDOWN redo 0/C9B9F68; tli 1; prev tli 1; fpw true; xid 0:333190; oid 24576", xid=0),
]
NOTHING = [
    line("Heap2", f"PRUNE_ON_ACCESS snapshotConflictHorizon: 331543, redirected: [1->2], {BLOCK}", xid=0),
    line("Heap", f"LOCK xmax: 333187, off: 3, infobits: [LOCK_ONLY, EXCL_LOCK], flags: 0x00, {BLOCK}"),
    line("Heap", f"INPLACE off: 3, {BLOCK}"),
    line("XLOG", f"FPI_FOR_HINT , {BLOCK} FPW", xid=0),
]


@pytest.mark.parametrize(("version", "text", "expected"), [*CHANGES, *COPIED])
def test_changes_of_rows_are_told_from_each_version(version: str, text: str, expected: tuple[int, int] | None) -> None:
    manager = "Heap2" if text.startswith("MULTI_INSERT") else "Heap"
    plain = line(manager, f"{text}, {BLOCK}").encode()
    # A second block follows where an update moves a row, a full page image where a checkpoint was before.
    found = find_items(plain + plain.replace(b"blk 3106", b"blk 3106 FPW, blkref #1: rel 1663/16384/16404 blk 7"))
    assert len(found) == 2, version
    assert found[0] == found[1]
    xid, operation, argument, commit = found[0]
    assert (xid, commit) == (xid_text(XID), b"")
    assert change_of(operation, argument) == (expected, FILE)


def test_records_of_a_mass_change_are_the_same_item() -> None:
    template = "DELETE xmax: 333187, off: {}, infobits: [KEYS_UPDATED], flags: 0x00, " + BLOCK
    lines = "".join(line("Heap", template.format(number)) for number in range(1, 120))
    assert len(set(find_items(lines.encode()))) == 1


def test_a_plain_commit_says_what_its_line_says() -> None:
    text = line("Transaction", "COMMIT 2026-11-23 14:16:30.168569 UTC").encode()
    (item,) = find_items(text)
    assert item[:3] == (xid_text(XID), b"", b"")
    assert commit_time(item[3]) == b"2026-11-23 14:16:30.168569"
    assert [commit_line(item)] == other_lines(text)


@pytest.mark.parametrize("text", OTHERS)
def test_what_has_to_be_looked_into_is_noticed(text: str) -> None:
    assert find_items(text.encode()) == [OTHER]
    assert len(other_lines(text.encode())) == 1


@pytest.mark.parametrize("text", NOTHING)
def test_what_changes_no_row_is_left_out(text: str) -> None:
    assert find_items(text.encode()) == []
    assert other_lines(text.encode()) == []


def test_items_keep_the_order_of_wal() -> None:
    texts = [
        line("Heap", f"INSERT off: 90, flags: 0x00, {BLOCK}"),
        NOTHING[0],
        OTHERS[0],
        NOTHING[3],
        line("Heap", f"HEAP_CONFIRM off: 3, {BLOCK}"),
        line("Transaction", "COMMIT 2026-11-23 14:16:30.168569 UTC"),
    ]
    found = find_items("".join(texts).encode())
    assert [item[1] or bool(item[3]) for item in found] == [b"INSERT", False, b"HEAP_CONFIRM", True]
