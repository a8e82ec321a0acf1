"""Folders for sockets and for a server's data."""

import os
import stat
from pathlib import Path

import pytest

from lifeboat.postgres.folders import FolderUnreachable, make_private_dir, socket_dir_for


def test_a_socket_lives_beside_its_data_when_the_path_is_short(tmp_path: Path) -> None:
    assert socket_dir_for(Path("/srv/lifeboat")) == Path("/srv/lifeboat/run")


@pytest.mark.parametrize("length", [60, 80, 84, 85, 100, 300])
def test_a_socket_path_always_fits(length: int) -> None:
    base = Path("/" + "x" * length)

    folder = socket_dir_for(base)

    assert len(os.fsencode(folder / ".s.PGSQL.65535.lock")) <= 107
    assert folder == socket_dir_for(base)
    assert folder != socket_dir_for(base / "other")


def test_a_private_folder_is_made_private_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o755)

    make_private_dir(path, None)

    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_a_private_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o755)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(FolderUnreachable, match="no folder"):
        make_private_dir(tmp_path / "run", None)

    assert stat.S_IMODE((tmp_path / "elsewhere").stat().st_mode) == 0o755
