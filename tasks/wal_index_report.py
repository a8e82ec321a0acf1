"""What an administrator reads about a run of the activity index."""

from lifeboat.operations.wal.index import WalIndexReport
from lifeboat.wal.names import format_lsn
from tasks.figures import duration_text, markdown_table, size_text, time_text

TIMELINE_COLUMNS = ("timeline", "read", "up to", "last commit", "records", "notable events")


def timeline_rows(report: WalIndexReport) -> list[tuple[str, ...]]:
    """What was read, by timeline; one that had nothing new is there too."""
    return [
        (
            str(item.timeline),
            size_text(item.read_bytes),
            format_lsn(item.end_lsn) if item.end_lsn is not None else "",
            time_text(item.latest_at) if item.latest_at is not None else "",
            f"{item.records:,}",
            f"{item.events:,}",
        )
        for item in report.timelines
    ]


def problem_texts(report: WalIndexReport) -> list[str]:
    """What keeps the index from being whole, and what cannot be told exactly."""
    gaps = [gap.describe() for timeline in report.timelines for gap in timeline.gaps]
    unsure = [
        f"timeline {timeline.timeline}: so many subtransactions were open at once that the counts may be too high"
        for timeline in report.timelines
        if timeline.approximate
    ]
    return [*report.stopped, *gaps, *unsure, *report.notes]


def wal_index_report(report: WalIndexReport) -> str:
    """A Markdown page: what was read and how fast, and what is in the way."""
    seconds = max(report.duration_seconds, 0.001)
    until = report.indexed_until
    facts = [
        ("indexed up to", time_text(until) if until is not None else "nothing yet"),
        ("WAL read", f"{size_text(report.read_bytes)}, {size_text(int(report.read_bytes / seconds))}/s"),
        ("duration", duration_text(report.duration_seconds)),
        ("notable events", f"{report.events:,}"),
    ]
    parts = [f"# WAL index of {report.cluster}", markdown_table(("what", "value"), facts)]
    if report.timelines:
        parts.append(markdown_table(TIMELINE_COLUMNS, timeline_rows(report)))
    parts += [f"Note: {text}" for text in problem_texts(report)]
    return "\n\n".join(parts)
