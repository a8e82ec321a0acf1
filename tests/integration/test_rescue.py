"""Rescuing one table: of every kind, with types that are gone meanwhile, and killed in its midst."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import tomlkit

from lifeboat.catalog.migrate import migrate
from lifeboat.catalog.values import RestoreTarget
from lifeboat.operations.restore.rescue import Rescued, rescue_table
from lifeboat.operations.restore.rescued_rows import RescuedRows, compare, parse_table
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, TargetUnreadable
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab

ROOT = Path(__file__).parents[2]
SCHEMA = """
CREATE TYPE public.mood AS ENUM ('fine', 'bad');
CREATE TYPE public.size AS (width int, height int);
CREATE DOMAIN public.age AS int CHECK (VALUE >= 0);
CREATE TABLE public.made (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price numeric(9,2), age public.age,
    twice numeric GENERATED ALWAYS AS (price * 2) STORED, at timestamptz DEFAULT '2026-01-01', data bytea, gone text);
ALTER TABLE public.made DROP COLUMN gone;
INSERT INTO public.made (price, age, data) SELECT i / 3.0, i, decode(md5(i::text), 'hex') FROM generate_series(1, 50) i;
CREATE TABLE public.moods (who public.mood, number int, moods public.mood[], box public.size,
    PRIMARY KEY (who, number));
INSERT INTO public.moods SELECT CASE i % 2 WHEN 0 THEN 'fine' ELSE 'bad' END::public.mood, i, '{fine,bad}',
    ROW(i, i)::public.size
    FROM generate_series(1, 40) i;
CREATE TABLE public.ages (id int PRIMARY KEY, age public.age);
INSERT INTO public.ages SELECT i, i FROM generate_series(0, 9) i;
CREATE TABLE public.parts (id int, at date, body text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
INSERT INTO public.parts SELECT i, '2026-01-20'::date + i, 'part ' || i FROM generate_series(1, 30) i;
CREATE TABLE public.parent (id int PRIMARY KEY, body text);
CREATE TABLE public.child () INHERITS (public.parent);
INSERT INTO public.parent VALUES (1, 'parent');
INSERT INTO public.child VALUES (1, 'child');
CREATE TABLE public.unkeyed (body text, number int);
INSERT INTO public.unkeyed VALUES ('a', 1), ('a', 1), ('b', 2), (NULL, NULL);
CREATE SCHEMA "My ""schema";
CREATE TABLE "My ""schema"."a.b Select" ("Key ""1" int PRIMARY KEY, "order" text);
INSERT INTO "My ""schema"."a.b Select" SELECT i, E'tab\\t' || i FROM generate_series(1, 5) i;
CREATE SCHEMA lost;
CREATE TYPE lost.kind AS ENUM ('x', 'y');
CREATE TABLE lost.things (id int PRIMARY KEY, kind lost.kind NOT NULL, kinds lost.kind[]);
INSERT INTO lost.things SELECT i, 'y', '{x,y}' FROM generate_series(1, 12) i;
"""
# In one transaction: where replay stops before its commit, WAL has told of its locks already.
ACCIDENTS = """
DELETE FROM public.made WHERE id > 30;
UPDATE public.made SET price = 0 WHERE id <= 5;
UPDATE public.moods SET box = ROW(0, 0) WHERE number = 2;
DELETE FROM public.moods WHERE number > 20;
ALTER TABLE public.ages ALTER COLUMN age TYPE int;
DROP DOMAIN public.age CASCADE;
CREATE DOMAIN public.age AS int CHECK (VALUE >= 5);
DROP TABLE public.parts_2;
INSERT INTO public.parts VALUES (31, '2026-01-03', 'new');
DELETE FROM public.unkeyed WHERE ctid = '(0,1)';
INSERT INTO public.unkeyed VALUES ('c', 3);
DELETE FROM public.child;
DELETE FROM "My ""schema"."a.b Select" WHERE "Key ""1" = 5;
DROP SCHEMA lost CASCADE;
"""
CHILD = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.rescue import rescue_table
from lifeboat.recovery.targets import RecoveryTarget, TargetKind

said = []

def copied(progress):
    if said[-1] == "copy rows":
        os.kill(os.getpid(), signal.SIGKILL)

target = RecoveryTarget(TargetKind.TIME, at=datetime.fromisoformat(sys.argv[2]))
rescue_table(Installation.load(Path(sys.argv[1])), target, "public", "made", on_progress=said.append, on_amount=copied)
"""


@pytest.fixture(scope="module")
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source with tables of every kind, backed up."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        migrate(made.installation.catalog_connection)
        made.run(SCHEMA)
        made.back_up()
        yield made
        made.cluster.stop(mode="immediate")


@pytest.fixture(scope="module")
def moment(lab: RecoveryLab) -> datetime:
    """Just before the accidents."""
    lab.commit(1)
    at = lab.moment()
    lab.run(ACCIDENTS)
    lab.commit(2)
    lab.switch()
    return at


def rescue(lab: RecoveryLab, at: datetime, table: str) -> Rescued:
    return rescue_table(lab.installation, RecoveryTarget(TargetKind.TIME, at=at), *parse_table(table))


def counts(found: Rescued) -> tuple[int | None, ...]:
    return found.rows, found.only_rescued, found.only_live, found.different


def test_generated_and_identity_columns_come_as_values(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, "public.made")
    assert counts(found) == (50, 20, 0, 5)
    assert set(found.keys["only_rescued"]) == {f"({number})" for number in range(31, 51)}
    table = found.rescued_table
    as_before = "twice = price * 2 AND age::int = id AND data IS NOT NULL"
    assert lab.value(f"SELECT count(*) FROM {table} WHERE {as_before}") == 50
    assert lab.value(f"SELECT data = decode(md5('31'), 'hex') FROM {table} WHERE id = 31") is True
    assert {"copy rows", "compare", "replay"} <= set(found.phases)
    noted = lab.installation.catalog.restores.list_restores().rows
    assert {row.target_kind for row in noted} == {RestoreTarget.RESCUE}


def test_what_is_printed_puts_the_rows_back(lab: RecoveryLab, moment: datetime) -> None:
    some, gone = rescue(lab, moment, "public.made"), rescue(lab, moment, "lost.things")
    (insert,) = [step for step in some.next_steps if step.startswith("Put the missing rows back")]
    (make,) = [step for step in gone.next_steps if step.startswith("Make the table again")]
    with connect(lab.cluster.dsn()) as session:
        session.execute(insert.partition(": ")[2].encode())
        put = "SELECT count(*), count(*) FILTER (WHERE price = 0), count(*) FILTER (WHERE twice = price * 2) FROM {}"
        # The five that were changed since stay as they are.
        assert session.execute(put.format("public.made").encode()).fetchall() == [(50, 5, 50)]
        session.execute(make.partition(": ")[2].encode())
        assert session.execute("SELECT count(*), count(DISTINCT id) FROM lost.things").fetchall() == [(12, 12)]
        session.rollback()
    (unkeyed,) = [step for step in rescue(lab, moment, "public.unkeyed").next_steps if "primary key" in step]
    assert "INSERT" not in unkeyed


def test_a_type_that_changed_becomes_text(lab: RecoveryLab, moment: datetime) -> None:
    # The domain is there again, and refuses what was right then.
    found = rescue(lab, moment, "public.ages")
    assert counts(found) == (10, 0, 0, 0)
    assert found.notes == ["column age is text: its type is not as it was"]
    assert lab.value(f"SELECT age FROM {found.rescued_table} WHERE id = 3") == "3"


def test_enumerations_arrays_and_composites_in_a_key_too(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, "public.moods")
    assert counts(found) == (40, 20, 0, 1)
    assert found.notes == []
    assert found.keys["different"] == ["(fine,2)"]
    lab.run("ALTER TYPE public.mood RENAME VALUE 'bad' TO 'worse'")
    try:
        again = rescue(lab, moment, "public.moods")
        assert again.notes[:1] == ["column box is text: its type is not as it was"]
        # The renamed label is another key: ten of those twenty rows.
        assert counts(again) == (40, 30, 10, 10)
    finally:
        lab.run("ALTER TYPE public.mood RENAME VALUE 'worse' TO 'bad'")


def test_partitions_and_children_come_with_their_parent(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, "public.parts")
    assert counts(found) == (30, 19, 1, 0)
    family = rescue(lab, moment, "public.parent")
    assert counts(family) == (2, 1, 0, None)
    assert any("no primary key" in note for note in family.notes)
    assert any("whole rows" in note for note in family.notes)


def test_without_a_key_whole_rows_are_compared(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, "public.unkeyed")
    assert counts(found) == (4, 1, 1, None)


def test_a_mass_delete_takes_no_memory_of_the_live_server(lab: RecoveryLab) -> None:
    """Each key has 400 bytes: all of them together would be 60 MB."""
    key = "repeat(md5(i::text), 12) || i"
    lab.run(
        "CREATE SCHEMA brought",
        f"CREATE TABLE brought.wide AS SELECT {key} AS key FROM generate_series(1, 150000) i",
        "ALTER TABLE brought.wide ADD PRIMARY KEY (key)",
        "CREATE TABLE public.wide (key text PRIMARY KEY)",
        "ANALYZE brought.wide",
    )
    used: list[int] = []
    done = threading.Event()
    with connect(lab.cluster.dsn()) as live:
        live.execute("SET work_mem = '1MB'")
        live.execute("SET max_parallel_workers_per_gather = 0")
        live.commit()
        status = Path("/proc", str(live.info.backend_pid), "status")

        def watch() -> None:
            while not done.wait(0.002):
                used.append(int(status.read_text().partition("RssAnon:")[2].split()[0]))

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            found = compare(live, ("public", "wide"), RescuedRows("brought", "wide", 150000))
        finally:
            done.set()
            thread.join()
    assert found["only_rescued"] == 150000
    assert len(found["keys"]["only_rescued"]) == 20
    assert max(used) - min(used) < 20_000, f"{max(used) - min(used)} kB"


def test_quoted_names(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, '"My ""schema"."a.b Select"')
    assert counts(found) == (5, 1, 0, 0)
    (look,) = [step for step in found.next_steps if step.startswith("Look")]
    assert len(lab.rows(look.partition(": ")[2])) == 5


def test_a_dropped_schema_takes_no_types_with_it(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue(lab, moment, "lost.things")
    assert counts(found) == (12, None, None, None)
    assert "column kind is text: its type is not as it was" in found.notes
    assert lab.rows(f"SELECT kind, kinds FROM {found.rescued_table} WHERE id = 1") == [("y", "{x,y}")]


@pytest.mark.parametrize("text", ["nodot", ".name", "schema.", '"a"b.c', '"a.b', 'a."b', 'a."b"c', '""."x"'])
def test_what_names_no_table_is_refused(text: str) -> None:
    with pytest.raises(TargetUnreadable, match=r"is not SCHEMA\.TABLE"):
        parse_table(text)


def test_names_are_read_as_in_sql_where_they_are_quoted() -> None:
    assert parse_table("public.My Table") == ("public", "My Table")
    assert parse_table('"a.b"."c""d"') == ("a.b", 'c"d')
    assert parse_table('public."x.y"') == ("public", "x.y")


def test_a_killed_rescue_leaves_nothing_behind(lab: RecoveryLab, moment: datetime) -> None:
    def schemas() -> int:
        return int(lab.value("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'rescue%'"))

    path = lab.root / "lifeboat.toml"
    given = lab.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    path.write_text(tomlkit.dumps({**given, "platform": {**given["platform"], "dsn": lab.cluster.dsn()}}))
    before = schemas()
    words = [sys.executable, "-c", CHILD, str(path), moment.isoformat()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    scratch = lab.installation.settings.scratch_dir
    assert list(scratch.glob("scratch-explore-*"))
    give_up_at = time.monotonic() + 60
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat rescue'"
    while lab.value(waiting) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    assert schemas() == before
    with connect(lab.cluster.dsn(), autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM public.made").fetchall() == [(30,)]
    assert rescue(lab, moment, "public.made").rows == 50
    assert not list(scratch.glob("scratch-*"))
