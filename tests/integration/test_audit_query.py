"""The platform's audit query against a server: bounded, read-only, ended in time."""

from datetime import UTC, datetime, timedelta

import pytest

from lifeboat.postgres.connections import ConnectionInfo, SourceUnavailable, connect
from lifeboat.recovery.audit_query import AuditEntry, AuditQueryInvalid, read_audit_trail

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
QUERY = "SELECT at, action || ' 100%' AS text, who FROM audit WHERE at BETWEEN :from AND :to -- the trail"


@pytest.fixture
def source(fresh_database: str) -> ConnectionInfo:
    """A platform with an audit table of one row an hour."""
    with connect(fresh_database, autocommit=True) as session:
        session.execute("CREATE TABLE public.audit (at timestamptz, action text, who text)")
        session.execute(
            "INSERT INTO public.audit SELECT %s + i * interval '1 hour', 'did ' || i, CASE WHEN i > 3 THEN 'ada' END"
            " FROM generate_series(1, 10) i",
            (NOON,),
        )
    return ConnectionInfo.parse(fresh_database)


def read(source: ConnectionInfo, query: str = QUERY, *, hours: int = 24, limit: int = 100) -> list[AuditEntry]:
    return read_audit_trail(source, query, NOON, NOON + hours * HOUR, timeout_seconds=0.5, limit=limit)


def test_the_entries_of_a_period_come_in_order(source: ConnectionInfo) -> None:
    assert read(source, hours=2) == [
        AuditEntry(NOON + HOUR, "did 1 100%", None),
        AuditEntry(NOON + 2 * HOUR, "did 2 100%", None),
    ]
    assert [entry.text for entry in read(source, limit=2)] == ["did 9 100%", "did 10 100%"]
    assert read(source)[-1].actor == "ada"
    assert len(read(source, "SELECT at, action FROM public.audit;")) == 10


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("SELECT at, action FROM nowhere", 'relation "nowhere" does not exist'),
        ("SELECT at FROM audit", "gives 1 columns"),
        ("SELECT action, action FROM audit", "not a timestamptz"),
        ("SELECT at::timestamp, action FROM audit", "not a timestamptz"),
        ("SELECT now(), pg_sleep(30)::text", "statement timeout"),
        ("SELECT now(), 'x') AS a; DELETE FROM audit; SELECT * FROM (SELECT 1", "multiple commands"),
        ("SELECT now(), nextval('numbers')::text", "read-only transaction"),
    ],
)
def test_a_query_that_is_none_is_refused_and_nothing_is_written(source: ConnectionInfo, query: str, why: str) -> None:
    with connect(source, autocommit=True) as session:
        session.execute("CREATE SEQUENCE public.numbers")
    with pytest.raises(AuditQueryInvalid, match=why) as refused:
        read(source, query)
    assert "platform.audit_query" in (refused.value.hint or "")
    assert len(read(source)) == 10


def test_a_server_that_is_away_is_no_fault_of_the_query(source: ConnectionInfo) -> None:
    with pytest.raises(SourceUnavailable):
        read(source.with_parameters(port="1"))
