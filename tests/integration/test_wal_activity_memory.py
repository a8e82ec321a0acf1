"""The index takes no more memory for more WAL, nor for very many subtransactions at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lifeboat.wal.activity import transactions
from tests.support.wal_index import IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]

ALLOWED_BYTES = 150 * 1024 * 1024
# In a process of its own: its peak is that of the index.
MEASURING = """
import resource, sys
from pathlib import Path
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.activity.decoding import Source
from lifeboat.wal.activity.index import build_index
from lifeboat.wal.archive import FilesystemArchive

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

root, bin_dir, user, scratch, dsn = sys.argv[1:]
source = Source(FilesystemArchive(Path(root), "studio"), PgTools(Path(bin_dir), user or None), Path(scratch), 300)
catalog = Catalog(dsn)
catalog.ping()
before = peak()
report = build_index(source, catalog, "studio")
print(peak() - before, report.timelines[0].records)
"""


def test_memory_is_bounded(lab: IndexLab) -> None:
    lab.run(
        "CREATE TABLE frames (id int, body text)",
        "COPY frames FROM PROGRAM 'seq 1 600000 | sed \"s/$/\\ta text of some length for each of them/\"'",
        "DELETE FROM frames WHERE id > 100000",
        "INSERT INTO frames SELECT g, 'x' FROM generate_series(1, 450000) g",
        "UPDATE frames SET body = 'y' WHERE id % 3 = 0",
        # Each round is a subtransaction that wrote something, all of them open at once.
        "DO $$ BEGIN FOR i IN 1..60000 LOOP BEGIN INSERT INTO frames VALUES (-i);"
        " EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
    )
    assert lab.value("SELECT count(*) FROM frames") == 610000
    lab.observe()
    segments = len(lab.push())
    tools = lab.cluster.tools
    arguments = [lab.archived.config.path, tools.bin_dir, tools.user or "", lab.folder, lab.catalog.dsn.dsn]
    done = subprocess.run(
        [sys.executable, "-c", MEASURING, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    grown, records = map(int, done.stdout.split())
    # What pg_waldump prints of it would not fit: the limit means something.
    assert records * 140 > ALLOWED_BYTES
    assert grown < ALLOWED_BYTES, f"{grown:,} bytes for {segments} segments and {records:,} records"
    (found,) = [item for item in lab.activity() if item.relation == "public.frames"]
    assert found.inserted_rows == 1110000
    assert found.deleted_rows == 500000


def test_what_is_kept_of_subtransactions_does_not_grow_with_their_number(
    lab: IndexLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "MAX_OPEN_COUNTS", 2000)
    lab.run("CREATE TABLE frames (id int)")
    lab.observe()
    kept: dict[int, int] = {}
    for count in (10_000, 40_000):
        with lab.connect() as held:
            held.execute("BEGIN")
            held.execute(
                f"DO $$ BEGIN FOR i IN 1..{count} LOOP BEGIN INSERT INTO frames VALUES (i);"
                " EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$".encode()
            )
            lab.push()
            assert lab.index().stopped == ()
            state = lab.catalog.wal_index.state(lab.name, 1)
            assert state is not None
            kept[count] = len(json.dumps(state.transactions_json))
            # What was open when others were given up is told apart still, as long as it is no more than can be kept.
            held.execute("SAVEPOINT a")
            held.execute("INSERT INTO frames VALUES (-1), (-2)")
            held.execute("ROLLBACK TO a")
            held.execute("INSERT INTO frames VALUES (-3)")
            held.execute("SAVEPOINT b")
            held.execute("INSERT INTO frames VALUES (-4)")
            held.execute("PREPARE TRANSACTION 'many'" if count == 40_000 else "COMMIT")
    lab.push()
    assert lab.index().stopped == ()
    state = lab.catalog.wal_index.state(lab.name, 1)
    assert state is not None
    assert max(*kept.values(), len(json.dumps(state.transactions_json))) < 100_000, kept
    lab.run("COMMIT PREPARED 'many'")
    lab.catch_up()
    assert lab.counted() == {"public.frames": (50_004, 0, 0)}
