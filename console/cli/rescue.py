"""`lifeboat rescue`: one table's rows as of a moment, beside the live ones."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson, At, Backup, Before, Destination, Lsn, Name, Timeline, Xid
from console.cli.output import say, say_json
from console.cli.progress import follow
from console.cli.restore_run import target_of
from console.cli.session import with_source
from tasks.figures import count_text

if TYPE_CHECKING:
    from lifeboat.operations.restore.rescue import Rescued

_KINDS = {
    "only_rescued": "only among the rescued",
    "only_live": "only in the live table",
    "different": "in both, but different",
}


def command(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    table: Annotated[
        str, typer.Option("--table", metavar="SCHEMA.TABLE", help='The table; quote names with dots: `public."a.b"`.')
    ],
    at: At = None,
    name: Name = None,
    lsn: Lsn = None,
    xid: Xid = None,
    backup: Backup = None,
    timeline: Timeline = None,
    before: Before = False,
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Bring one table's rows as of a moment into a new schema `rescue_…` of the live database.

    Nothing else is changed there. Shows which rows only the one or the other has, and which differ, by primary key.
    """
    from lifeboat.operations.restore.rescue import rescue_table
    from lifeboat.operations.restore.rescued_rows import parse_table
    from lifeboat.recovery.targets import TargetUnreadable

    schema, relation = parse_table(table)
    given = {"at": at, "name": name, "lsn": lsn, "xid": xid, "backup": backup}
    if all(value is None for value in given.values()):
        raise TargetUnreadable("name the moment", hint="--at, --name, --lsn, --xid or --backup.")
    target = target_of(**given, timeline=timeline, inclusive=not before)
    with follow(f"rescue {table}") as follower:
        found = rescue_table(
            with_source(context),
            target,
            schema,
            relation,
            destination=destination,
            on_progress=follower.phase,
            on_amount=lambda progress: follower.amount(progress.done_bytes, progress.total_bytes),
        )
    say_json(found) if as_json else _show(found)


def _show(found: "Rescued") -> None:
    say(f"{count_text(found.rows, 'row')} of {found.table} as of {found.target}: in {found.rescued_table}")
    say(f"  landed: {found.landing}")
    if found.only_rescued is not None:
        say(f"  only among the rescued: {found.only_rescued:,}")
        say(f"  only in the live table: {found.only_live:,}")
    if found.different is not None:
        say(f"  in both, but different: {found.different:,}")
    for kind, keys in found.keys.items():
        say(f"  keys, {_KINDS[kind]}: {', '.join(keys[:10])}" + (", …" if len(keys) > 10 else ""))
    for note in found.notes:
        say(f"  note: {note}")
    for step in found.next_steps:
        say(f"  {step}")
