"""How long a restore would take, from what earlier ones took."""

from lifeboat.operations.preview.needs import Measurement, RestoreSize, time_by

SEGMENT = 16 << 20
SIZE = RestoreSize(50_000, 6400, 6400 * SEGMENT, 1)  # 100 GiB of WAL
DRILL = Measurement("basebackup", 100_000, {"restore files": 10.0, "recover": 2.0}, 0)


def restore(segments: int, seconds: float) -> Measurement:
    """One that replayed so many segments."""
    return Measurement("basebackup", 100_000, {"restore files": 10.0, "replay": seconds}, segments * SEGMENT)


def test_a_short_replay_says_nothing_of_a_long_one() -> None:
    # As long as the server takes to start: by it, no replay would take any time.
    for seconds in (1.9, 2.0, 2.4):
        found = time_by([DRILL, restore(1, seconds), restore(4, seconds)], SIZE)
        assert found.phases == {"restore files": 5.0, "recover": 2.0}
        assert found.not_measured == ("replay",)


def test_a_long_replay_is_taken_without_the_start_of_its_server() -> None:
    found = time_by([DRILL, restore(1, 1.9), restore(64, 12.0)], SIZE)
    assert found.phases["replay"] == 1000.0
    assert (found.seconds, found.not_measured) == (1007.0, ())


def test_a_replay_that_seems_to_have_taken_no_time_is_not_measured() -> None:
    assert time_by([DRILL, restore(64, 1.9)], SIZE).not_measured == ("replay",)


def test_nothing_to_replay_takes_no_time() -> None:
    found = time_by([DRILL, restore(64, 12.0)], RestoreSize(50_000, 0, 0, 0))
    assert (found.phases.get("replay", 0), found.not_measured) == (0, ())
