"""What relations were called: seen in every database, also after renames, rewrites and drops."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
import pytest

from lifeboat.agent import observing
from lifeboat.agent.heartbeat import beat, prepare_heartbeat
from lifeboat.agent.observing import observe_databases
from lifeboat.catalog.store import Catalog
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.wal.activity.relation_names import RelationNames
from tests.support.agent import running_agent, soon
from tests.support.wal_index import IndexLab, indexed_cluster, lab

__all__ = ["indexed_cluster", "lab"]  # fixtures

Look = Callable[[], RelationNames]


@pytest.fixture
def look(each_stopped_cluster: Cluster, catalog: Catalog) -> Look:
    """Observes all databases of a running server of each version; what is known then."""
    each_stopped_cluster.start()
    with connect(each_stopped_cluster.dsn(), autocommit=True) as session:
        session.execute("CREATE DATABASE studio")
        session.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")

    def observe() -> RelationNames:
        observe_databases(ConnectionInfo.parse(each_stopped_cluster.dsn()), catalog, "studio")
        return RelationNames(catalog.relations.names("studio"))

    return observe


def file_of(cluster: Cluster, database: str, table: str) -> tuple[int, int]:
    """Database OID and relfilenode of a table now."""
    with connect(cluster.dsn(database), autocommit=True) as session:
        row = session.execute(
            "SELECT d.oid::bigint, pg_relation_filenode(%s)::bigint FROM pg_database d"
            " WHERE datname = current_database()",
            (table,),
        ).fetchone()
    assert row is not None
    return row


def run(cluster: Cluster, database: str, *statements: str) -> None:
    with connect(cluster.dsn(database), autocommit=True) as session:
        for statement in statements:
            session.execute(statement.encode())


def test_every_database_is_seen_and_each_rewrite_is_named(each_stopped_cluster: Cluster, look: Look) -> None:
    cluster = each_stopped_cluster
    run(cluster, "postgres", "CREATE TABLE public.here (id int)")
    run(
        cluster, "studio", "CREATE TABLE public.shots (id int)", "INSERT INTO public.shots SELECT generate_series(1, 9)"
    )
    files = [file_of(cluster, "studio", "public.shots")]
    names = look()
    elsewhere = names.of_file(file_of(cluster, "postgres", "public.here"))
    assert elsewhere is not None
    assert (elsewhere.database, elsewhere.name) == ("postgres", "public.here")

    for rewrite in ("VACUUM FULL public.shots", "TRUNCATE public.shots", "ALTER TABLE public.shots ADD s serial"):
        run(cluster, "studio", rewrite)
        files.append(file_of(cluster, "studio", "public.shots"))
        names = look()
    assert len(set(files)) == len(files)
    assert [name.name for file in files if (name := names.of_file(file))] == ["public.shots"] * len(files)
    assert [name.gone_at is None for file in files if (name := names.of_file(file))] == [False] * 3 + [True]

    before = datetime.now(UTC)
    run(cluster, "studio", "ALTER TABLE public.shots RENAME TO takes")
    names = look()
    then, now = names.of_file(files[-1], before), names.of_file(files[-1])
    assert then is not None
    assert now is not None
    assert (then.name, now.name) == ("public.shots", "public.takes")

    run(cluster, "studio", "DROP TABLE public.takes")
    gone = look().of_file(files[-1])
    assert gone is not None
    assert gone.name == "public.takes"
    assert gone.gone_at is not None


def test_a_dropped_database_takes_its_names_along(each_stopped_cluster: Cluster, catalog: Catalog, look: Look) -> None:
    run(each_stopped_cluster, "studio", "CREATE TABLE public.shots (id int)")
    file = file_of(each_stopped_cluster, "studio", "public.shots")
    look()
    assert file[0] in catalog.relations.present_databases("studio")
    # No FORCE: a session that observed and stayed would be in the way.
    run(each_stopped_cluster, "postgres", "DROP DATABASE studio")
    names = look()
    assert file[0] not in catalog.relations.present_databases("studio")
    found = names.of_file(file)
    assert found is not None
    assert found.gone_at is not None
    assert names.database(file[0]) == "studio"


def test_a_database_that_cannot_be_entered_hides_no_other(each_stopped_cluster: Cluster, catalog: Catalog) -> None:
    each_stopped_cluster.start()
    run(
        each_stopped_cluster,
        "postgres",
        "CREATE ROLE watcher LOGIN",
        "CREATE DATABASE secret",
        "REVOKE CONNECT ON DATABASE secret FROM public",
        "CREATE TABLE public.here (id int)",
    )
    found = observe_databases(ConnectionInfo.parse(each_stopped_cluster.dsn("postgres", "watcher")), catalog, "studio")
    assert list(found.unseen) == ["secret"]
    assert "permission denied" in found.unseen["secret"]
    assert "public.here" in {name.name for name in catalog.relations.names("studio")}


def test_the_agent_observes_while_it_beats(each_stopped_cluster: Cluster, catalog: Catalog) -> None:
    each_stopped_cluster.start()
    with running_agent(each_stopped_cluster.dsn(), catalog):
        run(each_stopped_cluster, "postgres", "CREATE TABLE public.shots (id int)")
        soon(lambda: "public.shots" in {name.name for name in catalog.relations.names("studio")})
    assert "lifeboat.heartbeat" in {name.name for name in catalog.relations.names("studio")}
    assert not {name.name for name in catalog.relations.names("studio") if name.is_counted} - {"public.shots"}


def test_heartbeats_are_no_activity_and_no_lost_transaction(lab: IndexLab) -> None:
    """The index leaves our own tables out, whether they were observed before or after they were written."""
    observed = partial(observe_databases, ConnectionInfo.parse(lab.cluster.dsn(lab.database)), lab.catalog, lab.name)
    with lab.connect() as session:
        assert prepare_heartbeat(session)
        for _ in range(20):
            beat(session, "test")
        observed()
        at = beat(session, "test")
        lab.run("CREATE TABLE public.shots (id int)", "INSERT INTO public.shots VALUES (1)")
        for _ in range(20):
            beat(session, "test")
    observed()
    lab.catch_up()
    assert lab.counted() == {"public.shots": (1, 0, 0)}
    undone = lab.undone(at)
    assert [item.relation for item in undone.relations] == ["public.shots"]
    # CREATE TABLE and INSERT
    assert undone.transactions.count == 2


def test_the_agent_notices_in_seconds_that_a_server_is_gone_while_it_observes(
    each_stopped_cluster: Cluster, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead network must not hold its session for TCP's hours."""
    each_stopped_cluster.start()
    given: list[dict[str, str]] = []

    def watched(dsn: ConnectionInfo, **options: Any) -> psycopg.Connection[Any]:  # noqa: ANN401 - as connect has them
        session = connect(dsn, **options)
        given.append(session.info.get_parameters())
        return session

    monkeypatch.setattr(observing, "connect", watched)
    with running_agent(each_stopped_cluster.dsn(), catalog):
        soon(lambda: len(given) >= 2)
    assert {one["tcp_user_timeout"] for one in given} == {"15000"}
    assert {one["keepalives_idle"] for one in given} == {"10"}
