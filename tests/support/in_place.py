"""Restores in place in tests: a source of the test's own, and what is asked of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.postgres.binaries import PgTools
from lifeboat.recovery.targets import RecoveryTarget
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab

LATEST = RecoveryTarget()


@pytest.fixture
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source of the test's own, with a full backup."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        made.back_up()
        yield made
        made.cluster.stop(mode="immediate")


def order(lab: RecoveryLab, target: RecoveryTarget = LATEST, *accepted: str, stop: bool = False) -> RestoreOrder:
    """A restore in place; `accepted` are the dangers that were accepted."""
    return RestoreOrder(
        target,
        RestoreTo.parse("in-place"),
        data_dir=lab.cluster.data_dir,
        acknowledged=frozenset(accepted),
        stop_server=stop,
    )


def settings_of(lab: RecoveryLab) -> Path:
    """The lab's settings as a file."""
    path = lab.root / "lifeboat.toml"
    given = lab.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    path.write_text(tomlkit.dumps({**given, "platform": {**given["platform"], "dsn": lab.cluster.dsn()}}))
    return path


def kept(lab: RecoveryLab) -> list[Path]:
    """The old data of restores before."""
    return sorted(lab.cluster.data_dir.parent.glob("data.before-restore-*"))
