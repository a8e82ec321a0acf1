"""What every destination has to do; each implementation is one more parameter."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat.storage.destination import Destination, DestinationUnavailable, ObjectMissing
from lifeboat.storage.filesystem import FilesystemDestination


def _filesystem(folder: Path) -> Destination:
    return FilesystemDestination("primary", folder / "store")


@pytest.fixture(params=[_filesystem], ids=["filesystem"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Destination:
    """A checked, empty destination of each kind."""
    make: Callable[[Path], Destination] = request.param
    made = make(tmp_path)
    made.check()
    return made


def test_what_is_put_is_read_back(destination: Destination) -> None:
    destination.put("studio/one/object", b"content")
    assert destination.read("studio/one/object") == b"content"
    with destination.open("studio/one/object") as stream:
        assert stream.read() == b"content"
    assert destination.exists("studio/one/object")


def test_a_missing_object_is_told_from_a_missing_destination(destination: Destination, tmp_path: Path) -> None:
    assert not destination.exists("studio/nothing")
    for read in (destination.read, destination.open):
        with pytest.raises(ObjectMissing, match="studio/nothing"):
            read("studio/nothing")
    if isinstance(destination, FilesystemDestination):
        (tmp_path / "store").rmdir()
        with pytest.raises(DestinationUnavailable, match="is not there"):
            destination.read("studio/nothing")
        with pytest.raises(DestinationUnavailable):
            destination.names("studio")
        with pytest.raises(DestinationUnavailable):
            destination.free_bytes()


def test_an_exclusive_put_never_replaces(destination: Destination) -> None:
    destination.put("studio/manifest", b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        destination.put("studio/manifest", b"second", exclusive=True)
    assert destination.read("studio/manifest") == b"first"
    destination.put("studio/manifest", b"third")
    assert destination.read("studio/manifest") == b"third"
    assert destination.names("studio") == ["manifest"]


def test_names_and_keys(destination: Destination) -> None:
    for key in ("a/2/x", "a/1/y", "a/z", "b/q"):
        destination.put(key, b"")
    assert destination.names("a") == ["1", "2", "z"]
    assert destination.names("nothing") == []
    assert sorted(destination.keys("a")) == ["a/1/y", "a/2/x", "a/z"]


def test_deleting_is_repeatable_and_takes_only_what_is_named(destination: Destination) -> None:
    for key in ("a/1", "a/2", "ab"):
        destination.put(key, b"x")
    destination.delete("a/1")
    destination.delete("a/1")
    destination.delete("nothing/at/all")
    assert destination.names("a") == ["2"]
    destination.delete_folder("a")
    destination.delete_folder("a")
    assert not destination.exists("a/2")
    assert destination.exists("ab")


def test_a_rename_moves_the_object(destination: Destination) -> None:
    destination.put("a/manifest.json", b"x")
    destination.rename("a/manifest.json", "a/expired.json")
    assert destination.names("a") == ["expired.json"]
    with pytest.raises(ObjectMissing):
        destination.rename("a/manifest.json", "a/again")


def test_a_staged_folder_is_taken_once_and_uploaded_whole(destination: Destination) -> None:
    folder = destination.stage("studio/label")
    (folder / "data").mkdir()
    (folder / "data" / "part").write_bytes(b"payload")
    with pytest.raises(FileExistsError):
        destination.stage("studio/label")
    destination.upload("studio/label", folder)
    assert destination.read("studio/label/data/part") == b"payload"


def test_free_space_is_never_negative(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert FilesystemDestination("primary", tmp_path / "store", minimum_free_bytes=10**18).free_bytes() == 0


def test_a_bare_mount_point_is_refused(tmp_path: Path) -> None:
    bare = FilesystemDestination("nfs", tmp_path / "mnt", mount=True)
    if any(os.path.ismount(path) for path in list((tmp_path / "mnt").parents)[:-1]):
        pytest.skip("the temporary folder is on a mount of its own, so nothing here is a bare mount point")
    with pytest.raises(DestinationUnavailable, match="nothing is mounted"):
        bare.check()
    assert not (tmp_path / "mnt").exists()
