"""What an administrator reads about the WAL archive, and what is announced of it."""

import logging

from lifeboat.operations.installation import LOG
from lifeboat.operations.wal.health import WalHealthReport
from lifeboat.wal.scrub import ScrubReport
from tasks.figures import count_text, duration_text, markdown_table, size_text, time_text
from tasks.publishing import announce, publish_markdown
from tasks.wal_figures import SLOT_COLUMNS, server_facts, slot_rows

_LISTED = 100


def health_report(report: WalHealthReport) -> str:
    """A Markdown page: the verdict, its reasons with what to do, and the figures behind it."""
    alerts = report.verdict.alerts
    title = "healthy" if not alerts else count_text(len(alerts), "alert")
    parts = [f"# WAL archiving: {title}", time_text(report.at)]
    if report.verdict.findings:
        rows = [(item.severity, item.what, item.advice) for item in report.verdict.findings]
        parts.append(markdown_table(("severity", "what", "what to do"), rows))
    if report.verdict.full_wanted is not None:
        parts.append(
            f"**A full backup is wanted**: {report.verdict.full_wanted}. The next scheduled differential or incremental"
            " backup will be a full one; `lifeboat backup run --type full` takes it now."
        )
    parts.append(markdown_table(("what", "value"), [*_archive_facts(report), *server_facts(report.server)]))
    if report.server is not None and report.server.slots:
        parts += ["## Replication slots", markdown_table(SLOT_COLUMNS, slot_rows(report.server))]
    return "\n\n".join(parts)


def _archive_facts(report: WalHealthReport) -> list[tuple[str, str]]:
    if report.status is None:
        return [("archive", "cannot be read")]
    listing, record = report.status.listing, report.status.record
    verified = record.completed_at if record is not None else None
    return [
        ("archive", report.status.archive),
        ("segments", f"{sum(item.count for item in listing.ranges):,}, {size_text(listing.stored_bytes)}"),
        ("gaps", f"{len(report.status.gaps):,}"),
        ("damaged segments", f"{len(report.status.damaged):,}"),
        ("contents all read", time_text(verified) if verified is not None else "not yet: `lifeboat wal verify`"),
    ]


def report_health(report: WalHealthReport) -> None:
    """A look at archiving, with or without alerts."""
    alerts = report.verdict.alerts
    title = "; ".join(item.what for item in alerts[:3]) or "healthy"
    LOG.log(logging.ERROR if alerts else logging.INFO, "WAL archiving: %s", title)
    publish_markdown("wal-health", health_report(report), title)
    findings = [
        {"severity": item.severity.value, "code": item.code, "what": item.what, "advice": item.advice}
        for item in report.verdict.findings
    ]
    payload = {"findings": findings[:_LISTED], "full_wanted": report.verdict.full_wanted}
    event = "wal.alert" if alerts else "wal.healthy"
    announce(event, kind="wal", identifier="archiving", name="WAL archiving", payload=payload)


def scrub_report(report: ScrubReport) -> str:
    """A Markdown page: what was read, and everything that is known to be wrong."""
    verdict = "sound" if report.sound else count_text(len(report.findings) + len(report.gaps), "finding")
    seconds = max(report.duration_seconds, 0.001)
    facts = [
        ("archive", report.archive),
        ("segments read", f"{report.segments_read:,}"),
        ("WAL read", f"{size_text(report.bytes_read)}, {size_text(int(report.bytes_read / seconds))}/s"),
        ("duration", duration_text(report.duration_seconds)),
        ("left for the next run", count_text(report.segments_left, "segment")),
    ]
    parts = [f"# WAL archive: {verdict}", time_text(report.started_at), markdown_table(("what", "value"), facts)]
    rows = [(item.name, item.kind.value, item.reason, time_text(item.found_at)) for item in report.findings[:_LISTED]]
    rows += [(f"{gap.first.name} to {gap.last.name}", "gap", "missing", "") for gap in report.gaps[:_LISTED]]
    if rows:
        parts.append(markdown_table(("file", "kind", "what", "found"), rows))
        parts.append("Restores do not cross these. `wal-health` asks for a full backup where none begins behind them.")
    parts += [f"Note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def report_scrub(report: ScrubReport) -> None:
    """A run of the scrub, whatever it found."""
    found = count_text(len(report.findings) + len(report.gaps), "finding")
    title = f"{count_text(report.segments_read, 'segment')} read, {found}"
    LOG.log(logging.INFO if report.sound else logging.ERROR, "WAL archive: %s", title)
    publish_markdown("wal-verify", scrub_report(report), title)
    payload = {
        "segments_read": report.segments_read,
        "segments_left": report.segments_left,
        "findings": [{"name": item.name, "kind": item.kind.value} for item in report.findings[:_LISTED]],
        "gaps": [{"first": gap.first.name, "last": gap.last.name} for gap in report.gaps[:_LISTED]],
    }
    event = "wal.verified" if report.sound else "wal.damaged"
    announce(event, kind="wal", identifier="archive", name="WAL archive", payload=payload)
