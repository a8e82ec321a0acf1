"""Pruning by an archive: what refers to each other goes in the right order, or stays and is named."""

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from lifeboat.configuration.apply import LiveChanged, apply
from lifeboat.configuration.content import Archive
from lifeboat.configuration.index import ConfigurationError
from lifeboat.configuration.planning import plan_apply
from lifeboat.settings.configuration import ConfigurationSettings
from tests.support.configuration import (
    contents,
    items,
)


def test_rows_that_others_refer_to_are_not_pruned(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    session.execute("INSERT INTO scene_types (name) VALUES ('used'), ('free')")
    session.execute(
        "INSERT INTO segments (scene_type_id) SELECT id FROM scene_types, generate_series(1, 3) WHERE name = 'used'"
    )
    plan = plan_apply(archive, session, settings, prune=True)
    assert items(plan)["scene_types"] == ([], [], ["5"])
    assert [(note.item, note.problem) for note in plan.notes if note.section == "scene_types"] == [
        ("4", "is not removed: 3 rows of public.segments refer to it")
    ]
    apply(plan, session, keep_in=tmp_path / "kept")
    assert session.execute("SELECT count(*) FROM segments").fetchone() == (3,)


def test_a_cascade_never_takes_rows_that_no_plan_has_named(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    session.execute("INSERT INTO scene_types (name) VALUES ('free')")
    plan = plan_apply(archive, session, settings, prune=True)
    assert items(plan)["scene_types"][2] == ["4"]
    session.execute("INSERT INTO segments (scene_type_id) VALUES (4)")
    with pytest.raises((ConfigurationError, LiveChanged)):
        apply(plan, session, keep_in=tmp_path / "kept")
    assert session.execute("SELECT count(*) FROM segments").fetchone() == (1,)
    assert session.execute("SELECT count(*) FROM scene_types").fetchone() == (4,)


def test_a_name_that_moved_to_another_row_comes_back_when_pruning(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    before = contents(session)
    session.execute("DELETE FROM scene_types WHERE id = 3; INSERT INTO scene_types (name) VALUES ('unused')")
    apply(plan_apply(archive, session, settings, prune=True), session, keep_in=tmp_path / "kept")
    assert contents(session) == before


def test_a_parent_goes_after_its_children_have_moved(
    session: Connection[Any], settings: ConfigurationSettings, archive: Archive, tmp_path: Path
) -> None:
    before = contents(session)
    session.execute("INSERT INTO scene_types (name) VALUES ('late')")
    session.execute("UPDATE workflows SET scene_type_id = 4")
    apply(plan_apply(archive, session, settings, prune=True), session, keep_in=tmp_path / "kept")
    assert contents(session) == before
