"""Confirmation of what cannot be taken back: a person types a part of the plan's hash, or a script names it."""

from collections.abc import Callable

import typer

from lifeboat.errors import PermanentError

SHORT_HASH_LENGTH = 12


class PlanNotConfirmed(PermanentError):
    """What was approved is not what would be done now."""


def short_hash(plan_hash: str) -> str:
    """The part of a plan's hash that is shown and typed."""
    return plan_hash[:SHORT_HASH_LENGTH]


def confirm_plan(plan_hash: str, approved: str | None, *, show: Callable[[], None], question: str) -> None:
    """Go on only with the approval of this very plan: `approved` names it, or somebody who saw it types its hash.

    Raises PlanNotConfirmed; an answer that is another ends the program with 1.
    """
    short = short_hash(plan_hash)
    if approved is not None:
        if len(approved) < SHORT_HASH_LENGTH or not plan_hash.startswith(approved):
            raise PlanNotConfirmed(
                f"the plan is {short} now, not {approved!r}", hint="Look at what would be done now, then name its hash."
            )
        return
    show()
    if typer.prompt(f"Type {short} to {question}", err=True).strip() != short:
        raise PlanNotConfirmed("not confirmed, so nothing was done")


def confirm_name(name: str, approved: str | None, *, show: Callable[[], None], question: str) -> None:
    """As `confirm_plan`, where a name stands for what is at stake; raises PlanNotConfirmed."""
    if approved is None:
        show()
        approved = typer.prompt(f"Type {name} to {question}", err=True).strip()
    if approved != name:
        raise PlanNotConfirmed(f"{approved!r} is not {name}, so nothing was done", hint="Name what is shown.")
