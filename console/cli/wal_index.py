"""`lifeboat wal index`."""

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from console.cli.session import installation_of
from tasks.figures import count_text, duration_text, size_text, time_text


def index(context: typer.Context, as_json: AsJson = False) -> None:
    """Index what transactions did: previews answer from it.

    It counts committed changes, table by table and minute by minute.

    Only what is new in the archive is read; the flow `wal-index` does it every ten minutes.

    Exit code 3 when WAL is missing or cannot be decoded.
    """
    from lifeboat.operations.wal.index import index_wal
    from lifeboat.wal.activity.index import IndexProgress
    from tasks.wal_index_report import TIMELINE_COLUMNS, problem_texts, timeline_rows

    with follow("indexing WAL") as follower:

        def tell(progress: IndexProgress) -> None:
            follower.amount(progress.read_bytes, progress.total_bytes)

        report = index_wal(installation_of(context), on_progress=tell)
    if as_json:
        totals = {"read_bytes": report.read_bytes, "records": report.records, "events": report.events}
        say_json({**vars(report), **totals, "indexed_until": report.indexed_until, "stopped": report.stopped})
    else:
        say_table(TIMELINE_COLUMNS, timeline_rows(report), right=("read", "records", "notable events"))
        events = count_text(report.events, "notable event")
        say(f"{size_text(report.read_bytes)} read in {duration_text(report.duration_seconds)}, {events}")
        if report.indexed_until is not None:
            say(f"indexed up to {time_text(report.indexed_until)}")
        for text in problem_texts(report):
            notice(f"note: {text}")
    if report.stopped:
        raise typer.Exit(3)
