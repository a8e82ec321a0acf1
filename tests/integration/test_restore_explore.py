"""Explore, rescue and the deep preview on a real server: what they show, and that nothing of them stays."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import tomlkit

from lifeboat.operations.preview.compared_tables import TablePreview
from lifeboat.operations.preview.deep import DeepPreview, _is_empty, deep_preview
from lifeboat.operations.restore.explore import explored
from lifeboat.operations.restore.place import PlaceTaken
from lifeboat.operations.restore.rescue import RescueFailed, rescue_table
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.storage.manifest import BackupType
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab

ROOT = Path(__file__).parents[2]
ACCIDENTS = (
    "DELETE FROM public.segments WHERE id <= 700",
    "UPDATE public.segments SET title = 'wrong' WHERE id BETWEEN 801 AND 850",
    "INSERT INTO public.segments SELECT i, 'new' FROM generate_series(5001, 5010) i",
    "DROP TABLE public.tags",
    "TRUNCATE public.notes",
    "CREATE TABLE public.later AS SELECT 1 AS one",
    "UPDATE public.unkeyed SET body = 'b' WHERE body = 'a'",
)


@pytest.fixture(scope="module")
def lab(pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A source that has lived through ACCIDENTS; two dumps and a full backup were taken before."""
    with reachable_dir() as root:
        made = make_lab(pg_tools, root)
        made.run(
            "CREATE TYPE public.mood AS ENUM ('fine', 'bad')",
            "CREATE TABLE public.tags (id int PRIMARY KEY, name text NOT NULL, moods public.mood[], size numeric(9,2))",
            "INSERT INTO public.tags SELECT i, E'tab\\t' || i, ARRAY['fine','bad']::public.mood[], i / 3.0"
            " FROM generate_series(1, 300) i",
            "INSERT INTO public.notes SELECT i, NULLIF('note ' || i, 'note 7') FROM generate_series(1, 400) i",
            "CREATE TABLE public.unkeyed (body text)",
            "INSERT INTO public.unkeyed VALUES ('a'), ('a'), ('c')",
        )
        made.back_up()
        made.back_up(BackupType.LOGICAL, "pg_dump")
        yield made
        made.cluster.stop(mode="immediate")


@pytest.fixture(scope="module")
def moment(lab: RecoveryLab) -> datetime:
    """Just before the accidents."""
    lab.commit(1)
    at = lab.moment()
    lab.run(*ACCIDENTS)
    lab.commit(2)
    lab.switch()
    return at


def at_time(at: datetime) -> RecoveryTarget:
    return RecoveryTarget(TargetKind.TIME, at=at)


def left_behind(lab: RecoveryLab) -> list[Path]:
    return list(lab.installation.settings.scratch_dir.glob("*-*"))


def test_an_explored_cluster_is_of_that_moment_and_read_only(lab: RecoveryLab, moment: datetime) -> None:
    with explored(lab.installation, at_time(moment)) as there:
        dsn = there.found.connection.dsn
        assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 1
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            lab.rows("DELETE FROM public.segments RETURNING id", dsn)
    assert left_behind(lab) == []


def test_exploring_the_latest_moment_is_read_only_too(lab: RecoveryLab, moment: datetime) -> None:
    with explored(lab.installation, RecoveryTarget()) as there:
        dsn = there.found.connection.dsn
        assert lab.value("SELECT max(number) FROM public.heartbeats", dsn) == 2
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            lab.rows("DELETE FROM public.segments RETURNING id", dsn)


def test_a_deep_preview_is_exact(lab: RecoveryLab, moment: datetime) -> None:
    found = deep_preview(lab.installation, at_time(moment))
    assert isinstance(found, DeepPreview)
    tables = {table.table: table for table in found.different}
    # Rescued tables came later too, and would go.
    ours = {name for name in tables if not name.startswith("rescue_")}
    assert ours == {f"public.{name}" for name in ("segments", "tags", "notes", "later", "unkeyed", "heartbeats")}

    def facts(table: TablePreview) -> tuple[object, ...]:
        return table.rows_then, table.rows_now, table.only_then, table.only_now, table.changed

    assert facts(tables["public.segments"]) == (2000, 1310, 700, 10, 50)
    assert facts(tables["public.tags"]) == (300, None, 300, 0, 0)
    assert facts(tables["public.notes"]) == (400, 0, 400, 0, 0)
    assert facts(tables["public.later"]) == (None, 1, 0, 1, 0)
    assert facts(tables["public.unkeyed"]) == (3, 3, 2, 2, None)
    assert tables["public.segments"].keys["only_now"][0] == "(5001)"
    assert any(name.startswith("table public.tags") for name in map(str.lower, found.comes_back)), found.comes_back
    assert any("public.later" in name for name in found.goes_away)
    assert left_behind(lab) == []


def test_a_deep_preview_names_the_databases_that_it_does_not_compare(lab: RecoveryLab, moment: datetime) -> None:
    assert deep_preview(lab.installation, at_time(moment)).exact
    lab.run("CREATE DATABASE beside")
    try:
        found = deep_preview(lab.installation, at_time(moment))
    finally:
        lab.run("DROP DATABASE beside")
    assert found.not_compared == ["database beside: goes away"]
    assert not found.exact


def test_a_database_with_anything_in_it_is_not_empty(lab: RecoveryLab) -> None:
    lab.run("CREATE DATABASE filled")
    source = lab.installation.source
    assert _is_empty(source, "filled")
    with connect(source.with_database("filled"), autocommit=True) as session:
        session.execute("CREATE TYPE public.mood AS ENUM ('fine')")
    assert not _is_empty(source, "filled")
    assert not _is_empty(source, "nowhere")
    lab.run("DROP DATABASE filled")


def test_a_rescued_table_shows_its_difference(lab: RecoveryLab, moment: datetime) -> None:
    found = rescue_table(lab.installation, at_time(moment), "public", "segments")
    assert (found.rows, found.only_rescued, found.only_live, found.different) == (2000, 700, 10, 50)
    assert lab.value(f"SELECT count(*) FROM {found.rescued_table} WHERE title = 'wrong'") == 0
    gone = rescue_table(lab.installation, at_time(moment), "public", "tags")
    assert (gone.rows, gone.only_rescued) == (300, None)
    assert lab.rows(f"SELECT name, moods::text, size FROM {gone.rescued_table} WHERE id = 3") == [
        ("tab\t3", "{fine,bad}", 1)
    ]
    assert lab.value("SELECT count(*) FROM public.segments") == 1310
    before = lab.rows("SELECT nspname FROM pg_namespace ORDER BY 1")
    with pytest.raises(RescueFailed):
        rescue_table(lab.installation, at_time(moment), "public", "nobody")
    assert lab.rows("SELECT nspname FROM pg_namespace ORDER BY 1") == before
    assert left_behind(lab) == []


def test_a_dump_is_restored_to_a_new_database(lab: RecoveryLab, moment: datetime) -> None:
    order = RestoreOrder(at_time(moment), RestoreTo.parse("database:studio_copy"))
    report = run_restore(lab.installation, order)
    assert report.label.endswith("L")
    assert any("no moments in between" in note for note in report.notes)
    with connect(lab.installation.source.with_database("studio_copy"), autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM public.tags").fetchall() == [(300,)]
    with pytest.raises(PlaceTaken):
        run_restore(lab.installation, order)
    with pytest.raises(TargetRefused) as early:
        run_restore(
            lab.installation, RestoreOrder(at_time(datetime(2020, 1, 1, tzinfo=UTC)), RestoreTo.parse("database:x"))
        )
    assert "lifeboat backup run --type logical" in str(early.value.hint)
    with pytest.raises(TargetRefused):
        run_restore(lab.installation, RestoreOrder(RecoveryTarget(TargetKind.NAME, name="x"), order.to))
    assert lab.value("SELECT count(*) FROM pg_database WHERE datname LIKE 'lifeboat_restore_%'") == 0
    lab.run("DROP DATABASE studio_copy")


@pytest.fixture(scope="module")
def settings_file(lab: RecoveryLab) -> Path:
    """The lab's settings as a file."""
    path = lab.root / "lifeboat.toml"
    given = lab.installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    path.write_text(tomlkit.dumps({**given, "platform": {**given["platform"], "dsn": lab.cluster.dsn()}}))
    return path


def start(settings: Path, *words: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "console.cli.main", "--config", str(settings), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(settings: Path, *words: str) -> tuple[int, str, str]:
    with start(settings, *words) as process:
        out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def dsn_from(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.rstrip() == "}":
            break
    return str(json.loads("".join(lines))["dsn"])


def test_explore_serves_until_it_is_told_to_end(lab: RecoveryLab, moment: datetime, settings_file: Path) -> None:
    with start(settings_file, "explore", "--at", moment.isoformat(), "--json") as process:
        dsn = dsn_from(process)
        assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert left_behind(lab) == []


def test_a_transaction_is_explored_and_rescued_as_it_is_restored(lab: RecoveryLab, settings_file: Path) -> None:
    """Just before a DROP: the command that a dry run prints leads there."""
    lab.run("CREATE TABLE public.chosen AS SELECT generate_series(1, 3) AS id")
    with connect(lab.installation.source, autocommit=True) as session, session.transaction():
        session.execute("DROP TABLE public.chosen")
        (xid,) = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
    lab.switch()
    before = ("--xid", xid, "--before")
    code, _, err = run(settings_file, "restore", "run", *before, "--to", f"new:{lab.root / 'unmade'}", "--dry-run")
    assert code == 0, err
    (look,) = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("  look at it, read-only: ")]
    words = shlex.split(look)
    with start(settings_file, *words[words.index("explore") :], "--json") as process:
        dsn = dsn_from(process)
        assert lab.value("SELECT count(*) FROM public.chosen", dsn) == 3
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "a guard rail: the session is a superuser's" in err
    code, out, err = run(settings_file, "rescue", *before, "--table", "public.chosen", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 3), err
    code, _, err = run(settings_file, "rescue", "--xid", xid, "--table", "public.chosen")
    assert code == 1
    assert "there was no table public.chosen at that moment" in err


def test_what_a_killed_explore_left_is_removed_by_the_next(
    lab: RecoveryLab, moment: datetime, settings_file: Path
) -> None:
    with start(settings_file, "explore", "--at", moment.isoformat(), "--json") as process:
        dsn = dsn_from(process)
        process.kill()
        process.communicate()
    assert lab.value("SELECT count(*) FROM public.segments", dsn) == 2000
    code, out, err = run(settings_file, "explore", "--at", moment.isoformat(), "--for", "1s")
    assert code == 0, err
    assert "psql" in out
    assert "it ends by itself at " in err
    assert left_behind(lab) == []
    with pytest.raises(Exception, match="cannot be reached"):
        connect(dsn)


def test_the_command_line_restores_and_refuses(lab: RecoveryLab, moment: datetime, settings_file: Path) -> None:
    place = lab.root / "by command"
    wanted = ("restore", "run", "--at", moment.isoformat(), "--to", f"new:{place}")
    code, out, err = run(settings_file, *wanted, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["place"] == str(place)
    code, out, err = run(settings_file, *wanted, "--dry-run")
    assert "plan " not in out
    assert "WAL segments" in out
    assert "lifeboat --config" in err
    assert not list(lab.root.glob("by command*"))
    code, out, err = run(settings_file, *wanted)
    assert code == 0, err
    assert "pg_ctl" in out
    assert "ALTER SYSTEM RESET archive_mode;" in out
    assert (place / "PG_VERSION").is_file()
    for words, expected in {
        ("--at", "yesterday at noon"): 2,
        ("--at", "2020-01-01"): 1,
        ("--at", "now"): 1,
        ("--at", moment.isoformat(), "--latest"): 2,
        ("--latest", "--timeline", "9"): 1,
    }.items():
        code, out, err = run(settings_file, "restore", "run", *words, "--to", f"new:{lab.root / 'refused'}")
        assert code == expected, err
        assert "HINT" in err
    assert not list(lab.root.glob("refused*"))
    code, out, err = run(settings_file, "rescue", "--at", moment.isoformat(), "--table", "public.segments", "--json")
    assert code == 0, err
    assert json.loads(out)["only_rescued"] == 700


def test_a_dump_is_nothing_to_explore(lab: RecoveryLab, settings_file: Path) -> None:
    words = ("restore", "run", "--latest", "--to", "database:studio_copy", "--destination", "primary")
    code, out, err = run(settings_file, *words, "--dry-run")
    assert code == 0, err
    assert "explore" not in err
    (again,) = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("  restore it: ")]
    dry_run = f"{again} --dry-run"
    done = subprocess.run(dry_run, shell=True, cwd="/", timeout=240, capture_output=True, text=True, check=False)  # noqa: S602 - as it is printed
    assert (done.returncode, done.stdout) == (0, out), done.stderr


def test_in_place_is_typed_once_more(lab: RecoveryLab, moment: datetime, settings_file: Path) -> None:
    words = ("restore", "run", "--at", moment.isoformat(), "--to", "in-place", "--timeline", "1", "--stop-server")
    code, _, err = run(settings_file, *words, "--yes", "0" * 12)
    assert code == 1, err
    assert "the plan is" in err
    assert lab.cluster.is_running()
    code, out, err = run(settings_file, *words[:-1], "--dry-run")
    assert code == 0, err
    assert "LOSES everything that was committed after" in out
    assert "the server RUNS" in out
    # What is printed is typed again, by a shell in another folder.
    (count,) = [line.partition(": ")[2] for line in out.splitlines() if line.startswith("  what that is, counted: ")]
    counted = subprocess.run(count, shell=True, cwd="/", timeout=240, capture_output=True, text=True, check=False)  # noqa: S602 - as it is printed
    assert counted.returncode == 0, counted.stderr
    assert shlex.split(count)[-2:] == ["--timeline", "1"]
    assert time_text(moment) in counted.stdout
    (again,) = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("  restore it: ")]
    code, out, err = run(settings_file, *shlex.split(again)[3:], "--dry-run", "--json")
    assert (code, json.loads(out)["place"]) == (0, str(lab.cluster.data_dir)), err
