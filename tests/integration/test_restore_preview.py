"""The quick preview: what it says of accidents, and what it refuses."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from console.cli.main import main
from lifeboat.catalog.migrate import migrate
from lifeboat.operations.installation import Installation
from lifeboat.operations.preview.quick import PreviewOrder, RestorePreview, preview_restore
from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
from lifeboat.operations.restore.run import run_restore
from lifeboat.operations.wal.index import index_wal
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.recovery.planning import TargetRefused
from lifeboat.recovery.targets import RecoveryTarget, TargetKind, time_text
from lifeboat.recovery.undoing import Change
from lifeboat.settings.loading import CONFIG_VARIABLE
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.activity.index import IndexProgress
from tasks.preview_report import preview_report
from tests.support.postgres import reachable_dir
from tests.support.recovery import RecoveryLab, make_lab


@pytest.fixture(scope="module")
def lab(each_pg_tools: PgTools) -> Iterator[RecoveryLab]:
    """A server that archives, with a full backup and changes behind it."""
    with reachable_dir() as root:
        made = make_lab(each_pg_tools, root)
        migrate(made.installation.catalog_connection)
        made.run(
            "CREATE TABLE public.doomed AS SELECT g AS id FROM generate_series(1, 700) g",
            "CREATE TABLE public.emptied AS SELECT g AS id FROM generate_series(1, 300) g",
            "CREATE TABLE public.packed AS SELECT g AS id FROM generate_series(1, 90) g",
        )
        made.back_up(BackupType.FULL)
        made.switch()
        index_wal(made.installation)
        yield made
        made.cluster.stop()


def preview_at(lab: RecoveryLab, at: datetime) -> RestorePreview:
    return preview_restore(lab.installation, PreviewOrder(RecoveryTarget(TargetKind.TIME, at=at)))


def counts(preview: RestorePreview) -> dict[str, tuple[int, int, int]]:
    return {item.table: (item.inserted_rows, item.updated_rows, item.deleted_rows) for item in preview.tables}


def test_every_accident_is_named_and_counted(lab: RecoveryLab) -> None:
    lab.run(
        "INSERT INTO public.doomed SELECT g FROM generate_series(701, 750) g",
        "DELETE FROM public.emptied WHERE id <= 20",
    )
    at = lab.moment()
    lab.run(
        "DELETE FROM public.segments WHERE id > 100",
        "UPDATE public.segments SET title = 'x' WHERE id BETWEEN 51 AND 57",
        "INSERT INTO public.doomed VALUES (-1), (-2), (-3)",
        "DROP TABLE public.doomed",
        "TRUNCATE public.emptied",
        "INSERT INTO public.emptied VALUES (1), (2)",
        "VACUUM FULL public.packed",
        "CREATE TABLE public.brought (a int)",
        "CREATE TABLE public.brief (a int)",
        "ALTER TABLE public.notes ADD COLUMN more text",
    )
    index_wal(lab.installation)  # brief is observed
    lab.run("DROP TABLE public.brief")
    lab.switch()
    found = preview_at(lab, at)
    assert found.exact, found.doubts
    tables = {item.table: item for item in found.tables}
    assert counts(found)["public.segments"] == (0, 7, 1900)
    assert not tables["public.segments"].estimated
    assert (tables["public.doomed"].events, tables["public.doomed"].rows_at_target) == (("drop",), 750)
    assert counts(found)["public.doomed"] == (3, 0, 0)
    assert (tables["public.emptied"].events, tables["public.emptied"].rows_at_target) == (("truncate",), 280)
    assert counts(found)["public.emptied"] == (2, 0, 0)
    assert (tables["public.packed"].events, tables["public.packed"].rows_at_target) == (("rewrite",), 90)
    assert all(tables[name].estimated for name in ("public.doomed", "public.emptied", "public.packed"))
    changes = {item.name: item.change for item in found.objects}
    assert changes == {
        "public.doomed": Change.COMES_BACK,
        "public.brought": Change.GOES,
        "public.notes": Change.CHANGES_BACK,
    }
    assert "DELETE of 1,900 rows from public.segments" in [event.text for event in found.events]
    lost = found.transactions
    assert lost is not None
    assert lost.count >= 11
    assert lost.first_at is not None
    assert lost.first_at > at
    page = preview_report(found)
    assert "about 750 (estimated)" in page
    assert "| public.doomed | postgres | comes back | drop |" in page


def test_a_table_made_since_the_backup_is_counted_from_its_beginning(lab: RecoveryLab) -> None:
    lab.run("CREATE TABLE public.late (a int)", "INSERT INTO public.late SELECT generate_series(1, 40)")
    lab.switch()
    index_wal(lab.installation)
    lab.run("TRUNCATE public.late", "INSERT INTO public.late SELECT generate_series(1, 11)")
    at = lab.moment()
    index_wal(lab.installation)  # its newest file is observed
    lab.run("INSERT INTO public.late VALUES (1)", "DROP TABLE public.late")
    lab.switch()
    (late,) = [item for item in preview_at(lab, at).tables if item.table == "public.late"]
    assert (late.inserted_rows, late.estimated, late.rows_at_target) == (1, True, 11)


def test_tables_that_were_dropped_and_made_again_are_one_line_each(lab: RecoveryLab) -> None:
    """As `pg_restore --clean` does it, with more tables than the text of an event names."""
    names = [f"public.reloaded_{number}" for number in range(25)]
    lab.run(*(f"CREATE TABLE {name} AS SELECT generate_series(1, 30) AS id" for name in names))
    lab.switch()
    index_wal(lab.installation)
    at = lab.moment()
    drops = "".join(f"DROP TABLE {name};" for name in names)
    made = "".join(f"CREATE TABLE {name} AS SELECT generate_series(1, 7) AS id;" for name in names)
    lab.run(f"DELETE FROM {names[0]} WHERE id <= 10", f"DO $$ BEGIN {drops} {made} END $$")
    lab.switch()
    found = preview_at(lab, at)
    assert {item.name: (item.change, item.event) for item in found.objects} == dict.fromkeys(
        names, (Change.REPLACED, "drop, create")
    )
    assert len(found.objects) == len(names)
    assert {name: each for name, each in counts(found).items() if name in names} == {
        name: (7, 0, 10 if name == names[0] else 0) for name in names
    }
    for item in found.tables:
        if item.table in names:
            assert (item.events, item.rows_at_target) == (("drop", "create"), 30)
    assert sorted(event.text.split(" of ")[0] for event in found.events) == ["CREATE", "DROP"]
    assert all(event.text.endswith(" and 20 more") for event in found.events)
    assert "replaced since: the earlier one comes back" in preview_report(found)


def test_what_was_made_again_without_a_file_is_not_said_to_come_back(lab: RecoveryLab) -> None:
    """WAL tells of no partitioned table that was made, and of an unlogged one only its empty fork."""
    made = (
        "CREATE TABLE public.events (at date) PARTITION BY RANGE (at)",
        "CREATE UNLOGGED TABLE public.cache (a int)",
        "CREATE VIEW public.seen AS SELECT * FROM public.cache",
    )
    lab.run(*made, "CREATE UNLOGGED TABLE public.memo (a int)")
    lab.switch()
    index_wal(lab.installation)
    at = lab.moment()
    lab.run("DROP TABLE public.events", "DROP TABLE public.cache CASCADE", *made[:2], "TRUNCATE public.memo")
    lab.run("CREATE UNLOGGED TABLE public.young (a int)")
    lab.switch()
    found = preview_at(lab, at)
    assert {item.name: item.change for item in found.objects} == {
        "public.events": Change.REPLACED,
        "public.cache": Change.REPLACED,
        "public.young": Change.GOES,
    }
    assert {item.table: item.events for item in found.tables}["public.memo"] == ("truncate",)
    assert any(note.startswith("views, functions") and "`--deep`" in note for note in found.notes)
    lab.run("DROP TABLE public.events", "DROP TABLE public.cache")
    lab.switch()
    gone = {item.name: item.change for item in preview_at(lab, at).objects}
    assert (gone["public.events"], gone["public.cache"]) == (Change.COMES_BACK, Change.COMES_BACK)


def test_nothing_committed_since_is_nothing_undone(lab: RecoveryLab) -> None:
    lab.run("UPDATE public.segments SET approved = false WHERE id = 1")
    at = lab.moment()
    lab.run("SELECT pg_logical_emit_message(true, 'lab', 'only a commit')")
    lab.switch()
    found = preview_at(lab, at)
    assert found.tables == ()
    assert found.transactions is not None
    assert found.transactions.count == 0
    assert not any("views" in note for note in found.notes)


def test_what_the_index_has_not_read_is_a_doubt(lab: RecoveryLab) -> None:
    at = lab.moment()
    lab.run("UPDATE public.segments SET approved = true WHERE id = 2")
    lab.switch()
    index_wal(lab.installation)
    lab.run("UPDATE public.segments SET approved = true WHERE id = 4")
    lab.switch()
    # It ends behind the target, and all that it has read is counted right: only the archive knows of more.
    target = RecoveryTarget(TargetKind.TIME, at=at)
    old = preview_restore(lab.installation, PreviewOrder(target, update_index=False))
    assert not old.exact
    assert "is not counted" in " ".join(old.doubts)
    assert preview_at(lab, at).exact
    assert preview_restore(lab.installation, PreviewOrder(target, update_index=False)).exact


def test_an_update_that_fails_is_a_doubt(lab: RecoveryLab) -> None:
    at = lab.moment()
    lab.run("UPDATE public.segments SET approved = true WHERE id = 3")
    lab.switch()
    found: list[RestorePreview] = []

    def preview_meanwhile(progress: IndexProgress) -> None:
        if not found:
            found.append(preview_at(lab, at))

    index_wal(lab.installation, on_progress=preview_meanwhile)
    assert not found[0].exact
    assert "another run" in " ".join(found[0].doubts)
    assert preview_at(lab, at).exact


def test_a_gap_behind_the_target_is_a_doubt(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        migrate(lab.installation.catalog_connection)
        lab.back_up(BackupType.FULL)
        lab.commit(1)
        lab.switch()
        at = lab.moment()
        lab.run("INSERT INTO public.notes VALUES (1, 'x')")
        lab.switch()
        lab.run("DELETE FROM public.segments WHERE id <= 500")
        lost = lab.switch()
        lab.run("INSERT INTO public.notes VALUES (2, 'x')")
        lab.switch()
        lab.stored(lost).unlink()
        found = preview_at(lab, at)
        assert not found.exact
        assert lost in " ".join(found.doubts)
        assert lost in preview_report(found)
        # The index goes on behind the gap; what lay in it stays unknown for moments before it, and only for those.
        lab.back_up(BackupType.FULL)
        later = lab.moment()
        lab.run("INSERT INTO public.notes VALUES (3, 'x')")
        lab.switch()
        assert not preview_at(lab, at).exact
        assert preview_at(lab, later).exact, preview_at(lab, later).doubts
        lab.cluster.stop()


def test_another_timeline_than_the_current_one_is_a_doubt(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        migrate(lab.installation.catalog_connection)
        lab.back_up(BackupType.FULL)
        first = lab.moment()
        lab.run("INSERT INTO public.notes SELECT g, 'dead' FROM generate_series(1, 100) g")
        left = lab.moment()
        lab.commit(1)
        lab.switch()
        order = RestoreOrder(
            RecoveryTarget(TargetKind.TIME, at=first),
            RestoreTo.parse("in-place"),
            data_dir=lab.cluster.data_dir,
            stop_server=True,
        )
        assert run_restore(lab.installation, order).new_timeline == 2
        lab.cluster.start()
        lab.commit(2)  # no moment before the first commit of timeline 2 can be asked for
        before = lab.moment()
        lab.run("INSERT INTO public.notes SELECT g, 'alive' FROM generate_series(1, 7) g")
        lab.switch()
        # It brings 100 rows back and takes 7 away; counted are those that were committed behind it on timeline 1.
        found = preview_restore(lab.installation, PreviewOrder(RecoveryTarget(TargetKind.TIME, at=left, timeline=1)))
        assert not found.exact
        assert "the server is on timeline 2, the target on timeline 1" in found.doubts[0]
        assert "`--deep`" in preview_report(found)
        assert preview_at(lab, before).exact, preview_at(lab, before).doubts
        assert counts(preview_at(lab, before))["public.notes"] == (7, 0, 0)
        lab.cluster.stop()


@pytest.fixture
def configured(lab: RecoveryLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecoveryLab:
    """The lab with its settings in a file that commands and flows read."""
    monkeypatch.setenv(CONFIG_VARIABLE, str(lab.write_settings(tmp_path / "lifeboat.toml")))
    return lab


def test_the_command(configured: RecoveryLab, capsys: pytest.CaptureFixture[str]) -> None:
    at = configured.moment()
    configured.run("DELETE FROM public.segments WHERE id <= 5")
    configured.switch()
    assert main(["restore", "preview", "--at", at.isoformat(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["exact"]
    assert [(item["table"], item["deleted_rows"]) for item in told["tables"]] == [("public.segments", 5)]
    assert main(["restore", "preview", "--at", at.isoformat(), "--no-index"]) == 0
    shown = capsys.readouterr()
    assert "public.segments" in shown.out
    assert "transactions lost" in shown.out
    assert "restored to" not in shown.out
    assert "restore run --at " in shown.err
    assert " explore --at " in shown.err


def test_what_is_shown_can_be_typed_as_a_target(configured: RecoveryLab, capsys: pytest.CaptureFixture[str]) -> None:
    """Moments to the microsecond, and the transactions."""
    configured.run("CREATE TABLE public.typed AS SELECT 1 AS one")
    index_wal(configured.installation)  # its name is observed
    at = configured.moment()
    with connect(configured.installation.source, autocommit=True) as session, session.transaction():
        session.execute("DROP TABLE public.typed")
        (xid,) = session.execute("SELECT pg_current_xact_id()::text").fetchone() or ("",)
    configured.switch()
    assert main(["restore", "preview", "--at", at.isoformat()]) == 0
    (event,) = [line for line in capsys.readouterr().out.splitlines() if "DROP of public.typed" in line]
    assert event.endswith(f"DROP of public.typed (transaction {xid})")
    moment = event.partition("  ")[0]
    assert main(["restore", "points"]) == 0
    (mark,) = [line for line in capsys.readouterr().out.splitlines() if "DROP of public.typed" in line]
    assert mark.split()[:4] == [*moment.split()[:2], "1", xid]
    assert main(["restore", "points", "--json"]) == 0
    (told,) = [
        each for each in json.loads(capsys.readouterr().out)["annotations"] if each["text"] == "DROP of public.typed"
    ]
    assert (told["xid"], time_text(datetime.fromisoformat(told["at"]))) == (int(xid), moment)


def test_bad_targets_are_refused_with_the_nearest_moment(
    configured: RecoveryLab, capsys: pytest.CaptureFixture[str]
) -> None:
    configured.switch()
    now = configured.moment()
    with pytest.raises(TargetRefused) as early:
        preview_at(configured, now - timedelta(days=9))
    assert early.value.later is not None
    with pytest.raises(TargetRefused) as future:
        preview_at(configured, now + timedelta(days=9))
    assert future.value.earlier is not None
    assert main(["restore", "preview", "--at", (now + timedelta(days=9)).isoformat()]) == 1
    assert "The nearest moment that can be had is" in capsys.readouterr().err
    assert main(["restore", "preview", "--at", "the other day"]) == 2


def test_without_a_catalog_the_plan_is_still_there(lab: RecoveryLab) -> None:
    at = lab.moment()
    lab.run("DELETE FROM public.segments WHERE id = 50")
    lab.switch()
    settings = lab.installation.settings
    nowhere = settings.catalog.model_copy(update={"dsn": SecretStr(f"host={lab.root} dbname=nowhere")})
    blind = Installation(settings.model_copy(update={"catalog": nowhere}))
    found = preview_restore(blind, PreviewOrder(RecoveryTarget(TargetKind.TIME, at=at)))
    assert found.label == preview_at(lab, at).label
    assert not found.exact
    assert found.transactions is None
    assert "not known" in preview_report(found)


def test_a_table_made_anew_under_the_name_of_a_counted_one_has_its_own_rows(lab: RecoveryLab) -> None:
    lab.run("CREATE TABLE public.again AS SELECT generate_series(1, 30) AS id")
    lab.back_up(BackupType.FULL)
    lab.run("DROP TABLE public.again", "CREATE TABLE public.again AS SELECT generate_series(1, 7) AS id")
    at = lab.moment()
    index_wal(lab.installation)  # its name is observed
    lab.run("DROP TABLE public.again")
    lab.switch()
    (found,) = [item for item in preview_at(lab, at).tables if item.table == "public.again"]
    assert (found.estimated, found.rows_at_target) == (True, 7)
