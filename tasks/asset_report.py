"""What an administrator reads about an asset check."""

from typing import Any

from lifeboat.assets.findings import AssetReport, FindingKind
from tasks.figures import duration_text, markdown_table, size_text, time_text

_LISTED = 100


def asset_report(report: AssetReport) -> str:
    """A Markdown page: counts, speed, and the first findings by path."""
    verdict = "all are what the database says" if report.sound else f"{report.total_findings:,} are not"
    seconds = max(report.duration_seconds, 0.001)
    facts = [
        ("files checked", f"{report.checked:,}"),
        ("bytes read", size_text(report.bytes_checked)),
        ("duration", f"{duration_text(report.duration_seconds)}, {size_text(int(report.bytes_checked / seconds))}/s"),
        ("missing", f"{report.missing:,}"),
        ("corrupt", f"{report.corrupt:,}"),
        ("unreadable", f"{report.unreadable:,}"),
        ("without a checksum in the database", f"{report.without_checksum:,}"),
        ("share of all files", f"{report.sample_fraction:.0%}"),
        ("went on where another run stopped", "yes" if report.resumed else "no"),
    ]
    parts = [f"# Assets: {report.checked:,} checked, {verdict}", time_text(report.completed_at)]
    parts.append(markdown_table(("what", "value"), facts))
    if report.findings:
        shown = [(item.kind, f"`{item.path}`", item.asset_id, item.detail) for item in report.findings[:_LISTED]]
        parts += ["## Findings", markdown_table(("what", "path", "asset", "detail"), shown)]
        if report.total_findings > len(shown):
            parts.append(f"… and {report.total_findings - len(shown):,} more; the catalog has all of them.")
    return "\n\n".join(parts)


def finding_rows(report: AssetReport) -> dict[FindingKind, list[dict[str, Any]]]:
    """The findings as a table for each kind that occurred."""
    tables: dict[FindingKind, list[dict[str, Any]]] = {}
    for item in report.findings:
        tables.setdefault(item.kind, []).append(
            {
                "path": item.path,
                "asset": item.asset_id,
                "kind": item.asset_kind,
                "detail": item.detail,
                "expected_sha256": item.expected_sha256,
                "actual_sha256": item.actual_sha256,
            }
        )
    return tables
