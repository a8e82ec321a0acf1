"""What can go wrong between us and the catalog. No message holds a password."""

from lifeboat.errors import LifeboatError, PermanentError, TransientError


class CatalogError(LifeboatError):
    """Root of the catalog's errors: backups and restores go on without it (DESIGN principle 6)."""


class CatalogUnavailable(CatalogError, TransientError):
    """The catalog's server cannot be reached, is starting, full, read-only or busy."""


class CatalogNotMigrated(CatalogError, PermanentError):
    """The catalog's tables are missing or older than this Lifeboat."""


class CatalogRefused(CatalogError, PermanentError):
    """The catalog's server refused the connection or a statement: rights, a constraint, a newer schema."""


class CursorInvalid(PermanentError):
    """A page cursor was not made by us."""


def not_migrated(what: str) -> CatalogNotMigrated:
    """The error for a catalog whose tables are not those that this version needs."""
    return CatalogNotMigrated(what, hint="Run `lifeboat catalog migrate`.")
