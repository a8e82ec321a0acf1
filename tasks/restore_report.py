"""What an administrator reads about a restore."""

from lifeboat.operations.restore.results import RestoreReport
from tasks.figures import duration_text, markdown_table, time_text


def restore_report(report: RestoreReport) -> str:
    """A Markdown page: where it landed first, then what it took, then what to do next."""
    facts = [
        ("backup", " + ".join(report.chain)),
        ("place", report.place),
        ("began", time_text(report.started_at)),
        ("ended", time_text(report.completed_at)),
    ]
    if report.heartbeat_at is not None:
        facts.append(("newest heartbeat", time_text(report.heartbeat_at)))
    if report.kept is not None:
        facts.append(("old data", report.kept))
    phases = [(name, duration_text(seconds)) for name, seconds in report.phases.items()]
    parts = [
        f"# Restored to {report.target}",
        f"Landed: {report.landing or 'not known'}",
        markdown_table(("what", "value"), facts),
    ]
    parts += ["## Time", markdown_table(("phase", "duration"), phases)]
    if report.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in report.notes)]
    parts += ["## What to do next", "\n".join(f"{n}. {step}" for n, step in enumerate(report.next_steps, 1))]
    return "\n\n".join(parts)
