"""Places that a restore must not go to, and what a killed one has left in them."""

from pathlib import Path

import pytest

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.place import Journal, Place, PlaceTaken, Step, refuse_interrupted
from lifeboat.operations.restore.refused_places import refuse_owned
from lifeboat.settings.root import Settings


def test_what_is_somebodys_own_is_refused(tmp_path: Path) -> None:
    store, repository, state = (tmp_path / name for name in ("store", "repository", "state"))
    settings = Settings.model_validate(
        {
            "state_dir": state,
            "platform": {"dsn": "host=/nowhere"},
            "destinations": {"primary": {"path": store}},
            "engines": {"pgbackrest": {"repository_path": repository}},
        }
    )
    installation, live = Installation(settings), tmp_path / "live"
    (live / "base" / "5").mkdir(parents=True)
    for folder in (live, live / "base" / "5"):
        (folder / "PG_VERSION").write_text("18\n")
    (tmp_path / "link").symlink_to(live / "base")
    for folder in (live / "base" / "5" / "x", tmp_path / "link" / "x", store, store / "main" / "x", repository / "x"):
        with pytest.raises(PlaceTaken, match="is inside of"):
            refuse_owned(installation, folder)
    with pytest.raises(PlaceTaken, match=f"is inside of a data directory, {live}\n"):
        refuse_owned(installation, live / "base" / "5" / "x")
    for folder in (tmp_path / "x", tmp_path / "store 2" / "x", tmp_path / "live.unfinished"):
        refuse_owned(installation, folder)


def test_what_a_killed_restore_has_left_is_not_cleared_away_for_another(tmp_path: Path) -> None:
    target, kept = tmp_path / "data", tmp_path / "data.before"
    place = Place(target, tmp_path / "data.unfinished", None, Journal("an order", Step.OVER))
    place.data_dir.mkdir(parents=True)

    def refuse(key: str = "an order", *, discards: bool = False) -> None:
        refuse_interrupted(place, key, discards=discards, in_place=True)

    with pytest.raises(PlaceTaken, match="nothing to be kept"):
        refuse()
    refuse(discards=True)
    kept.mkdir()
    place.journal = Journal("an order", Step.READY, kept=str(kept), report={})
    refuse()
    with pytest.raises(PlaceTaken, match="has to be finished first"):
        refuse("another")
    place.journal = Journal("an order", Step.BUILDING)
    refuse("another")
    place.tail_dir.mkdir()
    (place.tail_dir / "segment").touch()
    with pytest.raises(PlaceTaken, match="that are gone"):
        refuse()
    refuse_interrupted(place, "an order", discards=False, in_place=False)
