"""Hypothesis profiles, the marks that follow from a test's folder, the time budget of the property stage."""

import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.support.postgres",  # first: the others import it
    "tests.support.catalog",
    "tests.support.installation",
    "tests.support.pgbackrest",
    "tests.support.pgbackrest_platform",
    "tests.support.verification",
]

FOLDERS = {"unit", "contract", "integration", "drills", "browser"}
BUDGET_SECONDS = float(os.environ.get("PROPERTY_SECONDS", "inf"))
LATE_EXAMPLES = 1_000
_TESTS = Path(__file__).parent
_BEGAN = time.monotonic()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has what it starts in the background ignore SIGINT, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: on a busy machine it would time the machine, not the code.
settings.register_profile("dev", max_examples=300, deadline=None)
settings.register_profile("ci", max_examples=10_000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its folder's name, and hypothesis tests with `property`."""
    for item in items:
        folder = item.path.relative_to(_TESTS).parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


@pytest.hookimpl(specname="pytest_collection_modifyitems", trylast=True)  # after the order was made random
def pytest_begin_with_the_longest(items: list[pytest.Item]) -> None:
    """Several processes end together when the drills, which take longest, come first."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.parent.name != "drills")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Once the time of the property stage is spent, the rest run with fewer examples."""
    is_long_run = settings.get_current_profile_name() == "ci"
    if is_long_run and item.get_closest_marker("property") and time.monotonic() - _BEGAN > BUDGET_SECONDS:
        test = getattr(item, "obj", None)
        # A test that says its own number keeps it.
        if getattr(test, "is_hypothesis_test", False) and not hasattr(test, "_hypothesis_internal_settings_applied"):
            settings(max_examples=LATE_EXAMPLES)(test)
