"""The end of a run that did its work and found something wrong."""

from collections.abc import Sequence

from prefect.client.schemas.objects import State
from prefect.states import Failed

FOUND_PROBLEMS = "FoundProblems"
_NAMED = 3


def found_problems(what: str, problems: Sequence[str]) -> State[None]:
    """Failed, so that nobody overlooks it, with a name of its own: callers tell it from a run that broke."""
    named = "; ".join(problems[:_NAMED])
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return Failed(name=FOUND_PROBLEMS, message=f"{what}: {named}{more}")
