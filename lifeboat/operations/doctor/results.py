"""What one of doctor's checks says, and how a check that cannot be made is told."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from lifeboat.errors import LifeboatError


class CheckStatus(StrEnum):
    """How a check ended; only FAILED means that something will not work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """One line of doctor's report; `fix` is what to copy, or a sentence where there is nothing to copy."""

    name: str
    status: CheckStatus
    detail: str
    fix: str | None = None


def ok(name: str, detail: str) -> CheckResult:
    """A check that passed."""
    return CheckResult(name, CheckStatus.OK, detail)


def warning(name: str, detail: str, fix: str) -> CheckResult:
    """Something to know: Lifeboat works without it, or works less well."""
    return CheckResult(name, CheckStatus.WARNING, detail, fix)


def failed(name: str, detail: str, fix: str) -> CheckResult:
    """Something that will not work."""
    return CheckResult(name, CheckStatus.FAILED, detail, fix)


def skipped(name: str, detail: str) -> CheckResult:
    """A check that does not apply or cannot be made now."""
    return CheckResult(name, CheckStatus.SKIPPED, detail)


def attempt(name: str, check: Callable[[], Iterable[CheckResult]]) -> Iterator[CheckResult]:
    """Make a check; an error that it raises is its result, with the error's hint as the fix."""
    try:
        yield from check()
    except LifeboatError as error:
        yield failed(name, error.message, error.hint or "The message says what is in the way.")
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        yield failed(name, f"the server refused a question: {said}", "Look into the server's log.")
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        yield failed(name, what, "Check that path, its owner and its mode.")
