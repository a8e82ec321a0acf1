"""Builds the reference studio: a database schema, asset files and hook scripts that belong together."""

import json
import shutil
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from lifeboat.demo.content import StudioPlan, plan_studio
from lifeboat.demo.files import assets_root, hooks_root, write_asset, write_file, write_script
from lifeboat.demo.rows import create_schema, fill
from lifeboat.demo.scripts import HOOK_SCRIPTS
from lifeboat.demo.summary import StudioSummary, read_summary
from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import ConnectionInfo, connect

_MARKER = "studio.json"
_COMMENT = "Lifeboat's reference studio, build "
_LOCK_KEY = 0x73747564696F  # "studio"
_FILES_A_STEP = 100

OnProgress = Callable[[str, int, int], None]
"""step, done, total"""


class StudioConflict(PermanentError):
    """Something that the demo did not make is where the studio would go."""


def build_studio(  # noqa: PLR0913 - the sizes of one studio
    dsn: str | ConnectionInfo,
    root: Path,
    *,
    characters: int = 200,
    segments: int = 2000,
    assets_bytes: int = 210 * 1024 * 1024,
    seed: int = 7,
    on_progress: OnProgress | None = None,
) -> StudioSummary:
    """Make the studio in `dsn`'s database and below `root`; one that is complete is only counted.

    `segments` counts approved ones: a tenth more are drafts, waiting or rejected. What an interrupted call left
    behind is made anew: the rows are committed last, so a schema that is there is complete. Raises
    StudioConflict when the schema or the folders are somebody else's.
    """
    began = time.monotonic()
    with connect(dsn, application_name="lifeboat demo") as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        build = _build_in_database(connection)
        built = build is None or build != _build_on_disk(root)
        if built:
            if build is not None:
                connection.execute("DROP SCHEMA studio CASCADE")
            plan = plan_studio(
                characters=characters,
                segments=segments,
                assets_bytes=assets_bytes,
                seed=seed,
                now=datetime.now(UTC),
            )
            _build(connection, root, plan, seed, on_progress or (lambda *_: None))
        connection.commit()
        if built:
            connection.execute("ANALYZE")
        return read_summary(connection, root, built=built, duration_seconds=time.monotonic() - began)


def _build(
    connection: psycopg.Connection[Any], root: Path, plan: StudioPlan, seed: int, on_progress: OnProgress
) -> None:
    build = uuid.uuid4().hex
    _clear(root)
    declare_incomplete(root)
    scripts = {script.path: write_script(root, script) for script in HOOK_SCRIPTS}
    checksums: dict[int, str] = {}
    for number, asset in enumerate(plan.assets):
        checksums[asset.id] = write_asset(root, asset.path, asset.size_bytes, seed=f"{seed}:{asset.id}")
        if number % _FILES_A_STEP == 0:
            on_progress("files", number, len(plan.assets))
    on_progress("files", len(plan.assets), len(plan.assets))
    create_schema(connection, datetime.now(UTC))
    fill(connection, plan, checksums, scripts)
    connection.execute(sql.SQL("COMMENT ON SCHEMA studio IS {}").format(_COMMENT + build))
    declare_complete(connection, root)
    on_progress("rows", 1, 1)


def declare_incomplete(root: Path) -> None:
    """Say that rows and files at `root` do not belong together now: the next build_studio makes both anew."""
    write_file(root / _MARKER, json.dumps({"build": None}).encode())


def declare_complete(connection: psycopg.Connection[Any], root: Path) -> None:
    """Say that the files at `root` belong to the studio in the database."""
    write_file(root / _MARKER, json.dumps({"build": _build_in_database(connection)}).encode())


def _build_in_database(connection: psycopg.Connection[Any]) -> str | None:
    row = connection.execute(
        "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'studio'"
    ).fetchone()
    if row is None:
        return None
    comment = row[0] or ""
    if not comment.startswith(_COMMENT):
        raise StudioConflict(
            "the database has a schema `studio` that the demo did not make",
            hint="Give the demo a database of its own.",
        )
    return str(comment.removeprefix(_COMMENT))


def _build_on_disk(root: Path) -> str | None:
    try:
        found = json.loads((root / _MARKER).read_bytes())["build"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) and assets_root(root).is_dir() else None


def _clear(root: Path) -> None:
    """Remove an earlier studio's folders; nothing that is not known to be one."""
    root.mkdir(parents=True, exist_ok=True)
    for folder in (assets_root(root), hooks_root(root)):
        if not folder.exists():
            continue
        if not (root / _MARKER).exists():
            raise StudioConflict(
                f"{folder} is there, but the demo did not make it", hint="Give the demo a folder of its own."
            )
        shutil.rmtree(folder)
