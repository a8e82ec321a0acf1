"""What an administrator reads about a preview, on a page and on a terminal."""

import re
from collections.abc import Sequence

from lifeboat.operations.preview.quick import RestorePreview
from lifeboat.recovery.targets import time_text
from lifeboat.recovery.undoing import TableUndone
from tasks.figures import count_text, duration_text, markdown_table, size_text

TABLE_COLUMNS = ("database", "table", "inserted", "updated", "deleted", "rows at the target", "what happened")
OBJECT_COLUMNS = ("object", "database", "in the restore", "because of", "at")
NUMBERS = TABLE_COLUMNS[2:6]
_LISTED = 200
_NUMBERS = re.compile(r"\d+/\d+")
_UNNAMED = (
    "numbers (database/file) stand for relations that came and went before agent, index or a backup looked at their "
    "names: a deep preview names them"
)


def table_rows(preview: RestorePreview) -> list[tuple[str, ...]]:
    """What is undone of each table; estimated counts say so."""
    return [
        (
            item.database,
            item.table,
            f"{item.inserted_rows:,}",
            f"{item.updated_rows:,}",
            f"{item.deleted_rows:,}",
            _rows_text(item),
            ", ".join(item.events),
        )
        for item in preview.tables
    ]


def object_rows(preview: RestorePreview) -> list[tuple[str, ...]]:
    """What comes back, goes or changes back."""
    return [(item.name, item.database, item.change, item.event, time_text(item.at)) for item in preview.objects]


def event_rows(preview: RestorePreview) -> list[tuple[str, str]]:
    """When what happened, to the microsecond, and by which transaction: both are targets of a restore."""
    return [(time_text(item.at), item.text + _by_whom(item.detail.get("xid"))) for item in preview.events]


def facts(preview: RestorePreview) -> list[tuple[str, str]]:
    """The plan, its size, its time and what it needs, line by line."""
    size, needs = preview.size, preview.needs
    wal = f"{count_text(size.wal_segments, 'WAL segment')} ({size_text(size.wal_stored_bytes)} stored)"
    rows = [
        ("target", time_text(preview.at)),
        ("timeline", str(preview.timeline)),
        ("known up to", time_text(preview.indexed_until) if preview.indexed_until else "nothing is indexed"),
        ("transactions lost", _transactions_text(preview)),
        ("begins with", preview.label),
        ("backups needed", ", ".join(preview.chain)),
        ("to be read", f"{size_text(size.backups_bytes)} of backups, {wal}"),
        ("predicted time", _prediction_text(preview)),
        (
            "space needed",
            f"up to about {size_text(needs.disk_bytes)}; {size_text(needs.scratch_free_bytes)} are free for previews",
        ),
        ("PostgreSQL", needs.postgresql or "?"),
    ]
    if needs.extensions:
        rows.append(
            ("extensions", ", ".join(f"{name} {version}" for name, version in sorted(needs.extensions.items())))
        )
    if needs.tablespaces:
        rows.append(("tablespaces", ", ".join(needs.tablespaces.values())))
    return rows


def remarks(preview: RestorePreview) -> list[str]:
    """Why figures may be wrong, what is in the way, and what was noticed."""
    return [
        *(f"not exact: {text}" for text in preview.doubts),
        *([_UNNAMED] if any(_NUMBERS.fullmatch(item.table) for item in preview.tables) else []),
        *(f"in the way: {text}" for text in preview.needs.problems),
        *preview.notes,
    ]


def preview_report(preview: RestorePreview) -> str:
    """A Markdown page."""
    parts = [f"# Restoring to {preview.target}", markdown_table(("what", "value"), facts(preview))]
    parts += [f"- {text}" for text in remarks(preview)]
    parts.append("## Tables")
    if preview.tables:
        parts.append("Rows that were inserted, updated and deleted since the target; a restore takes that back.")
    parts.append(_listed(TABLE_COLUMNS, table_rows(preview), "No committed row has changed since."))
    if preview.objects:
        parts += ["## Objects", _listed(OBJECT_COLUMNS, object_rows(preview), "")]
    if preview.events:
        parts += ["## Events since", _listed(("at", "what"), event_rows(preview), "")]
    return "\n\n".join(parts)


def _listed(columns: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> str:
    if not rows:
        return nothing
    more = f"\n\n… and {len(rows) - _LISTED:,} more." if len(rows) > _LISTED else ""
    return markdown_table(columns, rows[:_LISTED]) + more


def _by_whom(xid: int | None) -> str:
    return f" (transaction {xid})" if xid else ""


def _rows_text(item: TableUndone) -> str:
    if not item.estimated:
        return ""
    return "not known" if item.rows_at_target is None else f"about {item.rows_at_target:,} (estimated)"


def _transactions_text(preview: RestorePreview) -> str:
    lost = preview.transactions
    if lost is None:
        return "not known"
    if lost.count == 0 or lost.first_at is None or lost.last_at is None:
        return "none"
    return f"{lost.count:,}, from {time_text(lost.first_at)} to {time_text(lost.last_at)}"


def _prediction_text(preview: RestorePreview) -> str:
    time = preview.time
    missing = f"; not measured yet, so not in it: {', '.join(time.not_measured)}" if time.not_measured else ""
    if time.seconds is None:
        return f"not known: {time.basis}"
    return f"about {duration_text(time.seconds)} {time.basis}{missing}"
