"""What an administrator reads about a restore drill."""

from typing import Any

from lifeboat.operations.results import DrillReport
from tasks.figures import duration_text, markdown_table, time_text

_LISTED = 50


def drill_report(report: DrillReport) -> str:
    """A Markdown page: the verdict first, then what it rests on."""
    verdict = "passed: it restores, and is what was backed up" if report.passed else "FAILED"
    where = {"scratch": "scratch cluster", "database": "temporary database"}[report.target]
    span = f"{time_text(report.started_at)} to {time_text(report.completed_at)}, into a {where}"
    parts = [f"# Restore drill of {report.label} {verdict}", span]
    if report.faults:
        parts += ["## Faults", _listed(report.faults)]
    parts += ["## Time", markdown_table(("phase", "duration"), _phases(report))]
    parts += ["## Compared", f"{report.compared_tables} tables equal the fingerprint taken at backup time."]
    if report.not_compared:
        parts += [f"{len(report.not_compared)} not compared, for a reason:", _listed(report.not_compared)]
    if report.validations:
        asked = [(name, "right" if right else "WRONG", answer) for name, right, answer in report.validations]
        parts += ["## Validation queries", markdown_table(("question", "verdict", "answer"), asked)]
    if report.notes:
        parts += ["## Notes", _listed(report.notes)]
    return "\n\n".join(parts)


def phase_rows(report: DrillReport) -> list[dict[str, Any]]:
    """The phases as a table, in seconds: what another restore will take can be told from it."""
    return [{"phase": name, "seconds": seconds} for name, seconds in report.phases.items()]


def question_rows(report: DrillReport) -> list[dict[str, Any]]:
    """The validation queries as a table."""
    return [{"question": name, "right": right, "answer": answer} for name, right, answer in report.validations]


def _phases(report: DrillReport) -> list[tuple[str, str]]:
    lines = [(name, duration_text(seconds)) for name, seconds in report.phases.items()]
    total = (report.completed_at - report.started_at).total_seconds()
    return [*lines, ("all", duration_text(total))]


def _listed(items: list[str]) -> str:
    lines = [f"- {item.replace(chr(10), ' ')}" for item in items[:_LISTED]]
    if len(items) > _LISTED:
        lines.append(f"- … and {len(items) - _LISTED} more")
    return "\n".join(lines)
