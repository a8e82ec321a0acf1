"""While a restore in place holds a data directory, nothing of ours starts the server that it replaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.services import RunningServices
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import start_platform, stop_platform
from lifeboat.operations.restore.place import hold_place
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.restoring import RestoreInProgress, RestoreInterrupted
from tests.support.installation import make_installation


@pytest.fixture
def platform(pg_tools: PgTools, reachable_tmp: Path) -> Iterator[Installation]:
    """An installation with an embedded server that has run, and is stopped."""
    made = make_installation(reachable_tmp / "state", pg_tools, wal={"archive": False})
    start_platform(made)
    stop_platform(made)
    yield made
    stop_platform(made)


@contextmanager
def restored(platform: Installation) -> Iterator[None]:
    with hold_place(platform.embedded.cluster.data_dir, platform.run_as):
        yield


def test_the_embedded_server_is_not_started(platform: Installation) -> None:
    with restored(platform), pytest.raises(RestoreInProgress, match="is under way"):
        start_platform(platform)
    assert not platform.embedded.is_running()
    start_platform(platform)
    assert platform.embedded.is_running()


def test_up_waits_until_the_restore_has_ended(platform: Installation) -> None:
    said: list[str] = []
    services = RunningServices(platform, said.append)
    with restored(platform):
        services.check()
        services.check()
        assert not platform.embedded.is_running()
    services.check()

    assert platform.embedded.is_running()
    assert len(said) == 2
    assert "a restore to" in said[0]
    assert "starting it again" in said[1]


def test_no_new_server_is_made_where_an_interrupted_restore_left_none(platform: Installation) -> None:
    data_dir = platform.embedded.cluster.data_dir
    folder = data_dir.with_name(f"{data_dir.name}.unfinished")
    folder.mkdir()
    (folder / "data").mkdir()
    data_dir.rename(data_dir.with_name("old"))
    said: list[str] = []

    with pytest.raises(RestoreInterrupted, match="was interrupted"):
        start_platform(platform)
    RunningServices(platform, said.append).check()

    assert not data_dir.exists()
    assert "in-place` again" in said[0]
    data_dir.with_name("old").rename(data_dir)
    start_platform(platform)
    assert platform.embedded.is_running()
