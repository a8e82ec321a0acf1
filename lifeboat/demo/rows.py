"""Puts a planned studio into its tables."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

from lifeboat.demo import words
from lifeboat.demo.content import StudioPlan, template_definition, workflow_definition
from lifeboat.demo.scripts import HOOK_SCRIPTS

_WORKFLOWS = ("Character shot", "Dialogue pair", "Crowd scene", "Product insert", "Title card", "Archive restyle")
_TEMPLATES = ("Short film", "Series episode", "Explainer", "Advert", "Children's story")
_IDENTITIES = ("projects", "users", "assets", "characters", "segments")
_PARTITION_MONTHS = range(-6, 3)

Connection = psycopg.Connection[Any]


def create_schema(connection: Connection, now: datetime) -> None:
    """Create the schema `studio`, with a partition of render_events for each month around `now`."""
    connection.execute(resources.files("lifeboat.demo").joinpath("studio.sql").read_text("utf-8"))
    for offset in _PARTITION_MONTHS:
        first, following = _month(now, offset), _month(now, offset + 1)
        connection.execute(
            sql.SQL("CREATE TABLE studio.{} PARTITION OF studio.render_events FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(f"render_events_{first:%Y_%m}"), first.isoformat(), following.isoformat()
            )
        )


def fill(
    connection: Connection, plan: StudioPlan, asset_checksums: Mapping[int, str], script_checksums: Mapping[str, str]
) -> None:
    """Insert everything; the materialized view is filled before the newest segments are, and so is stale."""
    _fill_configuration(connection, script_checksums)
    templates = [_slug(name) for name in _TEMPLATES]
    workflows = [_slug(name) for name in _WORKFLOWS]
    newest = max(segment.created_at for segment in plan.segments)
    _copy(
        connection,
        "projects (id, slug, title, client, template_slug, workflow_slug, budget, due_on)",
        (
            (number, *project, templates[number % len(templates)], workflows[number % len(workflows)],
             25_000 * number, (newest + timedelta(days=20 * number)).date())
            for number, project in enumerate(words.PROJECTS, 1)
        ),
    )  # fmt: skip
    _copy(
        connection,
        "assets (id, kind, path, size_bytes, sha256, created_at)",
        ((a.id, a.kind, a.path, a.size_bytes, asset_checksums[a.id], a.created_at) for a in plan.assets),
    )
    _copy(
        connection,
        "characters (id, project_id, name, part, backstory, voice, traits, portrait_asset_id, created_at, updated_at)",
        (
            (
                c.id,
                c.project_id,
                c.name,
                c.part,
                c.backstory,
                c.voice,
                Jsonb(c.traits),
                c.asset_id,
                c.created_at,
                c.created_at,
            )
            for c in plan.characters
        ),
    )
    older, newer = plan.segments[: -len(plan.segments) // 20], plan.segments[-len(plan.segments) // 20 :]
    _fill_segments(connection, older)
    connection.execute("REFRESH MATERIALIZED VIEW studio.character_statistics")
    _fill_segments(connection, newer)
    _fill_traces(connection)
    for table in _IDENTITIES:
        connection.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence({}, 'id'), (SELECT max(id) FROM studio.{}))").format(
                f"studio.{table}", sql.Identifier(table)
            )
        )


def _fill_configuration(connection: Connection, script_checksums: Mapping[str, str]) -> None:
    rows: list[tuple[str, Iterable[Sequence[Any]]]] = [
        ("roles (name, title, description)", words.ROLES),
        ("permissions (name, description)", ((name, text) for name, text, _ in words.PERMISSIONS)),
        (
            "role_permissions (role_name, permission_name)",
            ((role[0], name) for name, _, count in words.PERMISSIONS for role in words.ROLES[:count]),
        ),
        (
            "users (id, email, full_name, role_name)",
            ((number, _email(name), name, role) for number, (name, role) in enumerate(words.PEOPLE, 1)),
        ),
        ("notification_preferences (user_email, event, channel, enabled, quiet_hours)", _preferences()),
        ("scene_types (slug, name, description, camera, default_duration_seconds)", words.SCENE_TYPES),
        (
            "workflows (slug, name, definition)",
            ((_slug(name), name, Jsonb(workflow_definition(name, number))) for number, name in enumerate(_WORKFLOWS)),
        ),
        (
            "project_templates (slug, name, definition)",
            ((_slug(n), n, Jsonb(template_definition(n, [s[0] for s in words.SCENE_TYPES]))) for n in _TEMPLATES),
        ),
        (
            "hook_scripts (event, path, sha256)",
            ((s.event, s.path, script_checksums[s.path]) for s in HOOK_SCRIPTS if s.event is not None),
        ),
    ]
    for target, values in rows:
        _copy(connection, target, values)


def _preferences() -> Iterable[Sequence[Any]]:
    for number, (name, role) in enumerate(words.PEOPLE):
        for event in words.EVENTS:
            if event == "backup.failed" and role != "administrator":
                continue
            quiet = Range(0, 7, "[)") if number % 3 else None
            yield _email(name), event, ("email", "slack", "push")[number % 3], number % 5 != 4, quiet


def _fill_segments(connection: Connection, segments: Sequence[Any]) -> None:
    _copy(
        connection,
        "segments (id, project_id, character_id, scene_type_slug, title, prompt, status, duration_seconds, asset_id,"
        " reviewed_by, reviewed_at, created_at, updated_at)",
        (
            (s.id, s.project_id, s.character_id, s.scene_type, s.title, s.prompt, s.status, s.duration_seconds,
             s.asset_id, s.reviewed_by, s.reviewed_at, s.created_at, s.reviewed_at or s.created_at)
            for s in segments
        ),
    )  # fmt: skip


def _fill_traces(connection: Connection) -> None:
    """What using the platform leaves behind: render events, the activity log, cached renders."""
    connection.execute(
        "INSERT INTO studio.render_events (happened_at, segment_id, node, stage, seconds)"
        " SELECT s.created_at + step.place * interval '4 minutes', s.id, (%s::text[])[1 + s.id %% 5],"
        "        step.stage, round((s.duration_seconds * step.place * (7 + s.id %% 9))::numeric, 2)"
        " FROM studio.segments s"
        " CROSS JOIN (VALUES (0, 'queued'), (1, 'rendered'), (2, 'upscaled')) step (place, stage)"
        " ORDER BY s.created_at, step.place",
        (list(words.NODES),),
    )
    connection.execute(
        "INSERT INTO studio.activity_log (happened_at, user_email, action, subject)"
        " SELECT s.reviewed_at, u.email, 'segment.' || s.status, 'segment ' || s.id"
        " FROM studio.segments s JOIN studio.users u ON u.id = s.reviewed_by ORDER BY s.reviewed_at"
    )
    connection.execute(
        "INSERT INTO studio.render_cache (cache_key, payload, expires_at)"
        " SELECT md5(s.prompt || s.id), sha256(convert_to(s.prompt, 'UTF8')), now() + interval '1 day'"
        " FROM studio.segments s WHERE s.status <> 'approved'"
    )


def _copy(connection: Connection, target: str, rows: Iterable[Sequence[Any]]) -> None:
    # The targets are the literals above.
    with connection.cursor() as cursor, cursor.copy(f"COPY studio.{target} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _month(now: datetime, offset: int) -> datetime:
    months = now.year * 12 + now.month - 1 + offset
    return now.replace(year=months // 12, month=months % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)


def _slug(name: str) -> str:
    return name.lower().replace("'", "").replace(" ", "-")


def _email(name: str) -> str:
    plain = name.translate(str.maketrans("áó", "ao"))
    return f"{plain.lower().replace(' ', '.')}@studio.example"
