"""`lifeboat wal verify`: the scrub of the archive, in this process."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from console.cli.session import installation_of
from tasks.figures import count_text, duration_text, size_text, time_text

if TYPE_CHECKING:
    from lifeboat.wal.scrub import ScrubProgress, ScrubReport


def verify(
    context: typer.Context,
    everything: Annotated[
        bool, typer.Option("--all", help="Read every segment, also those that were read not long ago.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read what archived WAL holds: checksums, page headers, records.

    It reads what was never read or not for `wal.verify_max_age_days`, and goes on where an interrupted run stopped.
    The findings stay with the archive: `wal status` shows them, and restores do not cross them.

    Exit code 3 when something is damaged or missing.
    """
    from lifeboat.operations.wal.verify import verify_wal

    with follow("reading WAL") as follower:

        def tell(progress: "ScrubProgress") -> None:
            follower.amount(progress.read_bytes, progress.due_bytes)

        report = verify_wal(installation_of(context), everything=everything, on_progress=tell)
    if as_json:
        say_json({"sound": report.sound, **vars(report)})
    else:
        _show(report)
    if not report.sound:
        raise typer.Exit(3)


def _show(report: "ScrubReport") -> None:
    rows = [(item.name, item.kind.value, item.reason, time_text(item.found_at)) for item in report.findings]
    rows += [(gap.first.name, "gap", f"missing up to {gap.last.name}", "") for gap in report.gaps]
    if rows:
        say_table(("file", "kind", "what", "found"), rows)
    say(
        f"{count_text(report.segments_read, 'segment')}, {size_text(report.bytes_read)} of WAL read in "
        f"{duration_text(report.duration_seconds)}: {len(report.findings)} damaged, "
        f"{count_text(len(report.gaps), 'gap')}"
    )
    for note in report.notes:
        notice(f"note: {note}")
    if report.segments_left:
        notice(f"note: {count_text(report.segments_left, 'segment')} are left for the next run")
