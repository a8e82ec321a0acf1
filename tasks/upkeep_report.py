"""What an administrator reads about retention and reconciling."""

from typing import Any

from lifeboat.operations.results import ExpiryReport, ReconcileReport
from lifeboat.retention.policy import ExpiryPlan
from tasks.figures import markdown_table, size_text, time_text


def decision_rows(plan: ExpiryPlan) -> list[dict[str, Any]]:
    """A retention plan as a table: every backup, what becomes of it, and why."""
    return [
        {
            "label": decision.candidate.label,
            "verdict": decision.verdict.value,
            "why": "; ".join(decision.reasons),
            "type": decision.candidate.type.value,
            "engine": decision.candidate.engine,
            "completed": time_text(decision.candidate.completed_at),
            "size": size_text(decision.candidate.size_bytes),
            "verified": decision.candidate.verified,
            "pinned": decision.candidate.pinned,
        }
        for decision in plan.decisions
    ]


def expiry_report(destination: str, report: ExpiryReport) -> str:
    """A Markdown page: what went, what stayed, and why."""
    parts = [f"# Retention at {destination}: {len(report.expired)} expired, {size_text(report.freed_bytes)} freed"]
    parts.append(f"Plan `{report.plan_hash}`")
    for title, lines in (("Expired", report.expired), ("Kept", report.kept)):
        if lines:
            shown = [(f"`{label}`", why) for label, why in lines]
            parts += [f"## {title}", markdown_table(("label", "why"), shown)]
    if report.removed_unfinished:
        labels = ", ".join(f"`{label}`" for label in report.removed_unfinished)
        parts += ["## Unfinished folders removed", labels]
    return "\n\n".join(parts)


def reconcile_report(report: ReconcileReport) -> str:
    """A Markdown page: what the catalog had wrong."""
    rows = [
        *(("row repaired", f"`{identifier}`", what) for identifier, what in report.repaired),
        *(("row made from its manifest", f"`{label}`", "") for label in report.adopted),
        *(("completed, but not in storage", label, "look for it at once") for label in report.missing_in_storage),
        *(("destination not read", name, why) for name, why in report.unread.items()),
        *(("scratch cluster removed", f"`{path}`", "") for path in report.removed_scratch),
        *(("temporary database dropped", f"`{name}`", "") for name in report.removed_databases),
        *(("annotation made as storage has it", text, "") for text in report.annotations),
    ]
    return f"# Reconciling\n\n{markdown_table(('what', 'where', 'detail'), rows)}"
