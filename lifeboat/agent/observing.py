"""Looks at pg_class of every database, so that the files that WAL speaks of can be named, later too."""

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

import psycopg

from lifeboat.catalog.errors import CatalogError
from lifeboat.catalog.store import Catalog
from lifeboat.errors import LifeboatError
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.wal.activity.relation_names import observe_relations

_NAME = "lifeboat agent: relation names"
_LOCK_TIMEOUT_SECONDS = 10.0
_DATABASES = """
SELECT oid::bigint, datname::text, datallowconn AND NOT datistemplate, pg_catalog.clock_timestamp()
FROM pg_catalog.pg_database ORDER BY datname
"""


@dataclass(frozen=True)
class Observation:
    """One look at all databases: how many names are new, back or gone, and why some could not be looked at."""

    databases: int
    changed: int
    unseen: dict[str, str]


def observe_databases(source: ConnectionInfo, catalog: Catalog, cluster: str) -> Observation:
    """Take pg_class of every database that we may connect to into the catalog; of dropped ones all names are gone.

    Each database is connected to for one query only: a session that stays would be in the way of DROP DATABASE.
    Raises SourceUnavailable, AuthenticationFailed, CatalogError and psycopg.Error.
    """
    with closing(connect(source, application_name=_NAME, autocommit=True)) as session:
        rows: list[tuple[int, str, bool, datetime]] = session.execute(_DATABASES).fetchall()
    changed, seen, unseen = 0, 0, {}
    for _, name, usable, _ in rows:
        if not usable:
            continue
        try:
            changed += _observe(source.with_database(name), catalog, cluster)
            seen += 1
        except CatalogError:
            raise
        except (LifeboatError, psycopg.Error) as error:
            # Dropped this moment, or closed to our role: the others are looked at all the same.
            unseen[name] = " ".join(str(error).split("\n")[0].split())
    there = {oid for oid, _, _, _ in rows}
    for oid in catalog.relations.present_databases(cluster) - there:
        changed += catalog.relations.observe(cluster, oid, [], rows[0][3])
    return Observation(seen, changed, unseen)


def _observe(database: ConnectionInfo, catalog: Catalog, cluster: str) -> int:
    with closing(
        connect(database, application_name=_NAME, autocommit=True, lock_timeout_seconds=_LOCK_TIMEOUT_SECONDS)
    ) as session:
        return observe_relations(session, catalog, cluster)
