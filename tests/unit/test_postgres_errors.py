"""Errors of the postgres room cross process borders whole: Prefect pickles them."""

import pickle

import pytest

from lifeboat.errors import LifeboatError
from lifeboat.postgres import binaries, cluster, connections, embedded, folders, isolation, lock, scratch

_HOLDER = lock.LockHolder(42, "lifeboat full-backup", None)


@pytest.mark.parametrize(
    "error",
    [
        lock.ClusterBusy("main", _HOLDER, 3.0),
        lock.LockLost("gone", hint="Look."),
        lock.PooledConnection("pooled"),
        binaries.BinariesMissing("none", hint="Install."),
        cluster.ServerStartFailed("x"),
        cluster.ServerStopFailed("x"),
        connections.AuthenticationFailed("x", hint="Check."),
        connections.SourceUnavailable("x"),
        embedded.WrongServerVersion("x"),
        folders.FolderUnreachable("x"),
        isolation.IsolationRefused("x"),
        scratch.ScratchNotRemoved("x"),
    ],
)
def test_an_error_survives_pickling(error: LifeboatError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), copy.__dict__) == (type(error), str(error), error.__dict__)


def test_a_busy_cluster_names_who_holds_it_and_is_not_retried_blindly() -> None:
    error = lock.ClusterBusy("main", _HOLDER, 3.2)

    assert error.message == (
        "another backup of cluster main is running after waiting 3 s: lifeboat full-backup (pid 42)"
    )
    assert not error.transient
    assert lock.LockLost("gone").transient
