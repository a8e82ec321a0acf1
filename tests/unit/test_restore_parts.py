"""The parts of a restore that need no server: places, journals, settings given back, tails, differences."""

import fcntl
import json
import os
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from console.cli.explore import seconds_of
from console.cli.restore_run import tablespaces_of
from lifeboat.catalog.values import RestoreTarget
from lifeboat.errors import PermanentError, SettingsError
from lifeboat.operations.preview.compared_rows import _merged
from lifeboat.operations.restore.place import (
    Journal,
    PlaceTaken,
    RestoreUnderWay,
    Step,
    control_of,
    hold_place,
    interrupted_over,
    refuse_taken,
)
from lifeboat.operations.restore.results import RestoreOrder, RestoreReport, RestoreTo
from lifeboat.operations.restore.server_settings import give_settings_back, offer_history
from lifeboat.postgres import postmaster
from lifeboat.postgres.conf import read_settings
from lifeboat.postgres.isolation import KEPT_SUFFIX
from lifeboat.recovery.targets import RecoveryTarget, TargetUnreadable
from lifeboat.recovery.wal_tail import ArchiveWithTail, save_tail
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.archive_program.push import push
from tests.support.wal import SEGMENT_BYTES, SYSTEM, make_archive, make_segment


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("new:/srv/data", RestoreTarget.DIRECTORY),
        ("in-place", RestoreTarget.IN_PLACE),
        ("database:studio", RestoreTarget.DATABASE),
    ],
)
def test_a_place_is_read_as_it_is_written(text: str, kind: RestoreTarget) -> None:
    place = RestoreTo.parse(text)
    assert place.kind is kind
    assert str(place) == text


@pytest.mark.parametrize("text", ["", "new:", "new", "database:", "in-place:x", "/srv/data", "old:/srv"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        RestoreTo.parse(text)


def test_an_account_that_has_a_number_only_may_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    assert RestoreOrder(RecoveryTarget(), RestoreTo.parse("in-place")).actor == "uid 3999999999"


def test_a_target_that_holds_something_is_refused(tmp_path: Path) -> None:
    refuse_taken(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refuse_taken(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for taken in (tmp_path, tmp_path / "file", tmp_path / "link", Path("/proc"), Path("relative")):
        with pytest.raises(PlaceTaken):
            refuse_taken(taken)


def test_a_place_is_held_by_one_and_leaves_nothing_when_nothing_was_made(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with hold_place(target, None) as place:
        assert place.journal is None
        with pytest.raises(RestoreUnderWay), hold_place(target, None):
            pass
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "data.unfinished").mkdir()
    (tmp_path / "data.unfinished" / "mine").write_text("x")
    with pytest.raises(PlaceTaken), hold_place(target, None):
        pass


def test_a_journal_outlives_its_process(tmp_path: Path) -> None:
    target, made = tmp_path / "data", tmp_path / "spaces"
    with hold_place(target, None) as place:
        place.write(Journal("an order", made=(str(made),)))
        (place.data_dir / "base").mkdir(parents=True)
        made.mkdir()
    with hold_place(target, None) as place:
        assert place.journal == Journal("an order", Step.BUILDING, (str(made),))
        place.clear()
        assert not made.exists()
    assert list(tmp_path.iterdir()) == []
    with hold_place(target, None) as place:
        place.write(Journal("an order"))
    (tmp_path / "data.unfinished" / "restore.json").write_text("{")
    with pytest.raises(PermanentError, match="cannot understand"), hold_place(target, None):
        pass


def test_a_lock_that_was_removed_since_it_was_opened_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, real = tmp_path / "data", fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        # The one who held it leaves just now, and a third one makes it again.
        lock = tmp_path / "data.unfinished" / "lock"
        lock.unlink()
        lock.touch()
        real(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", flock)
        with pytest.raises(RestoreUnderWay), hold_place(target, None):
            pass
    with hold_place(target, None):
        pass


def test_a_server_on_data_that_were_written_over_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data"
    target.mkdir()
    with hold_place(target, None) as place:

        def used_and_over() -> tuple[bool, bool]:
            return place.is_used_since, place.is_written_over

        place.write(Journal("an order", Step.OVER, sockets="/run/scratch"))
        assert used_and_over() == (False, True)
        # A server works in its data directory, and this process stands in for it.
        monkeypatch.setattr(postmaster, "_is_server", lambda _: True)
        monkeypatch.chdir(target)
        lines = [str(os.getpid()), str(target), "1", "5432", "/run/its-own", ""]
        (target / "postmaster.pid").write_text("\n".join(lines))
        assert used_and_over() == (True, False)
        place.write(Journal("an order", Step.OVER, sockets="/run/its-own"))
        assert used_and_over() == (False, True)  # the killed restore's own
        place.write(Journal("an order", Step.OVER, control="as it was"))
        assert used_and_over() == (False, False)  # nothing was written yet
        monkeypatch.chdir(tmp_path)
        place.clear()


def test_old_data_are_written_over_when_pg_control_is_gone(tmp_path: Path) -> None:
    target = tmp_path / "data"
    control = target / "global" / "pg_control"
    control.parent.mkdir(parents=True)
    control.write_text("old")
    with hold_place(target, None) as place:

        def is_over() -> bool:
            return place.is_written_over

        assert not is_over()
        place.write(Journal("an order", Step.OVER, control=control_of(target)))
        place.tail_dir.mkdir()
        assert not is_over()
        # Their server was started again.
        control.write_text("old, and used since")
        assert not is_over()
        assert interrupted_over(target) is None
        control.unlink()
        assert is_over()
        assert interrupted_over(target) == place.tail_dir
        # As pgBackRest brings it back.
        (target / "backup_label").touch()
        control.write_text("restored")
        assert is_over()
        (target / "backup_label").unlink()
        place.write(Journal("an order", Step.OVER, sockets="/run/scratch"))
        assert is_over()
        assert not place.is_used_since
        place.clear()


@pytest.mark.parametrize("had_data", [True, False])
def test_putting_in_place_can_be_repeated_from_any_point(tmp_path: Path, had_data: bool) -> None:
    target, old = tmp_path / "data", tmp_path / "data.before"
    for renames_done in range(3 if had_data else 2):
        with hold_place(target, None) as place:
            place.write(Journal("an order", Step.READY))
            place.data_dir.mkdir()
            (place.data_dir / "new").write_text("")
            if had_data:
                target.mkdir()
                (target / "old").write_text("")
            if had_data and renames_done >= 1:
                target.rename(old)
            if renames_done == (2 if had_data else 1):
                place.data_dir.rename(target)
            place.put_in_place(old if had_data else None)
            place.put_in_place(old if had_data else None)
            place.leave()
        assert [path.name for path in target.iterdir()] == ["new"]
        assert old.is_dir() == had_data
        for folder in (target, old):
            if folder.is_dir():
                next(folder.iterdir()).unlink()
                folder.rmdir()
        assert list(tmp_path.iterdir()) == []


def test_old_data_are_never_replaced_twice(tmp_path: Path) -> None:
    target, old = tmp_path / "data", tmp_path / "data.before"
    for folder in (target, old):
        folder.mkdir()
        (folder / "file").write_text("")
    with hold_place(target, None) as place:
        place.data_dir.mkdir()
        with pytest.raises(PermanentError, match="holds the old data already"):
            place.put_in_place(old)
        place.clear()


def test_a_report_survives_the_journal(tmp_path: Path) -> None:
    at = datetime(2026, 11, 22, 14, 3, tzinfo=UTC)
    report = RestoreReport(uuid4(), "t", "new:/x", "L", ["L"], at, at, {"plan": 1.5}, "/x", last_commit_at=at)
    adapter = TypeAdapter(RestoreReport)
    stored = json.loads(json.dumps(adapter.dump_python(report, mode="json")))
    assert adapter.validate_python(stored) == report


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An isolated data directory, with its own files under their kept names."""
    path = tmp_path / "data"
    (path / "pg_wal" / "archive_status").mkdir(parents=True)
    for name in ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"):
        (path / name).write_text("# isolated\n")
    (path / f"postgresql.conf{KEPT_SUFFIX}").write_text(
        "archive_mode = on\ndata_directory = '/srv/old'\nsynchronous_standby_names = 's1'\nport = 5555\n"
    )
    (path / f"postgresql.auto.conf{KEPT_SUFFIX}").write_text("work_mem = '8MB'")
    (path / f"pg_hba.conf{KEPT_SUFFIX}").write_text("host all all 10.0.0.0/8 scram-sha-256\n")
    return path


def test_a_cluster_beside_its_original_does_not_archive(data_dir: Path) -> None:
    own = give_settings_back(data_dir, None, beside=True, final_dir=Path("/srv/new"))
    main, auto = read_settings(data_dir / "postgresql.conf"), read_settings(data_dir / "postgresql.auto.conf")
    assert main == {
        "archive_mode": "on",
        "data_directory": "/srv/new",
        "synchronous_standby_names": "s1",
        "port": "5555",
    }
    assert auto == {
        "work_mem": "8MB",
        "archive_mode": "off",
        "max_logical_replication_workers": "0",
        "synchronous_standby_names": "",
    }
    assert "ALTER SYSTEM RESET archive_mode;" in own.undo
    assert any("data_directory was /srv/old" in note for note in own.notes)
    assert (data_dir / "pg_hba.conf").read_text().startswith("host all all 10")
    assert not list(data_dir.glob(f"*{KEPT_SUFFIX}"))


def test_a_cluster_in_its_originals_place_is_as_before(data_dir: Path) -> None:
    kept = data_dir / f"postgresql.conf{KEPT_SUFFIX}"
    kept.write_text(f"{kept.read_text()}hba_file = '/etc/postgresql/pg_hba.conf'\n")
    own = give_settings_back(data_dir, None, beside=False, final_dir=Path("/srv/old"))
    assert own.undo == ()
    assert read_settings(data_dir / "postgresql.conf")["hba_file"] == "/etc/postgresql/pg_hba.conf"
    assert (data_dir / "postgresql.auto.conf").read_text() == "work_mem = '8MB'"
    assert read_settings(data_dir / "postgresql.conf")["archive_mode"] == "on"


def test_a_cluster_whose_configuration_lies_elsewhere_says_so(data_dir: Path) -> None:
    for name in data_dir.glob(f"*{KEPT_SUFFIX}"):
        name.unlink()
    own = give_settings_back(data_dir, None, beside=True, final_dir=data_dir)
    assert any("/etc" in note for note in own.notes)
    assert read_settings(data_dir / "postgresql.conf") == {}


def test_what_is_not_preloaded_is_named_where_something_is(data_dir: Path) -> None:
    def notes() -> list[str]:
        for name in ("postgresql.conf", "postgresql.auto.conf"):
            (data_dir / f"{name}{KEPT_SUFFIX}").write_text("include 'more/a.conf'\n" if name[10:] == ".conf" else "")
        own = give_settings_back(data_dir, None, beside=True, final_dir=data_dir)
        return [note for note in own.notes if "preload" in note]

    (data_dir / "more").mkdir()
    (data_dir / "more" / "a.conf").write_text("include_dir = '.'\nwork_mem = '8MB'\n")
    assert notes() == []
    (data_dir / "more" / "b.conf").write_text("shared_preload_libraries = 'pg_cron, other'\n")
    (note,) = notes()
    assert note.startswith("not preloaded beside the original: pg_cron, other. ")


def test_an_included_file_that_cannot_be_read_does_not_fail_a_restore(data_dir: Path) -> None:
    (data_dir / "more").mkdir()
    (data_dir / "more" / "b.conf").write_text("shared_preload_libraries = 'pg_cron'\n")
    # Root reads all but these: memory at 0, and a name that is too long.
    unreadable = f"include '/proc/self/mem'\ninclude '{'x' * 300}'\ninclude_dir '{'y' * 300}'\n"
    (data_dir / f"postgresql.conf{KEPT_SUFFIX}").write_text(f"{unreadable}Include_Dir = 'more'\n")
    own = give_settings_back(data_dir, None, beside=True, final_dir=data_dir)
    assert any(note.startswith("not preloaded beside the original: pg_cron. ") for note in own.notes)


def test_an_include_is_one_in_any_case(data_dir: Path) -> None:
    (data_dir / f"postgresql.conf{KEPT_SUFFIX}").write_text("INCLUDE_DIR 'more'\n")
    own = give_settings_back(data_dir, None, beside=True, final_dir=data_dir)
    assert any("includes other files" in note for note in own.notes)
    assert read_settings(data_dir / "postgresql.auto.conf")["shared_preload_libraries"] == ""


def test_a_new_timelines_history_is_offered_to_the_archiver(data_dir: Path) -> None:
    offer_history(data_dir, 3, None)
    offer_history(data_dir, None, None)
    status = data_dir / "pg_wal" / "archive_status"
    assert list(status.iterdir()) == []
    (data_dir / "pg_wal" / "00000003.history").write_text("2\t0/3000000\twhy\n")
    offer_history(data_dir, 3, None)
    offer_history(data_dir, 3, None)
    assert [path.name for path in status.iterdir()] == ["00000003.history.ready"]


def names(first: int, count: int) -> list[str]:
    return [f"00000001000000000000{number:04X}" for number in range(first, first + count)]


def test_the_tail_is_what_the_archive_lacks_and_nothing_recycled(tmp_path: Path) -> None:
    made = make_archive(tmp_path)
    archived, unarchived, recycled = names(1, 3), names(4, 2), names(6, 1)
    pg_wal = tmp_path / "pg_wal"
    (pg_wal / "archive_status").mkdir(parents=True)
    for name in [*archived, *unarchived]:
        (pg_wal / name).write_bytes(make_segment(name))
    # Kept to be used again: the name is of the future, the content of the past.
    (pg_wal / recycled[0]).write_bytes(make_segment(archived[0]))
    (pg_wal / names(7, 1)[0]).write_bytes(make_segment(names(7, 1)[0], system="7000000000000000001"))
    (pg_wal / names(8, 1)[0]).write_bytes(bytes(SEGMENT_BYTES))
    (pg_wal / "00000002.history").write_text("1\t0/300000\tno reason\n")
    for name in archived:
        push(made.program_config, str(pg_wal / name), name)
    archive = FilesystemArchive(Path(made.config.path), "studio")
    saved = save_tail(pg_wal, tmp_path / "tail", archive.listing(), None)
    assert [path.name for path in saved] == [*unarchived, "00000002.history"]

    both = ArchiveWithTail(archive, tmp_path / "tail")
    listing = both.listing()
    (whole,) = listing.ranges
    assert (whole.first.name, whole.last.name) == (archived[0], unarchived[-1])
    assert {segment.name for segment in both.open_ended(listing)} == set(unarchived)
    assert listing.history_timelines == (2,)
    assert [switch.timeline for switch in both.history(2)] == [1]
    for name in (archived[0], unarchived[0]):
        both.fetch(name, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == make_segment(name)
    assert struct.pack("=Q", int(SYSTEM)) in (tmp_path / "fetched").read_bytes()[:100]
    # The server's own pg_wal can be read in the same way, before anything is copied.
    assert ArchiveWithTail(archive, pg_wal).listing().ranges == listing.ranges


def test_tablespaces_are_named_by_old_and_new() -> None:
    assert tablespaces_of(["/a=/b", "/c=/d"]) == {Path("/a"): Path("/b"), Path("/c"): Path("/d")}
    for word in ("/a", "a=/b", "/a=b", "="):
        with pytest.raises(SettingsError):
            tablespaces_of([word])


def test_lengths_of_time() -> None:
    assert (seconds_of("90s"), seconds_of("30m"), seconds_of("2h")) == (90, 1800, 7200)
    for word in ("", "soon", "0s", "2026-11-22"):
        with pytest.raises(TargetUnreadable):
            seconds_of(word)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.integers(0, 2)),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), st.integers(0, 2)),
)
def test_merging_tells_rows_apart_as_sets_do(then: dict[str, int], now: dict[str, int]) -> None:
    def side(rows: dict[str, int]) -> Iterator[tuple[str, str]]:
        return iter((key, str(rows[key])) for key in sorted(rows, key=str.encode))

    found = sorted(_merged(side(then), side(now)))
    expected = [("only_then", key) for key in then if key not in now]
    expected += [("only_now", key) for key in now if key not in then]
    expected += [("changed", key) for key in then if key in now and then[key] != now[key]]
    assert found == sorted(expected)
