"""The reference studio on real servers: complete, the same when asked again, made anew when it is not."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from lifeboat.assets.integrity import check_assets
from lifeboat.commands import CommandFailed
from lifeboat.demo.accident import DROPPED, EMPTIED, bring_back, cause_accident, content_of, edit_a_character
from lifeboat.demo.changes import change_studio
from lifeboat.demo.damage import damage_assets
from lifeboat.demo.platform_settings import (
    demo_asset_query,
    demo_configuration_sections,
    demo_validation_queries,
)
from lifeboat.demo.studio import StudioConflict, build_studio
from lifeboat.demo.summary import StudioSummary
from lifeboat.errors import PermanentError
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo
from lifeboat.postgres.embedded import EmbeddedServer
from lifeboat.settings.assets import AssetSettings
from lifeboat.settings.configuration import ConfigurationSettings
from lifeboat.settings.drills import DrillSettings
from tests.support.postgres import reachable_dir

SMALL: dict[str, Any] = {"characters": 12, "segments": 60, "assets_bytes": 600_000}


@pytest.fixture
def studio(fresh_database: str, tmp_path: Path) -> StudioSummary:
    return build_studio(fresh_database, tmp_path, **SMALL)


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(text).fetchall()


def run(dsn: str, text: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text)


def listing(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mode, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def asset_settings(root: Path) -> AssetSettings:
    return AssetSettings(roots=[root / "assets"], query=demo_asset_query())


@pytest.fixture
def each_database(each_pg_tools: PgTools) -> Iterator[str]:
    """A database on a server of each version."""
    with reachable_dir() as state_dir:
        server = EmbeddedServer(state_dir, settings={"fsync": False}, bin_dir=each_pg_tools.bin_dir)
        yield server.start().dsn()
        server.stop()


def test_the_studio_is_complete_on_each_version(each_database: str, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []

    summary = build_studio(each_database, tmp_path, **SMALL, on_progress=lambda *step: steps.append(step))

    assert summary.built
    assert (summary.characters, summary.approved_segments, summary.segments) == (12, 60, 66)
    assert summary.asset_bytes >= 600_000
    assert min(asdict(summary)[name] for name in ("workflows", "scene_types", "project_templates", "hook_scripts")) > 3
    assert steps[-2:] == [("files", 78, 78), ("rows", 1, 1)]
    assert check_assets(each_database, asset_settings(tmp_path), tmp_path / "resume.json").sound


def test_the_schema_has_what_backups_get_wrong(fresh_database: str, studio: StudioSummary) -> None:
    kinds = query(
        fresh_database,
        "SELECT DISTINCT relkind::text || relpersistence::text FROM pg_class"
        " WHERE relnamespace = 'studio'::regnamespace",
    )
    stale = query(
        fresh_database,
        "SELECT (SELECT sum(segments) FROM studio.character_statistics), count(*) FROM studio.approved_segments",
    )
    partitions = query(
        fresh_database, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'studio.render_events'::regclass"
    )

    # Tables (and an unlogged one), partitioned, views, materialized views, sequences, indexes (and partitioned ones).
    assert {kind for (kind,) in kinds} >= {"rp", "ru", "pp", "vp", "mp", "Sp", "ip", "Ip"}
    assert stale[0][0] < stale[0][1] == studio.approved_segments
    assert partitions == [(10,)]
    assert query(fresh_database, "SELECT count(*) FROM studio.render_events_other") == [(0,)]
    assert query(fresh_database, "SELECT count(*) > 0 FROM studio.render_cache") == [(True,)]


def test_triggers_and_constraints_work(fresh_database: str, studio: StudioSummary) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        touched = connection.execute(
            "UPDATE studio.workflows SET active = false WHERE slug = 'title-card' RETURNING updated_at = now()"
        ).fetchall()
        for statement in (
            "UPDATE studio.segments SET status = 'approved', reviewed_at = NULL WHERE id = 1",
            "UPDATE studio.assets SET path = '../outside' WHERE id = 1",
            "INSERT INTO studio.assets (kind, path, size_bytes, sha256) VALUES ('draft', 'x', 1, 'short')",
            "DELETE FROM studio.assets WHERE id = 1",
        ):
            with pytest.raises(psycopg.IntegrityError):
                connection.execute(sql.SQL(statement))
        # New rows continue behind those that were copied in.
        connection.execute(
            "INSERT INTO studio.assets (kind, path, size_bytes, sha256) VALUES ('draft', 'x', 1, repeat('a', 64))"
        )

    assert touched == [(True,)]


def test_a_second_call_only_counts(fresh_database: str, studio: StudioSummary, tmp_path: Path) -> None:
    before = listing(tmp_path)
    damage_assets(fresh_database, tmp_path)
    damaged = listing(tmp_path)

    again = build_studio(fresh_database, tmp_path, characters=99, segments=99)

    assert not again.built
    assert {**asdict(again), "built": True, "duration_seconds": 0} == {**asdict(studio), "duration_seconds": 0}
    assert listing(tmp_path) == damaged != before


def test_the_same_seed_gives_the_same_files(fresh_database: str, studio: StudioSummary, tmp_path: Path) -> None:
    before = {name: rest for name, rest in listing(tmp_path).items() if name != "studio.json"}
    query_ids = "SELECT id, path, sha256 FROM studio.assets ORDER BY id"
    rows = query(fresh_database, query_ids)
    (tmp_path / "studio.json").unlink()
    for folder in ("assets", "hooks"):
        (tmp_path / folder).rename(tmp_path / f"old-{folder}")

    again = build_studio(fresh_database, tmp_path, **SMALL)

    assert again.built
    now = {name: rest for name, rest in listing(tmp_path).items() if name.startswith(("assets/", "hooks/"))}
    assert now == before
    assert query(fresh_database, query_ids) == rows


def test_a_studio_whose_build_was_interrupted_is_made_anew(fresh_database: str, tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    def interrupt(step: str, done: int, total: int) -> None:
        if done == total:
            raise Interrupted

    with pytest.raises(Interrupted):
        build_studio(fresh_database, tmp_path, **SMALL, on_progress=interrupt)
    (tmp_path / "assets" / "left-over.mp4").touch()
    assert query(fresh_database, "SELECT count(*) FROM pg_namespace WHERE nspname = 'studio'") == [(0,)]

    assert build_studio(fresh_database, tmp_path, **SMALL).built
    assert not (tmp_path / "assets" / "left-over.mp4").exists()
    assert check_assets(fresh_database, asset_settings(tmp_path), tmp_path / "resume.json").sound


def test_what_belongs_to_somebody_else_is_left_alone(fresh_database: str, tmp_path: Path) -> None:
    precious = tmp_path / "assets" / "precious.mp4"
    precious.parent.mkdir()
    precious.write_bytes(b"irreplaceable")
    with pytest.raises(StudioConflict, match="the demo did not make it"):
        build_studio(fresh_database, tmp_path, **SMALL)
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA studio")

    with pytest.raises(StudioConflict, match="has a schema `studio`"):
        build_studio(fresh_database, tmp_path / "elsewhere", **SMALL)
    assert precious.read_bytes() == b"irreplaceable"


def test_hook_scripts_keep_their_modes_whatever_the_umask(fresh_database: str, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        build_studio(fresh_database, tmp_path, **SMALL)
    finally:
        os.umask(before)

    hooks = tmp_path / "hooks"
    assert stat.S_IMODE((hooks / "segment_approved/10-publish.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((hooks / "lib/common.sh").stat().st_mode) == 0o644


def test_changes_are_real_and_leave_database_and_files_in_step(
    fresh_database: str, studio: StudioSummary, tmp_path: Path
) -> None:
    before = listing(tmp_path / "assets")
    script = (tmp_path / "hooks/segment_approved/10-publish.sh").read_text()

    first, second = change_studio(fresh_database, tmp_path), change_studio(fresh_database, tmp_path)

    assert min(asdict(first).values()) > 0
    assert second.segments_added > 0
    after = listing(tmp_path / "assets")
    assert len(after.keys() - before.keys()) > 0
    assert len(before.keys() - after.keys()) > 0
    paths = query(fresh_database, "SELECT path FROM studio.assets")
    assert {path for (path,) in paths} == after.keys()
    assert check_assets(fresh_database, asset_settings(tmp_path), tmp_path / "resume.json").sound
    edited = tmp_path / "hooks/segment_approved/10-publish.sh"
    assert "# revision 2" in edited.read_text() != script
    assert os.access(edited, os.X_OK)
    recorded = query(
        fresh_database, "SELECT sha256 FROM studio.hook_scripts WHERE path = 'segment_approved/10-publish.sh'"
    )
    assert recorded == [(hashlib.sha256(edited.read_bytes()).hexdigest(),)]
    assert query(fresh_database, "SELECT version FROM studio.workflows WHERE slug = 'character-shot'") == [(3,)]


def test_damage_is_found_by_the_asset_check_and_by_nothing_cheaper(
    fresh_database: str, studio: StudioSummary, tmp_path: Path
) -> None:
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "assets").rglob("*.mp4")}

    damage = damage_assets(fresh_database, tmp_path)
    more = damage_assets(fresh_database, tmp_path)

    corrupted = tmp_path / "assets" / damage.corrupted.path
    assert corrupted.stat().st_mtime_ns == times[corrupted]
    report = check_assets(fresh_database, asset_settings(tmp_path), tmp_path / "resume.json")
    found = {(str(finding.kind), finding.asset_id, finding.path) for finding in report.findings}
    assert found == {
        (kind, asset.asset_id, asset.path)
        for each in (damage, more)
        for kind, asset in (("corrupt", each.corrupted), ("missing", each.removed))
    }
    assert not any(finding.expected_size_bytes == 0 for finding in report.findings)


def test_damage_needs_something_sound(fresh_database: str, studio: StudioSummary, tmp_path: Path) -> None:
    for path in (tmp_path / "assets" / "videos").rglob("*.mp4"):
        path.unlink()

    with pytest.raises(PermanentError, match="no two sound final videos"):
        damage_assets(fresh_database, tmp_path)


def test_the_accident_takes_what_it_says_and_all_of_it_comes_back(
    fresh_database: str, embedded_cluster: Cluster, studio: StudioSummary, tmp_path: Path
) -> None:
    edited_at = edit_a_character(fresh_database)
    before = content_of(fresh_database)
    assert before[EMPTIED].rows == studio.segments
    name = ConnectionInfo.parse(fresh_database).database
    run(embedded_cluster.dsn(), f'CREATE DATABASE "{name}_then" TEMPLATE "{name}"')
    then, live = (ConnectionInfo.parse(fresh_database).with_database(f"{name}{end}") for end in ("_then", ""))
    try:
        accident = cause_accident(fresh_database, tmp_path)
        assert edited_at < accident.began_at < accident.ended_at
        assert query(fresh_database, "SELECT count(*) FROM studio.render_events") == [(0,)]
        assert query(fresh_database, f"SELECT to_regclass('{DROPPED}')") == [(None,)]
        dump = tmp_path / "studio.sql"
        bring_back(embedded_cluster.tools, then, live, dump, tmp_path)
    finally:
        run(embedded_cluster.dsn(), f'DROP DATABASE "{name}_then"')
    assert not dump.exists()
    assert content_of(fresh_database) == before
    again = build_studio(fresh_database, tmp_path, **SMALL)
    assert not again.built
    assert (again.characters, again.approved_segments) == (studio.characters, studio.approved_segments)
    for each in demo_validation_queries():
        assert query(fresh_database, each["sql"]), each["name"]
    assert query(fresh_database, "SELECT count(*) FROM studio.approved_segments") == [(studio.approved_segments,)]


def test_what_cannot_be_brought_back_leaves_the_live_database_alone(
    fresh_database: str, embedded_cluster: Cluster, studio: StudioSummary, tmp_path: Path
) -> None:
    empty, live = ConnectionInfo.parse(embedded_cluster.dsn()), ConnectionInfo.parse(fresh_database)
    cause_accident(fresh_database, tmp_path)
    with pytest.raises(CommandFailed, match="no matching schemas"):
        bring_back(embedded_cluster.tools, empty, live, tmp_path / "studio.sql", tmp_path)
    assert not (tmp_path / "studio.sql").exists()
    assert query(fresh_database, "SELECT count(*) FROM studio.users") == [(studio.users,)]
    # Until it is brought back the studio counts as broken, and is made anew.
    assert build_studio(fresh_database, tmp_path, **SMALL).built


def test_the_settings_are_valid_and_true(fresh_database: str, studio: StudioSummary, tmp_path: Path) -> None:
    sections = ConfigurationSettings.model_validate({"sections": demo_configuration_sections(tmp_path)}).sections
    drills = DrillSettings.model_validate({"validation": demo_validation_queries()})

    kinds = {section.kind for section in sections.values()}
    assert kinds == {
        "workflows", "scene types", "hook scripts", "project templates", "notification preferences",
        "roles and permissions",
    }  # fmt: skip
    for section in sections.values():
        if hasattr(section, "sql"):
            assert query(fresh_database, section.sql)
        else:
            assert section.path == studio.hooks_root
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        for each in drills.validation:
            rows = connection.execute(sql.SQL(each.sql)).fetchall()
            if each.expect == "nonempty":
                assert rows, each.name
            elif hasattr(each.expect, "equals"):
                assert rows[0][0] == each.expect.equals, each.name
            else:
                assert rows[0][0] >= each.expect.minimum, each.name


def test_validation_queries_fail_when_the_studio_is_damaged(fresh_database: str, studio: StudioSummary) -> None:
    with psycopg.connect(fresh_database, autocommit=True) as connection:
        connection.execute("DELETE FROM studio.role_permissions WHERE permission_name <> 'segments.view'")
        connection.execute("UPDATE studio.workflows SET definition = '{}'")
        connection.execute("UPDATE studio.assets SET kind = 'draft' WHERE kind = 'final_video'")
        answers = {
            each["name"]: connection.execute(sql.SQL(each["sql"])).fetchall() for each in demo_validation_queries()
        }

    assert answers["every approved segment has its final video"] == [(60,)]
    assert answers["every role but guest may do something beside watching"] == [(5,)]
    assert answers["every workflow renders and encodes"] == [(6,)]
    assert answers["somebody can restore the platform"] == []
