"""Places that a restore must not go to, and what a killed one has left in them."""

import shutil
from pathlib import Path

import pytest

from lifeboat.operations.installation import Installation
from lifeboat.operations.restore.place import (
    Journal,
    Place,
    PlaceTaken,
    Step,
    left_by_interrupted,
    refuse_interrupted,
)
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
    # Somebody has made a new cluster there: what was restored may be all that leads on from the old data.
    target.mkdir()
    (target / "PG_VERSION").touch()
    with pytest.raises(PlaceTaken, match="holds something else now"):
        refuse()
    shutil.rmtree(target)
    place.journal = Journal("an order", Step.BUILDING)
    refuse("another")
    place.tail_dir.mkdir()
    (place.tail_dir / "segment").touch()
    with pytest.raises(PlaceTaken, match="that are gone"):
        refuse()
    refuse_interrupted(place, "an order", discards=False, in_place=False)


def test_a_plan_says_what_becomes_of_what_a_killed_restore_has_left(tmp_path: Path) -> None:
    target, kept = tmp_path / "data", tmp_path / "data.before"
    assert left_by_interrupted(target, "an order") == ()
    place = Place(target, tmp_path / "data.unfinished", None, None)
    place.data_dir.mkdir(parents=True)
    kept.mkdir()
    place.write(Journal("an order", Step.READY, kept=str(kept), report={}))
    (finished,) = left_by_interrupted(target, "an order")
    assert "only has to be put in its place" in finished
    place.write(Journal("an order", Step.BUILDING))
    (begun,) = left_by_interrupted(target, "an order")
    assert begun.endswith("which this one clears away")
    place.write(Journal("an order", Step.OVER))
    (over,) = left_by_interrupted(target, "an order")
    assert over.endswith("of which this one uses the saved WAL")
