"""The index counts what committed, and nothing else: against counts by trigger, on each PostgreSQL version."""

import threading

import psycopg
import pytest

from tests.support.wal_index import IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]

TABLES = """
CREATE TABLE frames (id int PRIMARY KEY, body text);
CREATE TABLE parts (id int, kind int) PARTITION BY LIST (kind);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
CREATE TABLE notes (id int PRIMARY KEY, body text);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
"""


@pytest.fixture
def studio(lab: IndexLab) -> IndexLab:
    """The lab with tables that triggers watch."""
    lab.run(TABLES)
    lab.make_truth("frames", "parts", "notes")
    return lab


def check(lab: IndexLab) -> None:
    """Index and triggers agree, and there was something to count."""
    lab.catch_up()
    truth = lab.truth()
    assert truth
    assert lab.counted() == truth


def test_plain_changes(studio: IndexLab) -> None:
    studio.run(
        "INSERT INTO frames SELECT g, 'x' FROM generate_series(1, 500) g",
        "UPDATE frames SET body = 'hot' WHERE id <= 100",
        "UPDATE frames SET body = repeat('cold', 500) WHERE id BETWEEN 200 AND 300",
        "UPDATE frames SET id = id + 10000 WHERE id BETWEEN 301 AND 310",
        "DELETE FROM frames WHERE id BETWEEN 50 AND 60",
        "SELECT FROM frames WHERE id < 20 FOR UPDATE",
        "VACUUM frames",
    )
    check(studio)


def test_subtransactions_and_what_was_rolled_back(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; INSERT INTO frames VALUES (1); SAVEPOINT a; INSERT INTO frames VALUES (2); ROLLBACK TO a;"
        "SAVEPOINT b; INSERT INTO frames VALUES (3); SAVEPOINT c; INSERT INTO frames VALUES (4); RELEASE c;"
        "SAVEPOINT d; INSERT INTO frames VALUES (5); ROLLBACK TO b; INSERT INTO frames VALUES (6); COMMIT",
        "BEGIN; INSERT INTO frames VALUES (7); SAVEPOINT a; DELETE FROM frames; RELEASE a; ROLLBACK",
        "BEGIN; SAVEPOINT a; UPDATE frames SET body = 'y'; COMMIT",
        "DO $$ BEGIN FOR i IN 100..400 LOOP BEGIN INSERT INTO frames VALUES (i / 2 * 2);"
        " EXCEPTION WHEN unique_violation THEN NULL; END; END LOOP; END $$",
    )
    with pytest.raises(psycopg.errors.DivisionByZero):
        studio.run("INSERT INTO frames SELECT g, (1 / (1000 - g))::text FROM generate_series(900, 1000) g")
    check(studio)


def test_prepared_transactions_even_over_several_runs(studio: IndexLab) -> None:
    studio.run("INSERT INTO frames SELECT g FROM generate_series(1, 10) g")
    for name in ("now", "later", "no", "nevermore"):
        studio.run(
            f"BEGIN; INSERT INTO notes SELECT g + {len(name) * 100} FROM generate_series(1, {len(name)}) g;"
            "SAVEPOINT a;"
            f"INSERT INTO parts SELECT g, 1 FROM generate_series(1, 3) g; PREPARE TRANSACTION '{name}'"
        )
    studio.run("COMMIT PREPARED 'now'", "ROLLBACK PREPARED 'no'")
    check(studio)
    assert studio.catalog.wal_index.state("studio", 1).transactions_json["prepared"]  # type: ignore[union-attr]
    studio.run("CHECKPOINT", "INSERT INTO frames VALUES (11)")
    check(studio)
    studio.run("COMMIT PREPARED 'later'", "ROLLBACK PREPARED 'nevermore'")
    check(studio)
    assert studio.counted()["public.notes"] == (len("now") + len("later"), 0, 0)


def test_speculative_inserts_count_when_confirmed(studio: IndexLab) -> None:
    # Evaluated once for the look and once for the entry: whoever comes between them makes the other take back its row.
    studio.run(
        "CREATE FUNCTION slow(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $$ BEGIN PERFORM pg_sleep(0.003); RETURN a; END $$",
        "CREATE TABLE raced (a int)",
        "CREATE UNIQUE INDEX ON raced (slow(a))",
        "INSERT INTO frames VALUES (1)",
        "INSERT INTO frames VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        "INSERT INTO frames VALUES (2, 'y'), (3, 'z') ON CONFLICT DO NOTHING",
    )
    studio.make_truth("raced")

    def race() -> None:
        with studio.connect() as connection:
            for number in range(60):
                connection.execute("INSERT INTO raced VALUES (%s) ON CONFLICT (slow(a)) DO NOTHING", [number])

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert studio.value("SELECT count(*) FROM raced") == 60
    check(studio)


def test_copy_counts_rows_not_records(studio: IndexLab) -> None:
    studio.run(
        "COPY frames FROM PROGRAM 'seq 1 3000 | sed \"s/$/\\ttext/\"'",
        "COPY parts FROM PROGRAM 'seq 1 300 | sed \"s/$/\\t1/\"'",
        "BEGIN; COPY notes FROM PROGRAM 'seq 1 300 | sed \"s/$/\\ttext/\"'; ROLLBACK",
    )
    check(studio)


def test_a_row_that_changes_its_partition_leaves_one_and_enters_the_other(studio: IndexLab) -> None:
    studio.run("INSERT INTO parts SELECT g, 1 FROM generate_series(1, 30) g", "UPDATE parts SET kind = 2 WHERE id <= 7")
    check(studio)
    assert studio.counted()["public.parts_1"] == (30, 0, 7)


def test_toast_and_our_own_tables_are_left_out(studio: IndexLab) -> None:
    studio.run(
        "INSERT INTO notes SELECT g, repeat(md5(g::text), 2000) FROM generate_series(1, 20) g",
        "UPDATE notes SET body = repeat('x', 50000) WHERE id <= 5",
        "DELETE FROM notes WHERE id > 15",
        # As `lifeboat rescue` makes them, and one that only looks like it.
        "CREATE SCHEMA rescue_20261123_180102 CREATE TABLE notes (id int)",
        "CREATE SCHEMA rescue_20261123_180102_2 CREATE TABLE notes (id int)",
        "CREATE SCHEMA rescue_dogs CREATE TABLE dogs (id int)",
        *(f"INSERT INTO rescue_20261123_180102{end}.notes VALUES (1)" for end in ("", "_2")),
    )
    check(studio)
    assert set(studio.counted()) == {"public.notes"}
    studio.run("INSERT INTO rescue_dogs.dogs VALUES (1)", "DROP SCHEMA rescue_20261123_180102 CASCADE")
    studio.catch_up()
    assert set(studio.counted()) == {"public.notes", "rescue_dogs.dogs"}
    assert not any("rescue_2026" in text for text in studio.events())


@pytest.mark.parametrize(
    "rewrite", ["VACUUM FULL {}", "CLUSTER {} USING {}_pkey", "ALTER TABLE {} ALTER id TYPE bigint"]
)
def test_rewrites_are_no_changes_of_rows(studio: IndexLab, rewrite: str) -> None:
    studio.run("INSERT INTO notes SELECT g, repeat(md5(g::text), 200) FROM generate_series(1, 300) g")
    studio.observe()
    studio.run("DROP TRIGGER tell ON notes", rewrite.format("notes", "notes"))
    studio.make_truth("notes")
    studio.run("DELETE FROM notes WHERE id <= 10", "INSERT INTO notes VALUES (-1), (-2)")
    check(studio)
    assert studio.counted()["public.notes"] == (302, 0, 10)
    assert "rewrite (VACUUM FULL, CLUSTER, ALTER TABLE or REFRESH) of public.notes" in studio.events()


def test_a_refreshed_view_is_a_rewrite(studio: IndexLab) -> None:
    studio.run(
        "INSERT INTO frames SELECT g FROM generate_series(1, 20) g",
        "CREATE MATERIALIZED VIEW seen AS SELECT * FROM frames",
    )
    studio.observe()
    studio.run("REFRESH MATERIALIZED VIEW seen")
    studio.catch_up()
    counted = studio.counted()
    # Its first filling is an INSERT up to PostgreSQL 16 and a refresh from 17 on.
    assert counted.pop("public.seen", (20, 0, 0)) == (20, 0, 0)
    assert counted == studio.truth()
    assert "rewrite (VACUUM FULL, CLUSTER, ALTER TABLE or REFRESH) of public.seen" in studio.events()


def test_a_rename_moves_the_counts_to_the_new_name(studio: IndexLab) -> None:
    studio.run("INSERT INTO frames SELECT g FROM generate_series(1, 20) g")
    studio.catch_up()
    studio.run("ALTER TABLE frames RENAME TO pictures", "INSERT INTO pictures VALUES (100)")
    check(studio)
    assert studio.counted() == {"public.pictures": (21, 0, 0)}
    assert "DDL on public.frames" in studio.events()


def test_truncate_and_refill_in_one_transaction(studio: IndexLab) -> None:
    studio.run("INSERT INTO frames SELECT g FROM generate_series(1, 200) g")
    studio.observe()
    studio.run("BEGIN; TRUNCATE frames; INSERT INTO frames SELECT g FROM generate_series(1, 30) g; COMMIT")
    check(studio)
    assert studio.counted()["public.frames"] == (230, 0, 0)
    assert "TRUNCATE of public.frames" in studio.events()


def test_a_dropped_table_is_named_and_keeps_its_counts(studio: IndexLab) -> None:
    studio.run("INSERT INTO frames SELECT g FROM generate_series(1, 200) g")
    studio.observe()
    studio.run("DROP TABLE frames, parts CASCADE")
    studio.catch_up()
    assert studio.counted() == {"public.frames": (200, 0, 0)}
    (dropped,) = [text for text in studio.events() if text.startswith("DROP")]
    assert {"public.frames", "public.parts", "public.parts_1", "public.parts_2"} == set(
        dropped.removeprefix("DROP of ").split(", ")
    )


def test_a_drop_is_named_although_the_newest_file_was_never_observed(studio: IndexLab) -> None:
    studio.run("INSERT INTO notes VALUES (1)")
    studio.observe()
    studio.run("TRUNCATE notes", "INSERT INTO notes VALUES (1)", "DROP TABLE notes")
    studio.catch_up()
    assert [text for text in studio.events() if text.startswith(("DROP", "TRUNCATE"))] == [
        "TRUNCATE of public.notes",
        "DROP of public.notes",
    ]


def test_a_table_that_was_never_observed_keeps_its_numbers(studio: IndexLab) -> None:
    studio.observe()
    studio.run("CREATE TABLE brief AS SELECT generate_series(1, 12) AS a")
    numbers = studio.value(
        "SELECT d.oid || '/' || pg_relation_filenode('brief') FROM pg_database d WHERE datname = current_database()"
    )
    studio.run("DROP TABLE brief")
    studio.catch_up()
    assert [(item.relation, item.oid, item.inserted_rows) for item in studio.activity()] == [(numbers, None, 12)]
    assert f"DROP of {numbers}" in studio.events()


def test_a_name_may_be_observed_after_the_index_was_built(studio: IndexLab) -> None:
    studio.run("INSERT INTO notes SELECT g, repeat(md5(g::text), 2000) FROM generate_series(1, 20) g")
    studio.push()
    studio.index()
    assert {item.oid for item in studio.activity()} == {None}
    check(studio)


def test_made_and_gone_in_one_transaction_is_nothing(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; CREATE TABLE brief AS SELECT generate_series(1, 12); DROP TABLE brief;"
        "INSERT INTO frames VALUES (1); COMMIT",
        "BEGIN; CREATE TEMPORARY TABLE t ON COMMIT DROP AS SELECT 1; CREATE TABLE kept AS SELECT 1 AS a; COMMIT",
        "BEGIN; CREATE TABLE newer AS SELECT a FROM kept; DROP TABLE kept; ALTER TABLE newer RENAME TO kept; COMMIT",
    )
    studio.catch_up()
    counted = studio.counted()
    assert counted.pop("public.kept") == (1, 0, 0)
    assert {name: counts for name, counts in counted.items() if "/" not in name} == studio.truth()
    assert [counts for name, counts in counted.items() if "/" in name] == [
        (1, 0, 0)
    ]  # kept's first self, never observed


def test_many_rows_deleted_or_updated_are_notable(studio: IndexLab) -> None:
    """In one transaction: many that change a few rows each are everyday."""
    studio.run(
        "INSERT INTO frames SELECT g FROM generate_series(1, 2000) g",
        "DELETE FROM frames WHERE id <= 99",
        *(f"UPDATE frames SET id = id WHERE id % 3 = {number % 3}" for number in range(9)),
        "UPDATE frames SET id = -id WHERE id > 99",
        "UPDATE frames SET body = 'x'; UPDATE frames SET body = 'y' WHERE id >= -1500;"
        "DELETE FROM frames WHERE id >= -1500",
    )
    studio.catch_up(bulk_rows=1000)
    # Those of one commit are in no order.
    assert sorted(text for text in studio.events() if text.startswith(("DELETE", "UPDATE"))) == [
        "DELETE of 1,401 rows from public.frames",
        "UPDATE of 1,901 rows of public.frames",
        "UPDATE of 3,302 rows of public.frames",
    ]
    assert studio.counted() == studio.truth()


def test_several_databases_are_told_apart(studio: IndexLab) -> None:
    other = f"{studio.database}_b"
    studio.run(f"CREATE DATABASE {other}", "INSERT INTO frames VALUES (1)")
    studio.other_databases.append(other)
    with studio.connect(other) as connection:
        connection.execute(TABLES.encode())
        connection.execute("INSERT INTO frames SELECT g FROM generate_series(1, 7) g")
    check(studio)
    found = {(item.database, item.relation): item.inserted_rows for item in studio.activity()}
    assert found == {(studio.database, "public.frames"): 1, (other, "public.frames"): 7}
    assert f"CREATE DATABASE {other}" in studio.events()
