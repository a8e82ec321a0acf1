"""Applying an archive on each PostgreSQL version: exported, changed, applied with pruning, it is the same again."""

from pathlib import Path

from lifeboat.configuration.apply import apply
from lifeboat.configuration.diff import diff
from lifeboat.configuration.planning import plan_apply
from lifeboat.postgres.connections import connect
from tests.support.configuration import change_platform, export, make_platform


def test_the_whole_loop_on_each_version(each_database: str, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    with connect(each_database, autocommit=True) as session:
        session.execute("SET search_path = public")
        settings = make_platform(session, hooks)
        archive = export(session, settings)
        change_platform(session, hooks)
        apply(plan_apply(archive, session, settings, prune=True), session, keep_in=tmp_path / "kept")
        assert diff(archive, export(session, settings)).is_empty
