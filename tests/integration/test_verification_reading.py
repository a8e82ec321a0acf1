"""The full read finds what counting does not; amcheck where it is; validation queries change nothing."""

import os
from pathlib import Path

import psycopg
import pytest

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.settings.drills import ExactValue, Expectation, ValidationQuery, ValueRange
from lifeboat.verification.fingerprints import DatabaseDamaged
from lifeboat.verification.reading import AmcheckStatus, ReadProgress, check_structure, read_tables
from lifeboat.verification.validation import run_validation
from tests.support.verification import fingerprint, role_name

PAGE_BYTES = 8192


def path_of(cluster: Cluster, dsn: str, relation: str) -> Path:
    """A relation's file, with all of it on disk."""
    with connect(dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute(f"SELECT pg_relation_filepath({relation})").fetchone()
    assert row is not None
    return cluster.data_dir / str(row[0])


def damage(cluster: Cluster, path: Path, position: int, content: bytes) -> None:
    """Overwrite bytes of a file while the server is down."""
    cluster.stop()
    with path.open("r+b") as file:
        file.seek(position)
        file.write(content)
        os.fsync(file.fileno())
    cluster.start()


def test_everything_is_read(everything: str) -> None:
    seen: list[ReadProgress] = []
    with connect(everything, autocommit=True) as connection:
        read = read_tables(connection, on_progress=seen.append)
    assert read.passed
    assert read.tables == len(seen)
    assert read.size_bytes > 1_000_000
    names = [progress.table for progress in seen]
    assert {"studio.segments", "studio.totals", "lifeboat.backups", "pg_catalog.pg_largeobject"} <= set(names)
    assert "studio.elsewhere" not in names


def test_a_role_without_file_rights_reads_what_it_may(everything: str) -> None:
    role = role_name(everything)
    with connect(everything) as connection:
        connection.execute(f'GRANT pg_read_all_data TO "{role}"; ALTER ROLE "{role}" BYPASSRLS')
        connection.execute(f'SET SESSION AUTHORIZATION "{role}"')
        connection.commit()
        read = read_tables(connection)
        connection.execute(f'RESET SESSION AUTHORIZATION; REVOKE pg_read_all_data FROM "{role}"')
        connection.execute(f'ALTER ROLE "{role}" NOBYPASSRLS')
        connection.commit()
    assert read.problems == ()
    assert 10 < read.tables < 40  # no catalog tables


def test_types_without_a_binary_form_are_read(each_database: str) -> None:
    with connect(each_database, autocommit=True) as connection:
        connection.execute("CREATE TYPE public.plain")
        how = "LANGUAGE internal IMMUTABLE STRICT AS"
        connection.execute(f"CREATE FUNCTION public.plain_in(cstring) RETURNS public.plain {how} 'textin'")
        connection.execute(f"CREATE FUNCTION public.plain_out(public.plain) RETURNS cstring {how} 'textout'")
        connection.execute("CREATE TYPE public.plain (input = public.plain_in, output = public.plain_out)")
        connection.execute("CREATE TABLE public.t AS SELECT 'x'::public.plain AS a")
        assert read_tables(connection).passed
    assert len(fingerprint(each_database).tables) == 1


def test_damage_in_toast_is_found_and_the_table_named(each_cluster: Cluster, each_database: str) -> None:
    with connect(each_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.good AS SELECT 1 AS a")
        connection.execute("CREATE TABLE public.long (a text)")
        connection.execute("ALTER TABLE public.long ALTER a SET STORAGE EXTERNAL")
        connection.execute("INSERT INTO public.long SELECT repeat('x', 100000)")
    toast = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'public.long'::regclass)"
    damage(each_cluster, path_of(each_cluster, each_database, toast), 3 * PAGE_BYTES + 4000, b"damaged")
    with connect(each_database, autocommit=True) as connection:
        assert connection.execute("SELECT count(*) FROM public.long").fetchone() == (1,)
        read = read_tables(connection)
    (problem,) = read.problems
    assert problem.table == "public.long"
    assert "invalid page in block 3" in problem.error
    with pytest.raises(DatabaseDamaged, match=r"the table public\.long cannot be read: invalid page"):
        fingerprint(each_database)


def test_a_lost_connection_ends_the_read(everything: str, each_cluster: Cluster) -> None:
    with connect(everything, autocommit=True) as connection:
        pid = connection.info.backend_pid

        def end(progress: ReadProgress) -> None:
            if progress.table.startswith("studio"):
                with connect(each_cluster.dsn(), autocommit=True) as killer:
                    killer.execute("SELECT pg_terminate_backend(%s)", [pid])

        read = read_tables(connection, on_progress=end)
    (problem,) = read.problems
    assert problem.table.startswith("studio.")
    assert "terminating connection" in problem.error


def test_amcheck_finds_an_index_that_lost_a_row(each_cluster: Cluster, each_database: str) -> None:
    database = ConnectionInfo.parse(each_database)
    with connect(each_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.t AS SELECT g AS a FROM generate_series(1, 200) g")
        connection.execute("CREATE INDEX t_a ON public.t (a)")
        missing = connection.execute("SELECT FROM pg_available_extensions WHERE name = 'amcheck'").fetchone() is None
    result = check_structure(each_cluster.tools, database, timeout_seconds=60)
    if missing:
        assert result.status is AmcheckStatus.NOT_AVAILABLE
        assert "no extension amcheck" in (result.reason or "")
        return
    assert (result.status, result.problems) == (AmcheckStatus.PASSED, ())
    index = path_of(each_cluster, each_database, "'public.t_a'")
    with connect(each_database, autocommit=True) as connection:
        # An index file of before the row: every page of it is sound.
        before = index.read_bytes()
        connection.execute("INSERT INTO public.t VALUES (1000)")
        connection.execute("CHECKPOINT")
    damage(each_cluster, index, 0, before)
    with connect(each_database, autocommit=True) as connection:
        assert read_tables(connection).passed
    result = check_structure(each_cluster.tools, database, timeout_seconds=60)
    assert result.status is AmcheckStatus.FAILED
    assert len(result.problems) == 1
    assert "t_a" in result.problems[0]
    assert "lacks matching index tuple" in result.problems[0]


def test_amcheck_without_the_program_is_not_available(each_cluster: Cluster, reachable_tmp: Path) -> None:
    tools = type(each_cluster.tools)(reachable_tmp, each_cluster.tools.user)
    database = ConnectionInfo.parse(each_cluster.dsn())
    result = check_structure(tools, database, timeout_seconds=60)
    assert result.status is AmcheckStatus.NOT_AVAILABLE
    assert "pg_amcheck" in (result.reason or "")


def judge(dsn: str, sql: str, expect: Expectation, timeout_seconds: float = 10) -> tuple[bool, str | None, str | None]:
    """Whether one query passed, its value and its error."""
    with connect(dsn, autocommit=True) as connection:
        (result,) = run_validation(connection, [ValidationQuery(name="n", sql=sql, expect=expect)], timeout_seconds)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    return result.passed, result.value, result.error


PASSING: list[tuple[str, Expectation]] = [
    ("SELECT count(*) FROM studio.segments;", ExactValue(equals=301)),
    ("SELECT count(*) FROM plain", ExactValue(equals=0)),  # in public
    ("SELECT 0.10::numeric", ExactValue(equals=0.1)),
    ("SELECT 1e0::float8", ExactValue(equals=1)),
    ("SELECT true", ExactValue(equals=True)),
    ("SELECT date '2026-01-02'", ExactValue(equals="2026-01-02")),
    ("WITH x AS (SELECT 5) TABLE x", ValueRange(minimum=5, maximum=5)),
    ("SELECT max(id) FROM studio.characters", ValueRange(minimum=100)),
    ("SELECT generate_series(1, 1000000)", "nonempty"),
    ("SELECT name FROM studio.characters WHERE name LIKE 'n%'", "nonempty"),
]
FAILING: list[tuple[str, Expectation, str]] = [
    ("SELECT count(*) FROM studio.segments", ExactValue(equals=300), "301 is not 300"),
    ("SELECT 1", ExactValue(equals=True), "1 is not True"),
    ("SELECT NULL::int", ExactValue(equals=0), "None is not 0"),
    ("SELECT 4", ValueRange(minimum=5), "4 is not at least 5"),
    ("SELECT 9.5", ValueRange(minimum=5, maximum=9), "9.5 is not at least 5 and at most 9"),
    ("SELECT 'x'", ValueRange(minimum=5), "'x' is not a number"),
    ("SELECT 1 WHERE false", "nonempty", "the query returned no row"),
    ("SELECT 1 WHERE false", ExactValue(equals=1), "the query returned no row instead of one"),
    ("SELECT generate_series(1, 2)", ExactValue(equals=1), "the query returned several rows instead of one"),
    ("SELECT * FROM nowhere", "nonempty", 'relation "nowhere" does not exist'),
    ("SELECT pg_sleep(30)", "nonempty", "statement timeout"),
    ("SELECT nextval('studio.counter')", "nonempty", "read-only transaction"),
    ("DELETE FROM studio.segments RETURNING 1", "nonempty", "syntax error"),
    ("SELECT 1; COMMIT; DROP TABLE studio.pointer", "nonempty", "cannot insert multiple commands"),
    ("SELECT set_config('transaction_read_only', 'off', false)", "nonempty", "read-write mode"),
]


@pytest.mark.parametrize(("sql", "expect"), PASSING)
def test_a_right_answer_passes(everything: str, sql: str, expect: Expectation) -> None:
    passed, _, error = judge(everything, sql, expect)
    assert (passed, error) == (True, None)


@pytest.mark.parametrize(("sql", "expect", "said"), FAILING)
def test_a_wrong_answer_fails_with_its_reason(everything: str, sql: str, expect: Expectation, said: str) -> None:
    passed, _, error = judge(everything, sql, expect, timeout_seconds=0.5)
    assert not passed
    assert said in (error or "")


def test_a_failed_query_does_not_stop_the_others(everything: str) -> None:
    queries = [ValidationQuery(name=text, sql=text, expect="nonempty") for text in ("SELECT 1/0", "SELECT 'fine'")]
    with connect(everything) as connection:
        results = run_validation(connection, queries, 10)
    assert [(result.passed, result.value) for result in results] == [(False, None), (True, "fine")]
    assert results[0].error == "division by zero"
    assert results[1].expected == "at least one row"
