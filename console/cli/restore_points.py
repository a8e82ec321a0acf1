"""`lifeboat restore points` and `lifeboat restore point add`."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson, Destination
from console.cli.output import notice, say, say_json, say_table
from console.cli.session import installation_of, with_source
from tasks.figures import count_text, time_text

if TYPE_CHECKING:
    from datetime import datetime

    from lifeboat.operations.points.restore_points import RestorePoints
    from lifeboat.recovery.restore_points import TimelineReach

point = typer.Typer(no_args_is_help=True, help="Named restore points.")

From = Annotated[str | None, typer.Option("--from", metavar="T", help="Only what reaches this time; also `15m ago`.")]
To = Annotated[str | None, typer.Option("--to", metavar="T", help="Only what begins by this time.")]
Timeline = Annotated[int | None, typer.Option("--timeline", metavar="N", help="Only this timeline; else all.")]


def points(  # noqa: PLR0913 - one option each
    context: typer.Context,
    start: From = None,
    end: To = None,
    timeline: Timeline = None,
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Show which moments can be restored, and what was happening then.

    Read from storage: this works while the catalog and the platform are down, and says what it lacks then.
    Exit code 3 when WAL is missing or damaged, or nothing can be restored.
    """
    from datetime import UTC, datetime

    from lifeboat.operations.points.restore_points import PointsOrder, list_restore_points
    from lifeboat.recovery.targets import parse_time

    now = datetime.now(UTC)
    order = PointsOrder(
        parse_time(start, now) if start else None, parse_time(end, now) if end else None, timeline, destination
    )
    found = list_restore_points(installation_of(context), order)
    if as_json:
        say_json(_as_json(found))
    else:
        _show(found)
    for unread in found.unread:
        notice(f"note: {unread}")
    for what in found.missing:
        notice(f"note: {what}")
    if found.found_faults:
        raise typer.Exit(3)


@point.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name, which no other restore point has.")],
    as_json: AsJson = False,
) -> None:
    """Make a named restore point now; it is done when the archive has it."""
    from lifeboat.operations.points.named import add_restore_point

    made = add_restore_point(with_source(context), name)
    record = made.record
    if as_json:
        say_json(record)
        return
    say(f"{record.name}: {time_text(record.at)}, LSN {record.lsn} on timeline {record.timeline}, archived")


def _as_json(found: "RestorePoints") -> dict[str, object]:
    # Texts that people read, and what follows from the rest, go along: a program need not know our rules.
    timelines = [
        {
            "timeline": reach.timeline,
            "current": reach.current,
            "parent": reach.parent,
            "branched_lsn": _lsn(reach.branched_lsn),
            "earliest": reach.earliest,
            "latest": reach.latest,
            "windows": [{**vars(window), "seconds": window.seconds} for window in reach.windows],
            "gaps": [
                {
                    "after": hole.after,
                    "before": hole.before,
                    "reason": hole.reason,
                    "segments": [segment.name for segment in hole.segments],
                    "left_timeline": hole.left,
                    "text": str(hole),
                }
                for hole in reach.holes
            ],
            "why_not": reach.why_not,
        }
        for reach in found.timelines
    ]
    return {
        "cluster": found.cluster,
        "asked_at": found.asked_at,
        "timelines": timelines,
        "damaged_segments": found.damaged,
        "restore_points": [{**vars(each), "restorable": each.why_not is None} for each in found.named],
        "annotations": found.marks,
        "annotations_from": found.marks_from,
        "annotations_to": found.marks_to,
        "unindexed": [{**vars(each), "text": str(each)} for each in found.unread],
        "why_no_later": found.why_no_later,
        "missing": found.missing,
    }


def _lsn(position: int | None) -> str | None:
    from lifeboat.wal.names import format_lsn

    return None if position is None else format_lsn(position)


def _show(found: "RestorePoints") -> None:
    for reach in found.timelines:
        _show_timeline(reach)
    if found.why_no_later is not None:
        say(f"  {found.why_no_later}")
    if not found.timelines:
        say("Nothing can be restored to a moment: there is no physical backup and no archived WAL.")
    for segment in found.damaged:
        say(f"DAMAGED {segment.name}: {segment.reason}")
    if found.named:
        say()
        rows = [(each.name, _moment(each.at), each.timeline, each.lsn, each.why_not or "yes") for each in found.named]
        say_table(("restore point", "at (UTC)", "timeline", "LSN", "can be restored"), rows, right=("timeline",))
    say()
    period = f"from {time_text(found.marks_from)} to {time_text(found.marks_to)}"
    if not found.marks:
        say(f"Nothing is known to have happened {period}; --from looks further back.")
        return
    say(f"What happened {period}:")
    marks = [
        (_moment(each.at), each.timeline or "", each.xid or "", each.kind, each.text, each.actor)
        for each in found.marks
    ]
    say_table(("at (UTC)", "timeline", "xid", "kind", "what", "who"), marks, right=("timeline", "xid"))


def _show_timeline(reach: "TimelineReach") -> None:
    words = [f"Timeline {reach.timeline}"]
    if reach.current:
        words.append("(the current one)")
    if reach.parent is not None:
        words.append(f"branched from timeline {reach.parent} at {_lsn(reach.branched_lsn)}")
    say(f"{' '.join(words)}: {reach.why_not or ''}".rstrip())
    for window in reach.windows:
        say(f"  {window} ({count_text(len(window.backups), 'backup')})")
    for hole in reach.holes:
        say(f"  {'GAP: ' if hole.is_fault else ''}{hole}")


def _moment(at: "datetime") -> str:
    """To the microsecond: what is read here is typed behind `--at`."""
    from lifeboat.recovery.targets import time_text as exact_time_text

    return exact_time_text(at).removesuffix(" UTC")
