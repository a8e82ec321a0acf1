"""Writes to the catalog that must not decide over a backup: the manifest does (DESIGN principles 1 and 5)."""

from collections.abc import Iterator
from contextlib import contextmanager

from lifeboat.catalog.errors import CatalogError
from lifeboat.operations.installation import LOG


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Log instead of failing when the catalog cannot be reached: reconciling writes it later."""
    try:
        yield
    except CatalogError as error:
        LOG.warning("the catalog does not know of %s yet, `lifeboat catalog reconcile` will tell it: %s", what, error)
