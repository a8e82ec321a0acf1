"""Tables that get another file: what was copied there is told from what was changed, on each PostgreSQL version."""

import uuid

import pytest

from tests.support.wal_index import IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]


@pytest.fixture
def studio(lab: IndexLab) -> IndexLab:
    """The lab with a table of 3,000 rows and an empty one, watched by triggers."""
    lab.run(
        "CREATE TABLE frames (id int PRIMARY KEY, body text)",
        "CREATE TABLE notes (id int PRIMARY KEY, body text)",
    )
    lab.make_truth("frames", "notes")
    lab.run("INSERT INTO frames SELECT g, 'x' FROM generate_series(1, 3000) g")
    lab.observe()
    return lab


def test_changes_in_the_transaction_of_a_rewrite_count(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; INSERT INTO frames VALUES (-1), (-2); ALTER TABLE frames ALTER id TYPE bigint;"
        "DELETE FROM frames WHERE id > 1000; UPDATE frames SET body = 'y' WHERE id <= 10;"
        "SAVEPOINT a; INSERT INTO frames VALUES (-3); ROLLBACK TO a; INSERT INTO frames VALUES (-4);"
        "SAVEPOINT b; INSERT INTO frames VALUES (-5), (-6); COMMIT",
        # Nothing to copy: the first rows in the new file are inserted.
        "BEGIN; ALTER TABLE notes ALTER id TYPE bigint; INSERT INTO notes VALUES (1), (2); DROP TABLE IF EXISTS no;"
        "CREATE TABLE brief (a int); DROP TABLE brief; INSERT INTO notes VALUES (3); COMMIT",
    )
    studio.observe()
    studio.run(
        # Dropping something else first is not the end of copying.
        "CREATE TABLE short (a int)",
        "BEGIN; DROP TABLE short; ALTER TABLE frames ALTER id TYPE numeric; INSERT INTO frames VALUES (-7); COMMIT",
    )
    studio.catch_up(bulk_rows=1000)
    assert studio.counted() == studio.truth()
    assert studio.truth()["public.frames"] == (3006, 12, 2000)
    assert any(text.startswith("DELETE of 2,000 rows from ") for text in studio.events())


def test_two_rewrites_in_one_transaction_leave_out_the_copies_only(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; CREATE TABLE brief AS SELECT g FROM generate_series(1, 50) g; UPDATE brief SET g = 0 WHERE g < 9;"
        "ALTER TABLE frames ADD made timestamptz DEFAULT clock_timestamp();"
        "INSERT INTO frames VALUES (-1, 'x'); UPDATE frames SET body = 'y' WHERE id <= 100; DROP TABLE brief;"
        "ALTER TABLE frames ALTER id TYPE bigint; DELETE FROM frames WHERE id <= 20; COMMIT"
    )
    studio.catch_up()
    changes = [counts for name, counts in studio.counted().items() if name != "public.frames"]
    # The file between the two was never observed.
    assert changes == [(1, 101, 0)]
    assert studio.counted()["public.frames"] == (3000, 0, 21)


def test_a_step_that_ends_in_the_midst_of_a_rewrite_goes_on(studio: IndexLab) -> None:
    with studio.connect() as held:
        held.execute("BEGIN")
        held.execute("ALTER TABLE frames ALTER id TYPE bigint")
        held.execute("INSERT INTO frames SELECT -g FROM generate_series(1, 400) g")
        studio.push()
        assert studio.index().stopped == ()
        held.execute("INSERT INTO frames VALUES (-500)")
        held.execute("COMMIT")
    studio.catch_up()
    assert studio.counted() == studio.truth()


def test_a_table_that_was_made_and_rewritten_at_once_keeps_its_rows(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; CREATE TABLE young (a int); INSERT INTO young SELECT generate_series(1, 5);"
        "ALTER TABLE young ALTER a TYPE bigint; INSERT INTO young VALUES (6), (7); COMMIT"
    )
    studio.catch_up()
    assert studio.counted()["public.young"] == (7, 0, 0)
    assert "CREATE of public.young" in studio.events()


def test_rows_that_went_in_the_transaction_that_made_their_table_do_not_count(studio: IndexLab) -> None:
    studio.run(
        "BEGIN; CREATE TABLE young (a int); INSERT INTO young SELECT generate_series(1, 10); TRUNCATE young;"
        "INSERT INTO young VALUES (1), (2), (3); COMMIT",
        "BEGIN; CREATE TABLE younger (a int); SAVEPOINT a; INSERT INTO younger VALUES (1), (2); RELEASE a;"
        "TRUNCATE younger; INSERT INTO younger VALUES (3); COMMIT",
        "BEGIN; SAVEPOINT a; CREATE TABLE youngest (a int); RELEASE a; INSERT INTO youngest VALUES (1), (2);"
        "TRUNCATE youngest; INSERT INTO youngest VALUES (3); COMMIT",
        # VACUUM shortens files too.
        "DELETE FROM frames",
        "VACUUM (TRUNCATE) frames",
    )
    studio.catch_up()
    counted = studio.counted()
    assert {name: counted.pop(f"public.{name}")[0] for name in ("young", "younger", "youngest")} == {
        "young": 3,
        "younger": 1,
        "youngest": 1,
    }
    assert counted == studio.truth()


def test_moves_to_another_tablespace_empty_nothing(studio: IndexLab) -> None:
    space = f"space_{uuid.uuid4().hex[:8]}"
    studio.run(
        "SET allow_in_place_tablespaces = on",
        f"CREATE TABLESPACE {space} LOCATION ''",
        f"ALTER TABLE frames SET TABLESPACE {space}",
        "INSERT INTO frames VALUES (-1)",
    )
    studio.catch_up()
    assert "rewrite (VACUUM FULL, CLUSTER, ALTER TABLE or REFRESH) of public.frames" in studio.events()
    assert not [text for text in studio.events() if "TRUNCATE" in text]
    studio.run("TRUNCATE frames")
    studio.catch_up()
    assert "TRUNCATE of public.frames" in studio.events()
    assert studio.counted() == studio.truth()


def test_a_database_that_moves_is_neither_made_nor_dropped(studio: IndexLab) -> None:
    space, other = f"space_{uuid.uuid4().hex[:8]}", f"{studio.database}_b"
    with studio.connect("postgres") as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute(f"CREATE TABLESPACE {space} LOCATION ''".encode())
        session.execute(f"CREATE DATABASE {other} STRATEGY file_copy".encode())
        oid = studio.value(f"SELECT oid FROM pg_database WHERE datname = '{other}'")
        session.execute(f"ALTER DATABASE {other} SET TABLESPACE {space}".encode())
        studio.catch_up()
        assert [text for text in studio.events() if "DATABASE" in text] == [f"CREATE DATABASE {oid}"]
        session.execute(f"DROP DATABASE {other}".encode())
    studio.catch_up()
    assert [text for text in studio.events() if "DATABASE" in text][1:] == [f"DROP DATABASE {oid}"]
