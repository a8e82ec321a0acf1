"""What is in a studio, counted in its database."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.demo.files import assets_root, hooks_root

_COUNTED = (
    "projects", "characters", "segments", "assets", "workflows", "scene_types", "project_templates", "hook_scripts",
    "roles", "permissions", "users", "notification_preferences", "render_events",
)  # fmt: skip


@dataclass(frozen=True)
class StudioSummary:
    """A studio's size. `critical_assets` are source images and final videos; `built` says that this call made it."""

    assets_root: Path
    hooks_root: Path
    projects: int
    characters: int
    segments: int
    approved_segments: int
    assets: int
    critical_assets: int
    asset_bytes: int
    workflows: int
    scene_types: int
    project_templates: int
    hook_scripts: int
    roles: int
    permissions: int
    users: int
    notification_preferences: int
    render_events: int
    built: bool
    duration_seconds: float


def read_summary(
    connection: psycopg.Connection[Any], root: Path, *, built: bool, duration_seconds: float
) -> StudioSummary:
    """Count what is there."""
    counts = {name: _count(connection, name) for name in _COUNTED}
    ((approved, critical, asset_bytes),) = connection.execute(
        "SELECT (SELECT count(*) FROM studio.segments WHERE status = 'approved'),"
        " count(*) FILTER (WHERE kind <> 'draft'), coalesce(sum(size_bytes), 0)::bigint FROM studio.assets"
    ).fetchall()
    return StudioSummary(
        assets_root=assets_root(root),
        hooks_root=hooks_root(root),
        approved_segments=approved,
        critical_assets=critical,
        asset_bytes=asset_bytes,
        built=built,
        duration_seconds=duration_seconds,
        **counts,
    )


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM studio.{}").format(sql.Identifier(table))
    ((count,),) = connection.execute(query).fetchall()
    return int(count)
