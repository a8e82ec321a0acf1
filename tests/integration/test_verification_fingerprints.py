"""Fingerprints: the same after a dump and restore, different after a change, complete or refused."""

from pathlib import Path

import pytest
from psycopg import sql

from lifeboat.errors import PermanentError
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.settings.drills import FingerprintBudget
from lifeboat.storage.manifest import TableKind
from lifeboat.verification.comparison import compare
from lifeboat.verification.fingerprints import (
    CONTENT_ALGORITHM,
    FingerprintForbidden,
    FingerprintInterrupted,
    FingerprintProgress,
    take_fingerprint,
)
from tests.support.verification import dump_and_restore, fingerprint, new_database, role_name, snapshot

EVERYTHING = FingerprintBudget(fraction=1)
NOTHING = FingerprintBudget(fraction=0, floor_bytes=0)


def test_a_dump_and_restore_changes_nothing_and_a_changed_row_is_found(
    everything: str, each_cluster: Cluster, reachable_tmp: Path
) -> None:
    before = fingerprint(everything)
    with new_database(each_cluster) as restored:
        dump_and_restore(each_cluster.tools, everything, restored, reachable_tmp)
        with connect(restored, autocommit=True) as connection:
            # What may differ: a sequence that moved, a view fresher than the backup's, an emptied unlogged table.
            connection.execute("SELECT nextval('studio.segments_id_seq')")
            connection.execute("REFRESH MATERIALIZED VIEW studio.totals; TRUNCATE studio.scratchpad")
            found = compare(before, fingerprint(restored))
            assert found.differences == ()
            assert found.counted_tables == ("pg_catalog.pg_largeobject_metadata",)
            assert found.not_compared_tables == ("studio.elsewhere", "studio.scratchpad", "studio.totals")

            connection.execute("UPDATE studio.characters SET weight = weight + 1e-9 WHERE id = 15")
            connection.execute("DELETE FROM studio.events WHERE id = 7")
            connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
        assert [str(difference) for difference in compare(before, fingerprint(restored)).differences] == [
            "table pg_catalog.pg_largeobject_metadata: missing",
            "table studio.characters: content differs",
            "table studio.events_rest: row count 50 → 49",
        ]


def test_a_fingerprint_says_what_it_is(everything: str) -> None:
    with snapshot(everything) as connection:
        taken = take_fingerprint(connection, budget=NOTHING, lsn="0/1", busy_tables=["b", "a"])
    tables = {table.qualified_name: table for table in taken.tables}
    assert tables["studio.segments"].row_count == 301
    assert tables["studio.parent"].row_count == 2  # without its child's
    assert tables["studio.scratchpad"].kind is TableKind.UNLOGGED
    assert "studio.events" not in tables
    assert "lifeboat.backups" not in tables
    assert taken.database == ConnectionInfo.parse(everything).database
    assert (taken.lsn, taken.busy_tables, taken.content_algorithm) == ("0/1", ["a", "b"], CONTENT_ALGORITHM)
    assert taken.extensions == {"plpgsql": "1.0"}
    assert taken.duration_seconds > 0


def test_content_is_hashed_smallest_first_within_the_budget(everything: str) -> None:
    hashed = {t.table_name for t in fingerprint(everything, NOTHING).tables if t.content_hash is not None}
    assert hashed == {"plain", "nothing"}  # of no bytes
    some = fingerprint(everything, FingerprintBudget(fraction=0, floor_bytes=300_000))
    assert {table.table_name for table in some.tables if table.row_count and table.content_hash is None} == {
        "segments",
        "pg_largeobject_metadata",
    }
    whole = fingerprint(everything, EVERYTHING)
    assert [t.table_name for t in whole.tables if t.row_count is not None and t.content_hash is None] == [
        "pg_largeobject_metadata"
    ]


def test_a_drill_hashes_what_the_backup_hashed(everything: str) -> None:
    some = fingerprint(everything, FingerprintBudget(fraction=0, floor_bytes=300_000))
    with snapshot(everything) as connection:
        again = take_fingerprint(connection, budget=NOTHING, lsn=None, hashed_like=some)
    assert again.tables == some.tables


def test_session_settings_do_not_change_the_hash(everything: str) -> None:
    before = fingerprint(everything, EVERYTHING)
    with snapshot(everything) as connection:
        for setting in (
            "timezone = 'Asia/Tokyo'",
            "datestyle = 'German'",
            "extra_float_digits = -5",
            "bytea_output = 'escape'",
            "search_path = studio, public",
            "quote_all_identifiers = on",
            "intervalstyle = 'iso_8601'",
        ):
            connection.execute(f"SET {setting}")
        after = take_fingerprint(connection, budget=EVERYTHING, lsn=None)
    assert (after.tables, after.objects) == (before.tables, before.objects)


def test_a_snapshot_is_needed(everything: str) -> None:
    with connect(everything, autocommit=True) as connection:
        connection.execute("SET default_transaction_isolation = 'repeatable read'")
        with pytest.raises(PermanentError, match="needs an open transaction with one snapshot"):
            take_fingerprint(connection, budget=EVERYTHING, lsn=None)
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        with pytest.raises(PermanentError, match="needs an open transaction with one snapshot"):
            take_fingerprint(connection, budget=EVERYTHING, lsn=None)


def test_rows_are_never_hidden_by_a_policy(everything: str) -> None:
    role = sql.Identifier(role_name(everything))
    with snapshot(everything) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        with pytest.raises(FingerprintForbidden, match="permission denied for") as caught:
            take_fingerprint(connection, budget=EVERYTHING, lsn=None)
        assert "BYPASSRLS" in (caught.value.hint or "")
        connection.rollback()
    with connect(everything, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(role))
    with snapshot(everything) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        with pytest.raises(FingerprintForbidden, match="row-level security policy for table"):
            take_fingerprint(connection, budget=EVERYTHING, lsn=None)
        connection.rollback()
    with connect(everything, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} BYPASSRLS").format(role))
    with snapshot(everything) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(role))
        taken = take_fingerprint(connection, budget=EVERYTHING, lsn=None)
        assert {t.table_name: t.row_count for t in taken.tables}["segments"] == 301
        connection.rollback()
    with connect(everything, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} NOBYPASSRLS; REVOKE pg_read_all_data FROM {}").format(role, role))


def test_a_table_dropped_after_the_snapshot_is_no_failure(each_database: str) -> None:
    with connect(each_database, autocommit=True) as writer, snapshot(each_database) as connection:
        writer.execute("CREATE TABLE public.early AS SELECT 1; CREATE TABLE public.kept AS SELECT 1")
        connection.rollback()
        connection.execute("SELECT 1")
        dropped = False

        def drop(progress: FingerprintProgress) -> None:
            nonlocal dropped
            if not dropped:
                dropped = True
                writer.execute("DROP TABLE public.early")

        taken = take_fingerprint(connection, budget=EVERYTHING, lsn=None, on_progress=drop)
    assert [(table.table_name, table.row_count) for table in taken.tables] == [("early", None), ("kept", 1)]


def test_a_lost_connection_is_worth_a_retry(everything: str, each_cluster: Cluster) -> None:
    def end(progress: FingerprintProgress) -> None:
        with connect(each_cluster.dsn(), autocommit=True) as killer:
            killer.execute("SELECT pg_terminate_backend(%s)", [pid])

    with snapshot(everything) as connection:
        pid = connection.info.backend_pid
        with pytest.raises(FingerprintInterrupted, match="could not be finished") as caught:
            take_fingerprint(connection, budget=EVERYTHING, lsn=None, on_progress=end)
        assert caught.value.transient


def test_progress_names_each_table_once(everything: str) -> None:
    seen: list[FingerprintProgress] = []
    with snapshot(everything) as connection:
        taken = take_fingerprint(connection, budget=NOTHING, lsn=None, on_progress=seen.append)
    counted = {t.qualified_name for t in taken.tables if t.row_count is not None and t.schema_name != "pg_catalog"}
    assert {progress.table for progress in seen} == counted
    assert [progress.done_tables for progress in seen] == list(range(len(counted)))
    assert seen[-1].done_bytes < seen[-1].total_bytes


def test_a_row_whose_text_is_too_long_is_counted_only(fresh_database: str) -> None:
    with connect(fresh_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.huge (a bytea)")
        connection.execute("INSERT INTO public.huge SELECT convert_to(repeat('x', 540000000), 'UTF8')")
    (table,) = fingerprint(fresh_database, EVERYTHING).tables
    assert (table.row_count, table.content_hash) == (1, None)
