"""A small platform with every kind of configuration, for the tests of the configuration archive."""

from pathlib import Path
from typing import Any

from psycopg import Connection

from lifeboat.configuration.content import Archive, label_of
from lifeboat.configuration.export import export_configuration
from lifeboat.configuration.plan import ApplyPlan
from lifeboat.settings.configuration import ConfigurationSettings

EVERY_TYPE = Path(__file__).with_name("every_type.sql")
SCHEMA = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE TABLE scene_types (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE, mood mood);
CREATE TABLE workflows (
    id serial PRIMARY KEY, scene_type_id bigint NOT NULL REFERENCES scene_types, name text NOT NULL UNIQUE,
    graph jsonb NOT NULL, raw json, price numeric(10, 2), at timestamptz, tags text[], icon bytea,
    label text GENERATED ALWAYS AS (upper(name)) STORED
);
CREATE TABLE notification_preferences (
    user_id uuid, channel text, settings jsonb, url text, pin integer, PRIMARY KEY (user_id, channel)
);
CREATE TABLE roles (name text PRIMARY KEY, parent text REFERENCES roles, permissions text[] NOT NULL DEFAULT '{}');
CREATE TABLE segments (id serial PRIMARY KEY, scene_type_id bigint REFERENCES scene_types ON DELETE CASCADE);

INSERT INTO scene_types (name, mood) VALUES ('intro', 'calm'), ('chase', 'wild'), ('unused', NULL);
INSERT INTO workflows (scene_type_id, name, graph, raw, price, at, tags, icon) VALUES
    (1, 'portrait', '{"nodes": [{"id": "a", "seed": 1.10}], "max_tokens": 4096}', '{"b":1,  "b":2}', 1.50,
     '2026-11-22 19:00:00.123456+02', '{x,NULL,"y z"}', '\\x00ff'),
    (2, 'nothing', 'null', NULL, 'NaN', 'infinity', '{}', NULL);
INSERT INTO notification_preferences VALUES
    ('00000000-0000-0000-0000-000000000001', 'mail',
     '{"smtp": {"host": "mx", "password": "Pl4nted-S3cret-1"}, "max_tokens": 7}',
     'smtp://me:Pl4nted-S3cret-2@mx.example', 7),
    ('00000000-0000-0000-0000-000000000001', 'slack', '{"token": "Pl4nted-S3cret-3"}', NULL, NULL);
INSERT INTO roles VALUES ('admin', NULL, '{all}'), ('editor', 'admin', '{read,write}'), ('viewer', 'editor', '{read}');
"""
SECRETS = tuple(f"Pl4nted-S3cret-{number}" for number in range(1, 10))
TABLES = {
    "scene_types": ["id"],
    "workflows": ["id"],
    "notification_preferences": ["user_id", "channel"],
    "roles": ["name"],
}


def make_platform(session: Connection[Any], hooks: Path) -> ConfigurationSettings:
    """Create tables and hook scripts; returns the settings that export them all."""
    session.execute(SCHEMA)
    hooks.mkdir()
    (hooks / "on_approve").mkdir(mode=0o750)
    (hooks / "on_approve" / "notify.sh").write_bytes(b"#!/bin/sh\necho approved\n")
    (hooks / "on_approve" / "notify.sh").chmod(0o755)
    (hooks / "on_approve" / "latest").symlink_to("notify.sh")
    return platform_settings(hooks)


def platform_settings(hooks: Path, **more: object) -> ConfigurationSettings:
    """Settings for `make_platform`'s platform."""
    sections: dict[str, object] = {
        name: {"sql": f"SELECT * FROM {name}", "key_columns": keys, "table": name} for name, keys in TABLES.items()
    }
    sections["hook_scripts"] = {"path": str(hooks), "kind": "hook scripts"}
    return ConfigurationSettings.model_validate({"sections": sections, "redact": ["^pin$"], **more})


def export(session: Connection[Any], settings: ConfigurationSettings, **more: object) -> Archive:
    """Export with a fixed version."""
    return export_configuration(session, settings, lifeboat_version="0.1.0", **more)  # type: ignore[arg-type]


def table_text(session: Connection[Any], table: str) -> list[str]:
    """A table's rows as PostgreSQL writes them, in order: equal only when every value is."""
    return [str(row[0]) for row in session.execute(f"SELECT t::text FROM {table} t ORDER BY t::text")]


def change_platform(session: Connection[Any], hooks: Path) -> None:
    session.execute(
        "UPDATE workflows SET graph = jsonb_set(graph, '{nodes,0,seed}', '7'), price = 9 WHERE name = 'portrait'"
    )
    session.execute("DELETE FROM workflows WHERE name = 'nothing'")
    session.execute(
        "UPDATE scene_types SET mood = NULL WHERE name = 'intro'; INSERT INTO scene_types (name) VALUES ('new')"
    )
    session.execute("DELETE FROM roles WHERE name <> 'admin'; INSERT INTO roles VALUES ('guest')")
    session.execute("UPDATE notification_preferences SET settings = jsonb_set(settings, '{max_tokens}', '9'), pin = 5")
    (hooks / "on_approve" / "notify.sh").write_bytes(b"broken")
    (hooks / "extra.sh").write_text("mine")


def contents(session: Connection[Any]) -> dict[str, list[str]]:
    """All rows of the platform's tables, as PostgreSQL writes them."""
    return {table: table_text(session, table) for table in (*TABLES, "segments")}


def items(plan: ApplyPlan) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """What a plan inserts, updates and removes, by section."""
    return {
        rows.section: (
            [change.item for change in rows.inserts],
            [change.item for change in rows.updates],
            [label_of(key) for key in rows.removals],
        )
        for rows in plan.rows
        if not rows.is_empty
    }
