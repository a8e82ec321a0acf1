"""`lifeboat retention`."""

from typing import TYPE_CHECKING

import typer

from console.cli.confirmation import confirm_plan, short_hash
from console.cli.options import AsJson, Destination, Yes
from console.cli.output import notice, say, say_json, say_table
from console.cli.session import installation_of
from tasks.figures import count_text, size_text, time_text

if TYPE_CHECKING:
    from lifeboat.retention.policy import ExpiryPlan

app = typer.Typer(no_args_is_help=True)


@app.command()
def plan(context: typer.Context, destination: Destination = None, as_json: AsJson = False) -> None:
    """Show what retention would keep and expire now, and why.

    It changes nothing.
    """
    from lifeboat.operations.backup.expire import plan_retention

    made = plan_retention(installation_of(context), destination)
    if as_json:
        say_json(_as_json(made))
    else:
        _show(made)


@app.command()
def apply(
    context: typer.Context,
    destination: Destination = None,
    yes: Yes = None,
    as_json: AsJson = False,
) -> None:
    """Expire what the plan says, after a confirmation.

    A plan that is no longer true is refused.
    """
    from lifeboat.operations.backup.expire import apply_retention, plan_retention

    installation = installation_of(context)
    made = plan_retention(installation, destination)
    if made.expired:
        confirm_plan(
            made.plan_hash, yes, show=lambda: _show(made), question=f"expire {count_text(len(made.expired), 'backup')}"
        )
    report = apply_retention(installation, made)
    if as_json:
        say_json(report)
        return
    for label, reasons in report.expired:
        say(f"expired {label}: {reasons}")
    for label in report.removed_unfinished:
        say(f"removed the unfinished folder {label}")
    expired = count_text(len(report.expired), "backup")
    say(f"{expired} expired, {size_text(report.freed_bytes)} returned, {len(report.kept)} kept")
    kept_back = len(made.expired) - len(report.expired)
    if kept_back > 0:
        notice(f"{kept_back} backups of the plan were in use and stay: apply retention again later")


def _show(made: "ExpiryPlan") -> None:
    columns = ("backup", "type", "completed (UTC)", "size", "verdict", "why")
    rows = [
        (
            decision.candidate.label,
            decision.candidate.type,
            time_text(decision.candidate.completed_at).removesuffix(" UTC"),
            size_text(decision.candidate.size_bytes),
            decision.verdict,
            "; ".join(decision.reasons),
        )
        for decision in made.decisions
    ]
    say_table(columns, rows, right=("size",))
    say(
        f"{made.destination}: {len(made.expired)} expire, {size_text(made.freed_bytes)} return, {len(made.kept)} stay; "
        f"plan {short_hash(made.plan_hash)}"
    )


def _as_json(made: "ExpiryPlan") -> dict[str, object]:
    return {
        "destination": made.destination,
        "plan_hash": made.plan_hash,
        "freed_bytes": made.freed_bytes,
        "decisions": [
            {
                "id": decision.candidate.id,
                "label": decision.candidate.label,
                "type": decision.candidate.type,
                "completed_at": decision.candidate.completed_at,
                "size_bytes": decision.candidate.size_bytes,
                "verdict": decision.verdict,
                "reasons": decision.reasons,
            }
            for decision in made.decisions
        ],
    }
