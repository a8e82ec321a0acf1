"""Applying an archive: what the plan says and nothing else, all of it or nothing, and no secret is overwritten."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, errors, sql

from lifeboat.configuration.apply import ApplyFailed, LiveChanged, TablesBusy, apply
from lifeboat.configuration.content import Archive
from lifeboat.configuration.describe import describe_plan
from lifeboat.configuration.diff import diff
from lifeboat.configuration.file_writer import undo_files
from lifeboat.configuration.index import ConfigurationError
from lifeboat.configuration.planning import plan_apply
from lifeboat.configuration.way_back import find_gaps
from lifeboat.postgres.connections import connect
from lifeboat.settings.configuration import ConfigurationSettings
from tests.support.configuration import (
    SECRETS,
    change_platform,
    contents,
    export,
    items,
    make_platform,
    platform_settings,
)


def test_nothing_to_do(session: Connection[Any], settings: ConfigurationSettings, archive: Archive) -> None:
    plan = plan_apply(archive, session, settings)
    assert plan.is_empty
    assert "nothing to write" in describe_plan(plan)
    assert plan.notes == ()
    assert plan.by_hand == ()
    assert plan_apply(archive, session, settings).sha256 == plan.sha256
    assert plan_apply(archive, session, settings, prune=True).sha256 != plan.sha256


def test_the_plan_says_what_will_change_and_then_it_does(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, hooks: Path, tmp_path: Path
) -> None:
    before = contents(session)
    change_platform(session, hooks)
    plan = plan_apply(archive, session, settings)
    mail = "00000000-0000-0000-0000-000000000001/mail"
    assert items(plan) == {
        "scene_types": ([], ["1"], []),
        "workflows": (["2"], ["1"], []),
        "notification_preferences": ([], [mail, mail.replace("mail", "slack")], []),
        "roles": (["editor", "viewer"], [], []),
    }
    lines = describe_plan(plan)
    assert "      graph.nodes[0].seed: 7 → 1.10" in lines
    assert '      price: "9.00" → "1.50"' in lines
    assert "  ~ on_approve/notify.sh (file)" in lines
    assert not any(secret in line for secret in SECRETS for line in lines)
    assert not any(secret in repr(plan) for secret in SECRETS)
    done = apply(plan, session, keep_in=tmp_path / "kept")
    assert (done.inserted_count, done.updated_count, done.removed_count, done.file_count) == (3, 4, 0, 1)
    after = contents(session)
    assert after["workflows"] == before["workflows"]
    assert set(after["roles"]) == {*before["roles"], "(guest,,{})"}
    # The passwords are the live ones, and so is what nobody could know.
    found = session.execute("SELECT settings::text, url, pin FROM notification_preferences ORDER BY channel").fetchall()
    assert found == [
        (
            '{"smtp": {"host": "mx", "password": "Pl4nted-S3cret-1"}, "max_tokens": 7}',
            f"smtp://me:{SECRETS[1]}@mx.example",
            5,
        ),
        ('{"token": "Pl4nted-S3cret-3"}', None, None),
    ]
    assert (hooks / "on_approve" / "notify.sh").read_bytes() == b"#!/bin/sh\necho approved\n"
    assert (hooks / "extra.sh").read_text() == "mine"
    assert plan_apply(archive, session, settings).is_empty
    assert undo_files(tmp_path / "kept") == 1
    assert (hooks / "on_approve" / "notify.sh").read_bytes() == b"broken"


def test_pruning_removes_what_the_archive_has_not(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, hooks: Path, tmp_path: Path
) -> None:
    before = contents(session)
    change_platform(session, hooks)
    plan = plan_apply(archive, session, settings, prune=True)
    assert items(plan)["roles"] == (["editor", "viewer"], [], ["guest"])
    assert items(plan)["scene_types"] == ([], ["1"], ["4"])
    done = apply(plan, session, keep_in=tmp_path / "kept")
    assert done.removed_count == 2
    after = contents(session)
    assert {name: after[name] for name in ("scene_types", "workflows", "roles")} == {
        name: before[name] for name in ("scene_types", "workflows", "roles")
    }
    assert not (hooks / "extra.sh").exists()
    assert diff(archive, export(session, settings)).is_empty
    undo_files(tmp_path / "kept")
    assert (hooks / "extra.sh").read_text() == "mine"


def test_only_secrets_that_an_update_replaces_are_gaps_in_the_way_back(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, hooks: Path
) -> None:
    change_platform(session, hooks)
    (hooks / "on_approve" / "notify.sh").chmod(0o4755)
    plan = plan_apply(archive, session, settings)
    gaps = find_gaps(plan, export(session, settings))
    # Both rows hold secrets and are updated; only the pin that was NULL is not kept as it is.
    user = "00000000-0000-0000-0000-000000000001"
    assert items(plan)["notification_preferences"][1] == [f"{user}/mail", f"{user}/slack"]
    assert gaps.lost == (f"notification_preferences {user}/slack pin (it is redacted in archives)",)
    assert gaps.left == ("hook_scripts on_approve/notify.sh: its set-user-id or set-group-id bit is not set again",)


def test_an_empty_database_is_filled(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    before = contents(session)
    session.execute("TRUNCATE scene_types, workflows, notification_preferences, roles RESTART IDENTITY CASCADE")
    plan = plan_apply(archive, session, settings, folders={"hook_scripts": tmp_path / "elsewhere"})
    apply(plan, session, keep_in=tmp_path / "kept")
    after = contents(session)
    assert {name: after[name] for name in ("scene_types", "workflows", "roles")} == {
        name: before[name] for name in ("scene_types", "workflows", "roles")
    }
    assert {(note.item.rpartition("/")[2], note.problem) for note in plan.notes} == {
        ("mail", "pin was redacted and gets the column's default"),
        ("mail", "settings was redacted and gets the text ***REDACTED***"),
        ("mail", "url was redacted and gets the text ***REDACTED***"),
        ("slack", "settings was redacted and gets the text ***REDACTED***"),
    }
    assert session.execute("INSERT INTO scene_types (name) VALUES ('x') RETURNING id").fetchone() == (4,)
    assert (tmp_path / "elsewhere" / "on_approve" / "notify.sh").exists()


def test_a_row_whose_redacted_value_is_required_is_left_out(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    session.execute("DELETE FROM notification_preferences; ALTER TABLE notification_preferences ALTER pin SET NOT NULL")
    plan = plan_apply(archive, session, settings)
    # The row without a pin is inserted as it is, and that the database refuses.
    assert plan.notes[0].problem == "is not inserted: pin was redacted and must have a value"
    assert plan.notes[0].item.endswith("/mail")
    with pytest.raises(ApplyFailed, match="null value in column"):
        apply(plan, session, keep_in=tmp_path / "kept")


CHANGES: dict[str, Callable[[Connection[Any], Path], object]] = {
    "a row of the plan": lambda session, _: session.execute(
        "UPDATE roles SET permissions = '{x}' WHERE name = 'admin'"
    ),
    "another row": lambda session, _: session.execute("UPDATE scene_types SET mood = 'wild' WHERE id = 3"),
    "a new row to prune": lambda session, _: session.execute("INSERT INTO roles VALUES ('late')"),
    "a file": lambda _, hooks: (hooks / "on_approve" / "notify.sh").write_bytes(b"late"),
    "a mode": lambda _, hooks: (hooks / "on_approve" / "notify.sh").chmod(0o700),
    "a new file to prune": lambda _, hooks: (hooks / "late.sh").write_bytes(b"late"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_platform_that_changed_since_the_plan_is_not_touched(
    session: Connection[Any],
    settings: ConfigurationSettings,
    archive: Archive,
    hooks: Path,
    tmp_path: Path,
    change: str,
) -> None:
    change_platform(session, hooks)
    plan = plan_apply(archive, session, settings, prune=True)
    CHANGES[change](session, hooks)
    before = contents(session)
    with pytest.raises(LiveChanged):
        apply(plan, session, keep_in=tmp_path / "kept")
    assert contents(session) == before
    assert not (tmp_path / "kept").exists()


FAILURES: dict[str, str] = {
    "a unique name": "UPDATE scene_types SET name = 'x' WHERE id = 1; INSERT INTO scene_types (name) VALUES ('intro')",
    "a trigger that swallows": "UPDATE roles SET permissions = '{}' WHERE name = 'viewer';"
    " CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
    " CREATE TRIGGER swallow BEFORE UPDATE ON roles FOR EACH ROW EXECUTE FUNCTION swallow()",
    "a check at the commit": "UPDATE roles SET permissions = '{}' WHERE name = 'viewer';"
    " CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''not today''; END';"
    " CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON roles DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION refuse()",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_rows_and_files_as_they_were(
    session: Connection[Any],
    settings: ConfigurationSettings,
    archive: Archive,
    hooks: Path,
    tmp_path: Path,
    failure: str,
) -> None:
    (hooks / "on_approve" / "notify.sh").write_bytes(b"broken")
    session.execute("UPDATE workflows SET price = 3")
    session.execute(FAILURES[failure])
    before = contents(session)
    plan = plan_apply(archive, session, settings)
    assert not plan.is_empty
    with pytest.raises(ApplyFailed) as caught:
        apply(plan, session, keep_in=tmp_path / "kept")
    assert "Nothing was changed" in str(caught.value)
    assert contents(session) == before
    assert (hooks / "on_approve" / "notify.sh").read_bytes() == b"broken"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_leaves_the_rows_too(
    session: Connection[Any], settings: ConfigurationSettings, hooks: Path, tmp_path: Path
) -> None:
    # Closed when it was exported already: otherwise its owner would first be given back the mode in the archive.
    (hooks / "on_approve").chmod(0o500)
    archive = export(session, settings)
    (hooks / "on_approve" / "notify.sh").write_bytes(b"broken")
    session.execute("UPDATE workflows SET price = 3")
    before = contents(session)
    with pytest.raises(OSError, match="Permission denied"):
        apply(plan_apply(archive, session, settings), session, keep_in=tmp_path / "kept")
    assert contents(session) == before


def test_a_file_that_cannot_be_kept_leaves_the_rows_too(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, hooks: Path, tmp_path: Path
) -> None:
    (hooks / "on_approve" / "notify.sh").write_bytes(b"broken")
    session.execute("UPDATE workflows SET price = 3")
    (tmp_path / "kept").write_text("a file where a folder should be")
    before = contents(session)
    with pytest.raises((OSError, ConfigurationError)):
        apply(plan_apply(archive, session, settings), session, keep_in=tmp_path / "kept" / "below")
    assert contents(session) == before
    assert (hooks / "on_approve" / "notify.sh").read_bytes() == b"broken"


def test_busy_tables_are_waited_for_and_then_left(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, fresh_database: str, tmp_path: Path
) -> None:
    session.execute("UPDATE roles SET permissions = '{x}'")
    plan = plan_apply(archive, session, settings)
    with connect(fresh_database) as other:
        other.execute("UPDATE public.roles SET permissions = permissions WHERE name = 'admin'")
        with pytest.raises(TablesBusy):
            apply(plan, session, keep_in=tmp_path / "kept", lock_timeout_seconds=0.2)
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert apply(plan, session, keep_in=tmp_path / "kept", lock_timeout_seconds=20).updated_count == 3
        timer.join()


def test_only_some_sections(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, hooks: Path, tmp_path: Path
) -> None:
    change_platform(session, hooks)
    plan = plan_apply(archive, session, settings, only=["roles"])
    assert list(items(plan)) == ["roles"]
    assert plan.files == ()
    with pytest.raises(ConfigurationError, match="no section nowhere"):
        plan_apply(archive, session, settings, only=["nowhere"])
    apply(plan, session, keep_in=tmp_path / "kept")
    assert session.execute("SELECT count(*) FROM workflows").fetchone() == (1,)


def test_a_trigger_of_the_platform_finds_its_tables(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    session.execute(
        "CREATE TABLE changes (name text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO changes VALUES (NEW.name); RETURN NEW; END';"
        " CREATE TRIGGER note AFTER UPDATE ON roles FOR EACH ROW EXECUTE FUNCTION note()"
    )
    session.execute("UPDATE roles SET permissions = '{x}' WHERE name = 'viewer'; TRUNCATE changes")
    apply(plan_apply(archive, session, settings), session, keep_in=tmp_path / "kept")
    assert session.execute("SELECT name FROM changes").fetchall() == [("viewer",)]


def test_the_server_and_the_roles_are_left_to_an_administrator(session: Connection[Any], hooks: Path) -> None:
    make_platform(session, hooks)
    role = sql.Identifier(f"keeper_{session.info.dbname}")
    session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    archive = export(
        session, platform_settings(hooks), extra={"backup_schedules": [{"id": 1}], "retention_policies": []}
    )
    session.execute(sql.SQL("DROP ROLE {}").format(role))
    plan = plan_apply(archive, session, platform_settings(hooks).model_copy(update={"sections": {}}))
    assert plan.is_empty
    by_title = {step.title.partition(":")[0]: step.lines for step in plan.by_hand}
    assert by_title["postgres_roles"][0].startswith(f"CREATE ROLE {role.as_string(None)} WITH NOSUPERUSER")
    assert {"backup_schedules", "roles", "workflows", "hook_scripts"} <= set(by_title)
    assert "retention_policies" not in by_title
    assert "backup_schedules: 1 item of Lifeboat's own, not written back" in [step.title for step in plan.by_hand]
    with pytest.raises(errors.UndefinedObject):
        session.execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_table_that_changed_its_type_still_takes_the_values(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    session.execute(
        "UPDATE workflows SET price = 3; ALTER TABLE workflows ALTER price TYPE text, ALTER icon TYPE text USING ''"
    )
    apply(plan_apply(archive, session, settings), session, keep_in=tmp_path / "kept")
    assert session.execute("SELECT price, icon FROM workflows WHERE id = 1").fetchone() == ("1.50", r"\x00ff")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE workflows DROP price", "has the column price, which public.workflows has not"),
        ("DROP TABLE workflows", "no table workflows to write"),
    ],
    ids=["a column", "a table"],
)
def test_what_no_longer_fits_is_said_before_anything_changes(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, change: str, why: str
) -> None:
    session.execute(change)
    with pytest.raises(ConfigurationError, match=why):
        plan_apply(archive, session, settings)
