"""What the studio is drawn from: the same for one seed, whole for any size."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from lifeboat.demo import words
from lifeboat.demo.content import plan_studio

NOW = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)


@given(
    characters=st.integers(1, 700),
    segments=st.integers(1, 300),
    assets_bytes=st.integers(0, 10_000_000),
    seed=st.integers(0, 9),
)
@settings(max_examples=30)
def test_any_size_is_whole(characters: int, segments: int, assets_bytes: int, seed: int) -> None:
    plan = plan_studio(characters=characters, segments=segments, assets_bytes=assets_bytes, seed=seed, now=NOW)

    assert len(plan.characters) == characters
    assert sum(segment.status == "approved" for segment in plan.segments) == segments
    assert sum(asset.size_bytes for asset in plan.assets) >= assets_bytes
    assert len({asset.path for asset in plan.assets}) == len(plan.assets)
    assert len({(person.project_id, person.name) for person in plan.characters}) == characters
    assert {asset.id for asset in plan.assets} == {
        *(person.asset_id for person in plan.characters),
        *(segment.asset_id for segment in plan.segments),
    }
    assert all(segment.created_at < NOW for segment in plan.segments)
    assert all(segment.duration_seconds > 0 for segment in plan.segments)


def test_a_seed_decides_everything() -> None:
    size = {"characters": 20, "segments": 50, "assets_bytes": 100_000, "now": NOW}

    assert plan_studio(**size, seed=3) == plan_studio(**size, seed=3)  # type: ignore[arg-type]
    assert plan_studio(**size, seed=3) != plan_studio(**size, seed=4)  # type: ignore[arg-type]


def test_reviewers_are_directors() -> None:
    plan = plan_studio(characters=5, segments=100, assets_bytes=0, seed=1, now=NOW)

    reviewers = {segment.reviewed_by for segment in plan.segments if segment.reviewed_by is not None}

    assert {words.PEOPLE[number - 1][1] for number in reviewers} == {"director"}
