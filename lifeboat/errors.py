"""Error roots: transient errors are worth a retry, permanent ones are not."""

from typing import ClassVar


class LifeboatError(Exception):
    """Root of every error Lifeboat raises on purpose.

    The message is lowercase without a full stop and says what failed, on what; `hint` is a sentence that says
    what to do next. Both survive pickling, because Prefect carries errors between processes.
    """

    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.__dict__.copy())

    def __str__(self) -> str:
        return f"{self.message}\nHINT: {self.hint}" if self.hint else self.message


def _rebuild(kind: type[LifeboatError], message: str, hint: str | None, state: dict[str, object]) -> LifeboatError:
    # Subclasses may take other arguments than the message: skip their __init__ and restore what it had set.
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.message = message
    error.hint = hint
    error.__dict__.update(state)
    return error


class PermanentError(LifeboatError):
    """Trying again without a change cannot help."""


class TransientError(LifeboatError):
    """Trying again later may help: a lock, a network, a server that is starting."""

    transient: ClassVar[bool] = True


class SettingsError(PermanentError):
    """A setting is missing, unknown or contradicts another; the process exits with 2."""


class FoundProblems(PermanentError):
    """The work was done and found something wrong (a failed drill, a corrupt asset); the process exits with 3."""
