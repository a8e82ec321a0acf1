"""Where a drill's bar stands."""

from lifeboat.engines.engine import Progress
from tasks.drill_progress import PHASE_STARTS, DrillProgress
from tasks.progress import ProgressBar


class Shown(ProgressBar):
    """A bar outside of any run: it remembers what it shows."""

    def __init__(self) -> None:
        super().__init__("test", "drill")
        self.seen: list[tuple[float, str]] = []

    def show(self, percent: float, note: str = "") -> None:
        """Remember."""
        super().show(percent, note)
        self.seen.append((round(percent, 1), note))


def test_files_move_the_bar_by_bytes_between_their_phase_and_the_next() -> None:
    bar = Shown()
    drill = DrillProgress(bar)
    drill.phase("read chain")
    drill.phase("restore files")
    drill.amount(Progress(0, None))
    drill.amount(Progress(500_000, 1_000_000))
    drill.amount(Progress(2_000_000, 1_000_000))
    drill.phase("read WAL")
    first, last = PHASE_STARTS["restore files"], PHASE_STARTS["read WAL"]
    assert bar.seen == [
        (0.0, "read chain"),
        (first, "restore files"),
        ((first + last) / 2, "restore files, 500 kB of 1.0 MB"),
        (last, "restore files, 2.0 MB of 1.0 MB"),
        (last, "read WAL"),
    ]


def test_a_phase_that_goes_on_after_one_inside_it_does_not_take_the_bar_back() -> None:
    bar = Shown()
    drill = DrillProgress(bar)
    drill.phase("restore files")
    drill.amount(Progress(500_000, 1_000_000))
    drill.phase("check files")
    drill.phase("restore files")
    drill.amount(Progress(600_000, 1_000_000))
    first, last = PHASE_STARTS["restore files"], PHASE_STARTS["read WAL"]
    half = (first + last) / 2
    assert [place for place, _ in bar.seen] == [first, half, half, half, round(first + 0.6 * (last - first), 1)]


def test_an_unknown_phase_leaves_the_bar_where_it_is() -> None:
    bar = Shown()
    drill = DrillProgress(bar)
    drill.phase("recover")
    drill.phase("something new")
    assert bar.seen[-1] == (PHASE_STARTS["recover"], "something new")
