"""What a deep preview compares, on each version: all is equal to itself, and what a role may not read is named."""

from lifeboat.operations.preview.compared_facts import compare_facts, compare_server_settings
from lifeboat.operations.preview.compared_tables import compare_tables
from lifeboat.operations.preview.deep import _fingerprint
from lifeboat.operations.preview.fact_queries import QUERIES
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import TableKind


def test_a_server_equals_itself_in_all_facts(everything: str) -> None:
    with connect(everything) as then, connect(everything) as now:
        assert compare_facts(then, now) == ([], [])


def test_a_server_equals_itself_in_all_tables(everything: str) -> None:
    with connect(everything) as then, connect(everything) as now:
        before, after = _fingerprint(then), _fingerprint(now)
        assert {table.kind for table in before.tables} == set(TableKind)
        tables, not_compared = compare_tables(then, now, before, after)
        assert [table for table in tables if table.differs] == []
        assert not_compared == []


def test_what_a_role_may_not_read_is_named(everything: str) -> None:
    with connect(everything) as then, connect(everything) as now:
        now.execute("CREATE ROLE stranger")
        now.execute("SET LOCAL ROLE stranger")
        found, not_compared = compare_facts(then, now)
        settings, unknown = compare_server_settings({}, now)
        now.rollback()
    assert settings == []
    assert unknown == ["server settings: permission denied for view pg_file_settings"]
    assert [(fact.name, fact.then, fact.now) for fact in found] == [("role stranger", None, "NOLOGIN")]
    titles = {line.partition(":")[0] for line in not_compared}
    assert {"passwords of roles", "user mappings", "sequences", "subscriptions"} <= titles
    assert titles <= {*(each.title for each in QUERIES), "sequences"}
