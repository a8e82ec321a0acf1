"""How `lifeboat wal status` and `wal health` show what they found."""

from typing import TYPE_CHECKING

from console.cli.output import mark, say, say_table
from tasks.figures import count_text, size_text, time_text
from tasks.wal_figures import SLOT_COLUMNS, server_facts, slot_rows

if TYPE_CHECKING:
    from pathlib import Path

    from lifeboat.operations.wal.health import WalHealthReport
    from lifeboat.operations.wal.status import WalStatus
    from lifeboat.wal.coverage import SegmentRange
    from lifeboat.wal.health import ServerWal


def show_status(found: "WalStatus", gaps: "tuple[SegmentRange, ...]") -> None:
    """Write ranges and gaps, damage, and the server's side; `gaps` are those that matter."""
    _show_listing(found, gaps)
    if found.history_error is not None:
        say(f"MISSING {found.history_error}")
    for finding in found.findings:
        say(f"DAMAGED {finding} (found {time_text(finding.found_at)})")
    say(_verified(found))
    if found.server is None:
        say(f"The server cannot be asked how far it is ahead: {found.server_error}")
    else:
        _show_server(found.server)


def show_health(report: "WalHealthReport", settings_file: "Path | None") -> None:
    """Write the verdict, with what to do about each finding."""
    from lifeboat.settings.own_command import own_command

    for finding in report.verdict.findings:
        say(f"{mark('failed' if finding in report.verdict.alerts else 'warning', 8)} {finding.what}")
        say(f"         {finding.advice}")
    if report.verdict.full_wanted is not None:
        now = own_command(settings_file, "backup", "run", "--type", "full")
        say(f"The next differential or incremental backup will be a full one. Now: {now}")
    if report.server is not None:
        _show_server(report.server)
    if not report.verdict.findings:
        say("WAL archiving is healthy.")


def status_as_json(found: "WalStatus", gaps: "tuple[SegmentRange, ...]") -> dict[str, object]:
    """What `wal status --json` writes; `gaps` are those that matter."""

    def ranges(items: "tuple[SegmentRange, ...]") -> list[dict[str, object]]:
        names = ("timeline", "first", "last", "segments")
        return [dict(zip(names, _range_row(item), strict=True)) for item in items]

    listing, server, record = found.listing, found.server, found.record
    return {
        "archive": listing.archive,
        "system_identifier": listing.system_identifier,
        "stored_bytes": listing.stored_bytes,
        "files": len(listing.files),
        "ranges": ranges(listing.ranges),
        "gaps": ranges(found.gaps),
        "gaps_that_matter": ranges(gaps),
        "damaged": [{"name": item.name, "path": item.path, "reason": item.reason} for item in listing.damaged],
        "findings": found.findings,
        "verified_at": record.completed_at if record is not None else None,
        "history_timelines": listing.history_timelines,
        "segments_behind": server.segments_behind if server is not None else None,
        "lag_bytes": server.lag_bytes if server is not None else None,
        "server": server,
        "notes": [note for note in (found.server_error, found.record_error, found.history_error) if note is not None],
    }


def _show_listing(found: "WalStatus", gaps: "tuple[SegmentRange, ...]") -> None:
    listing = found.listing
    size = size_text(listing.stored_bytes)
    say(f"{listing.archive}: {count_text(len(listing.files), 'file')}, {size}, of system {listing.system_identifier}")
    rows = [(item.first.start_lsn, "range", *_range_row(item)) for item in listing.ranges]
    rows += [(item.first.start_lsn, "GAP", *_range_row(item)) for item in gaps]
    others = (item for item in found.gaps if not any(_overlap(item, gap) for gap in gaps))
    rows += [(item.first.start_lsn, "gap", *_range_row(item)) for item in others]
    ordered = [row[1:] for row in sorted(rows, key=lambda row: (row[2], row[0]))]
    if ordered:
        say_table(
            ("what", "timeline", "first segment", "last segment", "segments"), ordered, right=("timeline", "segments")
        )
    else:
        say("No segment was archived yet.")
    for damaged in listing.damaged:
        say(f"DAMAGED {damaged.path}: {damaged.reason}")


def _overlap(one: "SegmentRange", other: "SegmentRange") -> bool:
    return one.timeline == other.timeline and one.first <= other.last and other.first <= one.last


def _range_row(item: "SegmentRange") -> tuple[int, str, str, int]:
    return item.timeline, item.first.name, item.last.name, item.count


def _verified(found: "WalStatus") -> str:
    if found.record_error is not None:
        return f"What `lifeboat wal verify` found cannot be read: {found.record_error}"
    if found.record is None:
        return "The contents were not read yet: `lifeboat wal verify` does that."
    if found.record.completed_at is None:
        return "The contents were read in part: `lifeboat wal verify` goes on."
    return f"The contents of all segments that were there at {time_text(found.record.completed_at)} have been read."


def _show_server(server: "ServerWal") -> None:
    for what, value in server_facts(server):
        say(f"{what}: {value}")
    if server.slots:
        say_table(SLOT_COLUMNS, slot_rows(server), right=("kept", "until it is lost"))
