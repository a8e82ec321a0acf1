"""What a restore would undo, exactly: the database as of the moment beside the live one."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from lifeboat.engines.engine import Progress
from lifeboat.errors import LifeboatError
from lifeboat.operations.installation import Installation
from lifeboat.operations.preview.compared_facts import OWN_SCHEMAS, FactPreview, compare_facts, compare_server_settings
from lifeboat.operations.preview.compared_tables import TablePreview, compare_tables
from lifeboat.operations.restore.explore import Explored, explored
from lifeboat.postgres.conf import read_settings
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.postgres.isolation import KEPT_SUFFIX
from lifeboat.recovery.targets import RecoveryTarget
from lifeboat.settings.drills import FingerprintBudget
from lifeboat.storage.manifest import Fingerprint, SchemaObject
from lifeboat.verification.fingerprints import SCAN_SETTINGS, apply_settings, take_fingerprint

_DATABASES = "SELECT datname::text FROM pg_catalog.pg_database WHERE NOT datistemplate"
# What PostgreSQL did not bring itself; nearly all of it depends on something.
_HAS_OWN = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE oid >= 16384)
    OR EXISTS (SELECT FROM pg_catalog.pg_publication)
    OR EXISTS (SELECT FROM pg_catalog.pg_foreign_data_wrapper)
    OR EXISTS (SELECT FROM pg_catalog.pg_default_acl)
    OR EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid >= 16384)
    OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
"""
_EVERYTHING = FingerprintBudget(fraction=1, floor_bytes=0)


@dataclass(frozen=True)
class DeepPreview:
    """The database as of a moment, compared with the live one at `compared_at`; `phases` are seconds.

    Objects are `kind name`: those that a restore brings back, takes away, and defines anew; `facts` are those that
    differ of sequences, roles, settings and more. `not_compared` is what a restore takes back as well and this role
    cannot read, and the other databases of the server. A restore does not reach the rows of foreign tables; what else
    is left out, compared_facts says.
    """

    target: str
    label: str
    landing: str
    compared_at: datetime
    tables: list[TablePreview]
    comes_back: list[str]
    goes_away: list[str]
    redefined: list[str]
    facts: list[FactPreview]
    not_compared: list[str]
    phases: dict[str, float]

    @property
    def exact(self) -> bool:
        """Whether this is all that a restore would change; postgresql.conf and pg_hba.conf are no part of it."""
        return not self.not_compared

    @property
    def different(self) -> list[TablePreview]:
        """The tables that a restore would change."""
        return [table for table in self.tables if table.differs]


def deep_preview(
    installation: Installation,
    target: RecoveryTarget,
    *,
    destination: str | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> DeepPreview:
    """Restore to the target in a scratch cluster, compare it with the live database, and remove it.

    Raises what `explored` raises, SourceUnavailable, AuthenticationFailed, FingerprintForbidden.
    """
    # The live database comes first: where it cannot be reached, nothing needs to be restored.
    connect(installation.source, application_name="lifeboat preview").close()
    with explored(installation, target, destination=destination, on_progress=on_progress, on_amount=on_amount) as there:
        if on_progress is not None:
            on_progress("compare")
        began = datetime.now(UTC)
        found = _compare(installation, there)
        seconds = {**there.phases, "compare": round((datetime.now(UTC) - began).total_seconds(), 3)}
        old, new = _objects(found.before), _objects(found.after)
        comes_back, goes_away = sorted(set(old) - set(new)), sorted(set(new) - set(old))
        redefined = sorted(name for name in set(old) & set(new) if old[name] != new[name])
        told = {*comes_back, *goes_away, *redefined}
        return DeepPreview(
            target=str(target),
            label=there.planned.manifest.label,
            landing=str(there.found.landing),
            compared_at=found.after.taken_at,
            tables=found.tables,
            comes_back=comes_back,
            goes_away=goes_away,
            redefined=redefined,
            facts=[fact for fact in found.facts if fact.name not in told],
            not_compared=found.not_compared,
            phases=seconds,
        )


@dataclass(frozen=True)
class _Compared:
    before: Fingerprint
    after: Fingerprint
    tables: list[TablePreview]
    facts: list[FactPreview]
    not_compared: list[str]


def _compare(installation: Installation, there: Explored) -> _Compared:
    database = installation.source.database or "postgres"
    then_dsn = there.found.connection.with_database(database)
    with (
        closing(connect(then_dsn, application_name="lifeboat preview")) as then,
        closing(connect(installation.source, application_name="lifeboat preview")) as now,
    ):
        before, after = _fingerprint(then), _fingerprint(now)
        for side in (then, now):
            # The fingerprint has them off for its scans; without them the catalogs of many tables take minutes.
            apply_settings(side, dict.fromkeys(SCAN_SETTINGS, "on"))
        tables, not_compared = compare_tables(then, now, before, after)
        facts, unreadable = compare_facts(then, now)
        own = read_settings(there.found.cluster.data_dir / f"postgresql.auto.conf{KEPT_SUFFIX}")
        settings, unknown = compare_server_settings(own, now)
    others = _other_databases(there.found.connection, installation.source, database)
    return _Compared(before, after, tables, [*facts, *settings], [*not_compared, *unreadable, *unknown, *others])


def _other_databases(then: ConnectionInfo, now: ConnectionInfo, compared: str) -> list[str]:
    """The databases beside the compared one, but for those that are empty on both sides."""
    sides = []
    for side in (then, now):
        with closing(connect(side.with_database(compared), application_name="lifeboat preview")) as session:
            sides.append({str(row[0]) for row in session.execute(_DATABASES).fetchall()})
    before, after = sides
    found = []
    for name in sorted((before | after) - {compared}):
        if name not in after:
            found.append(f"database {name}: comes back")
        elif name not in before:
            found.append(f"database {name}: goes away")
        elif not (_is_empty(then, name) and _is_empty(now, name)):
            found.append(f"database {name}: only {compared} is compared")
    return found


def _is_empty(side: ConnectionInfo, database: str) -> bool:
    try:
        with closing(connect(side.with_database(database), application_name="lifeboat preview")) as session:
            row = session.execute(_HAS_OWN).fetchone()
    except (LifeboatError, psycopg.Error):
        return False  # closed to us: not known
    return row is not None and not row[0]


def _fingerprint(session: psycopg.Connection[Any]) -> Fingerprint:
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return take_fingerprint(session, budget=_EVERYTHING, lsn=None, exclude_schemas=OWN_SCHEMAS)


def _objects(fingerprint: Fingerprint) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in fingerprint.objects:
        found.setdefault(_object_name(item), []).append(item.sha256)
    return found


def _object_name(item: SchemaObject) -> str:
    return f"{item.kind} {item.name}"
