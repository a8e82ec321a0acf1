"""What lifeboat.toml says about the studio: its configuration, its assets and the proof of a restore."""

from pathlib import Path
from typing import Any

from lifeboat.demo.files import hooks_root

_TABLES = (
    ("roles", "roles and permissions", ("name",), "name, title, description"),
    ("permissions", "roles and permissions", ("name",), "name, description"),
    ("role_permissions", "roles and permissions", ("role_name", "permission_name"), "role_name, permission_name"),
    (
        "notification_preferences",
        "notification preferences",
        ("user_email", "event", "channel"),
        "user_email, event, channel, enabled, quiet_hours",
    ),
    ("scene_types", "scene types", ("slug",), "slug, name, description, camera, default_duration_seconds"),
    ("workflows", "workflows", ("slug",), "slug, name, version, definition, active"),
    ("project_templates", "project templates", ("slug",), "slug, name, definition"),
    ("hook_scripts", "hook scripts", ("event", "path"), "event, path, sha256, enabled"),
)


def demo_configuration_sections(root: Path) -> dict[str, dict[str, Any]]:
    """`configuration.sections` for a studio below `root`: all six kinds, parents before children."""
    sections: dict[str, dict[str, Any]] = {
        table: {
            "sql": f"SELECT {columns} FROM studio.{table}",  # noqa: S608 - the literals above
            "key_columns": list(keys),
            "table": f"studio.{table}",
            "kind": kind,
        }
        for table, kind, keys, columns in _TABLES
    }
    sections["hook_files"] = {"path": str(hooks_root(root)), "kind": "hook scripts"}
    return sections


def demo_asset_query() -> str:
    """`assets.query`: the files that nobody can make again, source images and approved final videos."""
    return "SELECT id, kind, path, size_bytes, sha256 FROM studio.assets WHERE kind IN ('source_image', 'final_video')"


def demo_validation_queries() -> list[dict[str, Any]]:
    """`drills.validation`: what must hold in any sound copy of the studio, whenever it was taken."""
    return [
        {
            "name": "every approved segment has its final video",
            "sql": "SELECT count(*) FROM studio.segments s JOIN studio.assets a ON a.id = s.asset_id"
            " WHERE s.status = 'approved' AND a.kind <> 'final_video'",
            "expect": {"equals": 0},
        },
        {
            "name": "the characters are there",
            "sql": "SELECT count(*) FROM studio.characters",
            "expect": {"minimum": 1},
        },
        {
            "name": "approved segments are there",
            "sql": "SELECT count(*) FROM studio.approved_segments",
            "expect": {"minimum": 1},
        },
        {
            "name": "every role but guest may do something beside watching",
            "sql": "SELECT count(*) FROM studio.roles r WHERE r.name <> 'guest' AND NOT EXISTS (SELECT FROM"
            " studio.role_permissions p WHERE p.role_name = r.name AND p.permission_name <> 'segments.view')",
            "expect": {"equals": 0},
        },
        {
            "name": "every workflow renders and encodes",
            "sql": 'SELECT count(*) FROM studio.workflows WHERE NOT definition @> \'{"engine": "diffusion-video"}\''
            " OR jsonb_path_exists(definition, '$.nodes.*.type ? (@ == \"render\")') IS NOT TRUE",
            "expect": {"equals": 0},
        },
        {
            "name": "somebody can restore the platform",
            "sql": "SELECT email FROM studio.users u JOIN studio.role_permissions p USING (role_name)"
            " WHERE p.permission_name = 'backups.restore' AND u.active",
            "expect": "nonempty",
        },
    ]
