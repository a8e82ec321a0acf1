"""One table's rows as of a moment, brought beside the live ones."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.catalog.values import RestoreTarget
from lifeboat.engines.engine import Progress
from lifeboat.errors import PermanentError
from lifeboat.operations.drill.restore_drill import Phases
from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.rescued_rows import compare, copy_rows, how_to_put_back
from lifeboat.postgres.connections import connect
from lifeboat.recovery.targets import RecoveryTarget

_KIND = "SELECT c.relkind::text FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s)"


class RescueFailed(PermanentError):
    """The table was not there at that moment, or its rows cannot be brought into the live database."""


@dataclass(frozen=True)
class Rescued:
    """The rows as of a moment in `rescued_table`, and how they differ from the live table.

    The counts are None where the live table is not there; without the same primary key on both sides whole rows were
    compared, and `different` is None. `keys` are some of the primary keys of each kind. `phases` are seconds.
    """

    target: str
    landing: str
    table: str
    rescued_table: str
    rows: int
    only_rescued: int | None
    only_live: int | None
    different: int | None
    keys: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    next_steps: list[str] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)


def rescue_table(  # noqa: PLR0913 - which table, of when, from where, and who is told
    installation: Installation,
    target: RecoveryTarget,
    schema: str,
    name: str,
    *,
    destination: str | None = None,
    on_progress: Callable[[str], None] | None = None,
    on_amount: Callable[[Progress], None] | None = None,
) -> Rescued:
    """Copy one table as of the target into a new schema of the live database, and compare; nothing else is changed.

    Rows stream through us in bounded memory. A killed run leaves no half copy: it is one transaction. Raises
    RescueFailed and what `explored` and connections raise.
    """
    source = installation.source
    # The live database comes first: where it cannot be reached, nothing needs to be restored.
    connect(source, application_name="lifeboat rescue").close()
    with explored(
        installation,
        target,
        kind=RestoreTarget.RESCUE,
        destination=destination,
        on_progress=on_progress,
        on_amount=on_amount,
    ) as there:
        phases = Phases(on_progress, on_amount, there.phases, doing="rescue")
        dsn = there.found.connection.with_database(source.database or "postgres")
        with closing(connect(source, application_name="lifeboat rescue")) as live:
            with phases("copy rows"), closing(connect(dsn, application_name="lifeboat rescue")) as then:
                _require_table(then, schema, name)
                try:
                    rescued = copy_rows(then, live, (schema, name), datetime.now(UTC), phases.amount)
                except psycopg.Error as error:
                    raise RescueFailed(
                        f"the rows of {schema}.{name} cannot be brought into the live database: "
                        f"{error.diag.message_primary or error}",
                        hint="The role needs CREATE on the database, which needs room for the rows.",
                    ) from error
            with phases("compare"):
                comparison = compare(live, (schema, name), rescued)
                put_back = how_to_put_back(live, (schema, name), rescued)
        landing = str(there.found.landing)
    notes = [*rescued.notes, *comparison.pop("notes")]
    return Rescued(
        target=str(target),
        landing=landing,
        table=f"{schema}.{name}",
        rescued_table=f"{rescued.schema}.{name}",
        rows=rescued.rows,
        notes=notes,
        next_steps=[
            f"Look at them: TABLE {rescued.table.as_string()};",
            *put_back,
            f"When you are done: DROP SCHEMA {sql.Identifier(rescued.schema).as_string()} CASCADE;",
        ],
        phases=phases.seconds,
        **comparison,
    )


def _require_table(then: psycopg.Connection[Any], schema: str, name: str) -> None:
    row = then.execute(_KIND, (sql.Identifier(schema, name).as_string(),)).fetchone()
    if row is None or row[0] not in {"r", "p", "m"}:
        raise RescueFailed(
            f"there was no table {schema}.{name} at that moment",
            hint="Write it as SCHEMA.TABLE; `lifeboat explore` shows what was there.",
        )
