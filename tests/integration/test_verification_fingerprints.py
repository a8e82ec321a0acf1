"""Fingerprints: the same after a dump and restore, different after any change, taken under one snapshot."""

from pathlib import Path

from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.verification.comparison import compare
from tests.support.verification import dump_and_restore, fingerprint, new_database


def test_a_dump_and_restore_changes_nothing(everything: str, each_cluster: Cluster, reachable_tmp: Path) -> None:
    before = fingerprint(everything)
    with new_database(each_cluster) as restored:
        dump_and_restore(each_cluster.tools, everything, restored, reachable_tmp)
        with connect(restored, autocommit=True) as connection:
            connection.execute("SELECT nextval('studio.segments_id_seq')")
            connection.execute("TRUNCATE studio.scratchpad")
        after = fingerprint(restored)
    found = compare(before, after)
    assert found.differences == ()
