"""What stands in the way of a restore, for each engine: damaged WAL, timelines, bad targets, and everything else down.

The catalog is never there, and no Prefect server: all of it has to work from storage alone.
"""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from console.cli.main import main
from lifeboat.errors import LifeboatError
from lifeboat.operations.restore.recovered_cluster import LandingRefuted, RecoveryFailed
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.verify import verify_wal
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from tests.support.command_line import Ended
from tests.support.protected import ENGINES, protected, write_settings_of
from tests.support.recovery import RecoveryLab

PAGE_BYTES = 8192
# The heartbeats that History commits.
ON_TIMELINE_1 = (0, 1, 2, 3)
ON_TIMELINE_2 = (0, 1, 20, 21, 22, 30, 31, 32, 33, 40, 41, 42, 43)


@dataclass
class History:
    """Two timelines with a full backup on each, four segments behind it, one more backup and its segments."""

    lab: RecoveryLab
    settings: Path
    at: dict[str, datetime] = field(default_factory=dict)
    moments: list[datetime] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    last_segments: list[str] = field(default_factory=list)

    def live_through(self) -> None:
        """On timeline 1, back to a moment of it, and on from there on timeline 2."""
        lab = self.lab
        self._moment("before the first backup", 0)
        lab.back_up()
        self._moment("on timeline 1", 1)
        self._moment("on timeline 1, undone", 2)
        lab.commit(3)
        lab.switch()
        back = RecoveryTarget(TargetKind.TIME, at=self.at["on timeline 1"])
        report = run_restore(lab.installation, RestoreOrder(back, RestoreTo.parse("in-place"), stop_server=True))
        assert report.new_timeline == 2
        lab.cluster.start()
        self._moment("on timeline 2", 20)
        lab.commit(21)
        lab.switch()
        lab.back_up()
        self._moment("behind the backup on timeline 2", 22)
        for number in range(4):
            lab.commit(30 + number)
            self.moments.append(lab.moment())
            self.segments.append(lab.switch())
        lab.back_up()
        self._moment("behind the last backup", 40)
        for number in range(3):
            lab.commit(41 + number)
            self.last_segments.append(lab.switch())

    def _moment(self, name: str, number: int) -> None:
        # pgBackRest knows the second in which a backup ended, and only the next one is surely behind it.
        time.sleep(1.1)
        self.lab.commit(number)
        self.at[name] = self.lab.moment()


@pytest.fixture(scope="module", params=ENGINES)
def history(request: pytest.FixtureRequest, runtime_dir: Path) -> Iterator[History]:
    """One source for each engine; catalog and Prefect are settings that nothing answers to."""
    nowhere = {"dsn": "host=/nowhere dbname=nowhere", "connect_timeout_seconds": 2}
    with protected(request.param, runtime_dir, catalog=nowhere) as lab:
        made = History(lab, write_settings_of(lab, prefect={"port": 1024}, catalog=nowhere))
        made.live_through()
        yield made


Run = Callable[..., Ended]


@pytest.fixture
def lifeboat(history: History, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process."""

    def run(*words: str) -> Ended:
        capsys.readouterr()
        code = main(["--config", str(history.settings), *words])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return Ended(code, shown.out, shown.err)

    return run


def at_time(at: datetime, timeline: int | None = None) -> RecoveryTarget:
    return RecoveryTarget(TargetKind.TIME, at=at, timeline=timeline)


def place_for(history: History, name: str) -> RestoreTo:
    return RestoreTo.parse(f"new:{history.lab.root / name}")


# Each makes of what is stored what is stored then; None where nothing is.
def removed(stored: bytes) -> bytes | None:
    return None


def truncated(stored: bytes) -> bytes | None:
    return stored[: len(stored) // 2]


def zeroed(stored: bytes) -> bytes | None:
    """Its first page, well compressed: only its checksum tells."""
    plain = gzip.decompress(stored)
    return gzip.compress(plain[:64] + bytes(PAGE_BYTES - 64) + plain[PAGE_BYTES:])


def bit_flipped(stored: bytes) -> bytes | None:
    plain = bytearray(gzip.decompress(stored))
    plain[200] ^= 0x10
    return gzip.compress(bytes(plain))


Harm = Callable[[bytes], bytes | None]


@contextmanager
def harmed(lab: RecoveryLab, name: str, harm: Harm) -> Iterator[Callable[[], None]]:
    """Gives what does the damage; it is undone at the end."""
    stored = lab.stored(name)
    content, away = stored.read_bytes(), lab.root / f"away-{name}"

    def do() -> None:
        left = harm(content)
        if left is None:
            stored.rename(away)
        else:
            stored.write_bytes(left)

    try:
        yield do
    finally:
        if away.exists():
            away.rename(stored)
        else:
            stored.write_bytes(content)


def left_by_restores(lab: RecoveryLab) -> list[Path]:
    return [path for path in lab.root.iterdir() if path.name.startswith("refused")]


@pytest.mark.parametrize("harm", [removed, truncated, zeroed, bit_flipped])
def test_damage_is_found_shown_and_no_restore_is_led_across_it(history: History, lifeboat: Run, harm: Harm) -> None:
    lab, bad, across = history.lab, history.segments[1], history.moments[3]
    words = ("restore", "run", "--at", across.isoformat(), "--to", f"new:{lab.root / 'refused'}")
    assert lifeboat(*words, "--dry-run").code == 0
    try:
        with harmed(lab, bad, harm) as do:
            do()
            if harm in {zeroed, bit_flipped}:
                assert lifeboat("wal", "status").code == 0
                verified = lifeboat("wal", "verify", "--all", "--json")
                assert verified.code == 3
                assert [item["name"] for item in verified.json["findings"]] == [bad]
            shown = lifeboat("wal", "status")
            assert shown.code == 3
            assert ("GAP" if harm is removed else "DAMAGED") in shown.out
            assert bad in shown.out
            listed = lifeboat("restore", "points", "--timeline", "2", "--json")
            assert listed.code == 3
            (reach,) = listed.json["timelines"]
            (hole,) = [hole for hole in reach["gaps"] if hole["reason"] not in {"no commit", "another timeline"}]
            assert (hole["reason"], hole["segments"]) == ("missing" if harm is removed else "damaged", [bad])
            after, before = (datetime.fromisoformat(hole[key]) for key in ("after", "before"))
            assert after < history.moments[1] < across < before
            damaged = [item["name"] for item in listed.json["damaged_segments"]]
            assert damaged == ([] if harm is removed else [bad])
            refused = lifeboat(*words)
            assert refused.code == 1
            assert f"the WAL segment {bad} is {'missing' if harm is removed else 'damaged'}" in refused.err
            assert f"nearest moments that can be had are {time_text(after)} and {time_text(before)}" in refused.err
            assert left_by_restores(lab) == []
            # What lies before it and what lies behind it can be had still.
            for good in (history.moments[0], history.at["behind the last backup"]):
                assert lifeboat("restore", "run", "--at", good.isoformat(), *words[4:], "--dry-run").code == 0
    finally:
        verify_wal(lab.installation, everything=True)
    assert lifeboat("wal", "status").code == 0


@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        *((TargetKind.TIME, harm) for harm in (removed, truncated, zeroed, bit_flipped)),
        *((TargetKind.LATEST, harm) for harm in (removed, zeroed)),
    ],
)
def test_damage_behind_planning_stops_recovery_and_nothing_is_promoted(
    history: History, kind: TargetKind, harm: Harm
) -> None:
    lab = history.lab
    latest = kind is TargetKind.LATEST
    bad = history.last_segments[1] if latest else history.segments[1]
    target = RecoveryTarget() if latest else at_time(history.moments[3])
    before = lab.archive.listing()
    # Towards the latest moment, pgBackRest's archive-get ends replay at what is missing as at the archive's end; the
    # landing tells then. To a time, PostgreSQL itself refuses to end before it.
    expected: tuple[type[LifeboatError], ...] = (RecoveryFailed, LandingRefuted) if latest else (RecoveryFailed,)
    with harmed(lab, bad, harm) as do:

        def told(phase: str) -> None:
            if phase == "restore files":
                do()

        with pytest.raises(expected) as stopped:
            run_restore(lab.installation, RestoreOrder(target, place_for(history, "stopped")), told)
    assert "`lifeboat wal verify --all`" in str(stopped.value.hint)
    assert not (lab.root / "stopped").exists()
    assert lab.archive.listing().history_timelines == before.history_timelines


@pytest.mark.parametrize(
    ("name", "timeline", "newest"),
    [
        ("on timeline 1", 1, 1),
        ("on timeline 1, undone", 1, 2),
        ("on timeline 2", None, 20),
        ("behind the last backup", 2, 40),
    ],
)
def test_each_timeline_can_be_had(history: History, name: str, timeline: int | None, newest: int) -> None:
    lab = history.lab
    target = at_time(history.at[name], timeline)
    report = run_restore(lab.installation, RestoreOrder(target, place_for(history, f"{name}, {timeline}")))
    assert report.timeline == (timeline or 2)
    assert report.new_timeline == 3
    with lab.opened(Path(report.place)) as dsn:
        found = lab.rows("SELECT number FROM public.heartbeats ORDER BY number", dsn)
    committed = ON_TIMELINE_1 if timeline == 1 else ON_TIMELINE_2
    assert [row[0] for row in found] == [number for number in committed if number <= newest]


def test_bad_targets_are_refused_before_anything_is_touched(history: History, lifeboat: Run) -> None:
    lab, at = history.lab, history.at
    reaches = {reach["timeline"]: reach for reach in lifeboat("restore", "points", "--json").json["timelines"]}
    earliest = time_text(datetime.fromisoformat(reaches[2]["earliest"]))
    latest = {number: time_text(datetime.fromisoformat(reach["latest"])) for number, reach in reaches.items()}
    future = (at["behind the last backup"] + timedelta(days=1)).isoformat()
    cases: list[tuple[tuple[str, ...], int, str]] = [
        (("--at", at["before the first backup"].isoformat()), 1, f"moment that can be had is {earliest}"),
        (("--at", future), 1, f"moment that can be had is {latest[2]}"),
        # Timeline 1 ended where timeline 2 began to be used: what came later is not on it.
        (("--at", at["on timeline 2"].isoformat(), "--timeline", "1"), 1, f"had is {latest[1]}"),
        (("--latest", "--timeline", "9"), 1, "The archive knows these timelines: 1, 2"),
        (("--at", "a quarter past noon"), 2, "Write it like"),
        (("--at", "2026-13-40"), 2, "Write it like"),
        (("--name", "nobody made it"), 1, "restore points"),
        (("--xid", "4000000000"), 1, "restore points"),
        (("--lsn", "FFFF/0"), 1, f"had is {latest[2]}"),
        (("--backup", "20200101-000000F"), 1, "backup list"),
    ]
    stored = sorted(path for path in lab.destination.rglob("*"))
    for to, of_each in ((f"new:{lab.root / 'refused'}", 1), ("in-place", 4)):
        for target, code, hint in cases[::of_each]:
            ended = lifeboat("restore", "run", *target, "--to", to, "--stop-server", "--yes", "0" * 12)
            assert ended.code == code, (target, ended.err)
            assert "HINT: " in ended.err
            assert hint in ended.err.replace("\n", " "), (target, ended.err)
            assert left_by_restores(lab) == []
    assert lab.cluster.is_running()
    assert not list(lab.cluster.data_dir.parent.glob("data.unfinished*"))
    assert sorted(path for path in lab.destination.rglob("*")) == stored


def test_everything_else_may_be_down(history: History, lifeboat: Run) -> None:
    lab = history.lab
    lab.cluster.stop()
    try:
        listed = lifeboat("restore", "points", "--json")
        at, place = history.moments[2], lab.root / "alone"
        planned = lifeboat("restore", "run", "--at", at.isoformat(), "--to", f"new:{place}", "--dry-run", "--json")
        done = lifeboat("restore", "run", "--at", at.isoformat(), "--to", f"new:{place}", "--json")
        status = lifeboat("wal", "status")
        with lab.opened(place) as dsn:
            assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 32
    finally:
        lab.cluster.start()
    assert listed.code == 0, listed.err
    assert json.loads(planned.out)["place"] == str(place)
    assert done.code == 0, done.err
    assert any("the catalog does not know of this restore" in note for note in done.json["notes"])
    assert status.code == 0
