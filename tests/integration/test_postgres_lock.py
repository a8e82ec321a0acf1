"""One backup of a cluster at a time: refused, waited for, noticed when lost."""

import threading
import time

import pytest
from psycopg import sql

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import AuthenticationFailed, ConnectionInfo, connect
from lifeboat.postgres.lock import ClusterBusy, LockHolder, LockLost, PooledConnection, cluster_lock, is_locked
from tests.support.network import pooler


def test_the_second_is_refused_and_told_who_holds_it(fresh_database: str) -> None:
    with cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="full-backup") as held:
        held.ensure_held()
        holder = is_locked(fresh_database, "main")
        assert holder is not None
        assert holder.application_name == "lifeboat full-backup"
        with (
            pytest.raises(ClusterBusy, match=rf"lifeboat full-backup \(pid {holder.pid}\) since 20") as caught,
            cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="second"),
        ):
            pytest.fail("two backups at once")
    assert caught.value.holder == holder
    assert is_locked(fresh_database, "main") is None


def test_the_lock_is_one_for_all_databases_and_names(fresh_database: str, embedded_cluster: Cluster) -> None:
    with (
        cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first"),
        pytest.raises(ClusterBusy),
        cluster_lock(embedded_cluster.dsn("template1"), cluster="other", wait_seconds=0, purpose="second"),
    ):
        pytest.fail("two backups at once")


@pytest.mark.parametrize("wait_seconds", [30, None])
def test_the_second_waits_for_the_first(fresh_database: str, wait_seconds: float | None) -> None:
    waiting_for: list[LockHolder] = []
    order: list[str] = []

    def second() -> None:
        with cluster_lock(
            fresh_database, cluster="main", wait_seconds=wait_seconds, purpose="second", on_wait=waiting_for.append
        ) as held:
            held.ensure_held()
            assert held.waited_seconds > 0
            order.append("second")

    with cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first"):
        thread = threading.Thread(target=second)
        thread.start()
        while not waiting_for:
            time.sleep(0.02)
        with connect(fresh_database) as connection:
            # A waiting statement would keep a snapshot, and so hold back vacuum.
            row = connection.execute(
                "SELECT count(backend_xmin) FROM pg_stat_activity WHERE application_name = 'lifeboat second'"
            ).fetchone()
        assert row == (0,)
        order.append("first")
    thread.join()

    assert order == ["first", "second"]
    assert [holder.application_name for holder in waiting_for] == ["lifeboat first"]


def test_waiting_ends(fresh_database: str) -> None:
    with cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first"):
        began = time.monotonic()
        with (
            pytest.raises(ClusterBusy, match="after waiting 1 s"),
            cluster_lock(fresh_database, cluster="main", wait_seconds=1, purpose="second"),
        ):
            pytest.fail("two backups at once")
        assert 1 <= time.monotonic() - began < 3


def test_a_lost_session_is_noticed_and_frees_the_lock(fresh_database: str) -> None:
    with cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first") as held:
        holder = is_locked(fresh_database, "main")
        assert holder is not None
        with connect(fresh_database, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [holder.pid])
        with pytest.raises(LockLost, match="its session ended"):
            held.ensure_held()
        with cluster_lock(fresh_database, cluster="main", wait_seconds=5, purpose="second") as second:
            second.ensure_held()
            with pytest.raises(LockLost):
                held.ensure_held()


def test_an_error_inside_frees_the_lock(fresh_database: str) -> None:
    with (
        pytest.raises(RuntimeError, match="the backup failed"),
        cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first"),
    ):
        raise RuntimeError("the backup failed")

    assert is_locked(fresh_database, "main") is None


def test_a_pooler_is_refused(fresh_database: str, embedded_cluster: Cluster) -> None:
    with pooler(embedded_cluster.socket_dir, embedded_cluster.port) as port:
        address = {"host": "127.0.0.1", "port": str(port), "sslmode": "disable", "gssencmode": "disable"}
        through = ConnectionInfo.parse(fresh_database).with_parameters(**address)
        with (
            pytest.raises(PooledConnection, match="connection pooler"),
            cluster_lock(through, cluster="main", wait_seconds=0, purpose="pooled"),
        ):
            pytest.fail("locked through a pooler")
    assert is_locked(fresh_database, "main") is None


def test_a_role_without_rights_can_lock_and_see_the_holder(fresh_database: str, embedded_cluster: Cluster) -> None:
    role = ConnectionInfo.parse(fresh_database).database or ""
    with connect(fresh_database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
    plain = embedded_cluster.dsn("postgres", role)
    try:
        with cluster_lock(fresh_database, cluster="main", wait_seconds=0, purpose="first"):
            holder = is_locked(plain, "main")
        assert holder is not None
        assert (holder.application_name, holder.since) == ("lifeboat first", None)
        with cluster_lock(plain, cluster="main", wait_seconds=0, purpose="plain") as held:
            held.ensure_held()
    finally:
        with connect(fresh_database, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_an_unknown_role_is_a_permanent_error(embedded_cluster: Cluster) -> None:
    with (
        pytest.raises(AuthenticationFailed, match="does not exist"),
        cluster_lock(embedded_cluster.dsn(user="nobody-here"), cluster="main", wait_seconds=0, purpose="x"),
    ):
        pytest.fail("connected")
