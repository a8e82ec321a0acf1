"""A day's work in the studio, between a full and an incremental backup."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from lifeboat.demo.content import draw_segment_text, video_path
from lifeboat.demo.files import assets_root, hooks_root, write_asset, write_file
from lifeboat.postgres.connections import connect

_EDITED_SCRIPT = "segment_approved/10-publish.sh"
_EDITED_WORKFLOW = "character-shot"

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class StudioChanges:
    """How many rows and files one call changed."""

    segments_added: int
    segments_approved: int
    segments_rejected: int
    segments_deleted: int
    workflows_edited: int
    hook_scripts_edited: int
    files_written: int
    files_deleted: int
    bytes_written: int


def change_studio(dsn: str, root: Path) -> StudioChanges:
    """Add segments with their videos, review what waits, edit a workflow and a hook script, delete rejects.

    Each call changes something else. Files are written before the rows that name them are committed, and deleted
    after, so that the database never names a file that is not there.
    """
    with connect(dsn, application_name="lifeboat demo") as connection:
        day = _Day(connection, root)
        deleted = day.delete_rejected()
        approved, rejected = day.review()
        added = day.add_segments()
        workflows = connection.execute(
            "UPDATE studio.workflows SET version = version + 1,"
            " definition = jsonb_set(definition, '{nodes,3,settings,steps}', to_jsonb(20 + version))"
            " WHERE slug = %s",
            (_EDITED_WORKFLOW,),
        ).rowcount
        _edit_script(connection, root)
        connection.commit()
    for path in day.obsolete:
        (assets_root(root) / path).unlink(missing_ok=True)
    return StudioChanges(
        segments_added=added,
        segments_approved=approved,
        segments_rejected=rejected,
        segments_deleted=deleted,
        workflows_edited=workflows,
        hook_scripts_edited=1,
        files_written=day.files_written,
        files_deleted=len(day.obsolete),
        bytes_written=day.bytes_written,
    )


class _Day:
    """The changes to segments, which all write or drop files."""

    def __init__(self, connection: Connection, root: Path) -> None:
        self._connection, self._root = connection, root
        ((day, segments, video_bytes),) = connection.execute(
            "SELECT (SELECT coalesce(max(id), 0) FROM studio.activity_log), count(*),"
            " coalesce(avg(a.size_bytes) FILTER (WHERE a.kind = 'final_video'), 4096)::bigint"
            " FROM studio.segments s JOIN studio.assets a ON a.id = s.asset_id"
        ).fetchall()
        self._random = random.Random(day)  # noqa: S311 - content, not secrets
        self._portion: int = max(2, segments // 50)
        self._video_bytes = int(video_bytes)
        self.obsolete: list[str] = []
        self.files_written = self.bytes_written = 0

    def delete_rejected(self) -> int:
        """Delete the oldest rejected segments with their drafts."""
        rows = self._connection.execute(
            "DELETE FROM studio.segments WHERE id IN (SELECT id FROM studio.segments WHERE status = 'rejected'"
            " ORDER BY reviewed_at LIMIT %s) RETURNING id, asset_id",
            (max(1, self._portion // 4),),
        ).fetchall()
        for identity, asset_id in rows:
            self._drop_asset(asset_id)
            self._log("segment.deleted", identity)
        return len(rows)

    def review(self) -> tuple[int, int]:
        """Approve most of the segments that wait, with a final video each, and reject the rest."""
        waiting = self._connection.execute(
            "SELECT id, project_id, asset_id FROM studio.segments WHERE status = 'in_review'"
            " ORDER BY created_at LIMIT %s",
            (self._portion,),
        ).fetchall()
        approved = 0
        for place, (identity, project_id, draft_asset_id) in enumerate(waiting):
            if place % 4 == 1:
                self._decide("rejected", identity, draft_asset_id)
                continue
            video = self._write(video_path(project_id, identity, draft=False), "final_video")
            self._decide("approved", identity, video)
            self._drop_asset(draft_asset_id)
            approved += 1
        return approved, len(waiting) - approved

    def add_segments(self) -> int:
        """Add segments: half of them final and approved at once, half waiting for review."""
        characters = self._connection.execute(
            "SELECT id, project_id, name FROM studio.characters ORDER BY id"
        ).fetchall()
        for number in range(self._portion):
            character_id, project_id, name = self._random.choice(characters)
            ((identity,),) = self._connection.execute(
                "SELECT nextval(pg_get_serial_sequence('studio.segments', 'id'))"
            ).fetchall()
            final = number % 2 == 0
            path = video_path(project_id, identity, draft=not final)
            asset_id = self._write(path, "final_video" if final else "draft")
            title, prompt = draw_segment_text(self._random, name)
            self._connection.execute(
                "INSERT INTO studio.segments (id, project_id, character_id, scene_type_slug, title, prompt, status,"
                " duration_seconds, asset_id) SELECT %s, %s, %s, slug, %s, %s, 'in_review',"
                " default_duration_seconds, %s FROM studio.scene_types ORDER BY md5(slug || %s) LIMIT 1",
                (identity, project_id, character_id, title, prompt, asset_id, str(number)),
            )
            self._connection.execute(
                "INSERT INTO studio.render_events (happened_at, segment_id, node, stage, seconds)"
                " VALUES (now(), %s, 'gpu-c1', 'rendered', 42)",
                (identity,),
            )
            if final:
                self._decide("approved", identity, asset_id)
        return self._portion

    def _decide(self, status: str, segment_id: int, asset_id: int) -> None:
        self._connection.execute(
            "UPDATE studio.segments SET status = %s::studio.segment_status, asset_id = %s, reviewed_at = now(),"
            " reviewed_by = (SELECT id FROM studio.users WHERE role_name = 'director' ORDER BY id LIMIT 1)"
            " WHERE id = %s",
            (status, asset_id, segment_id),
        )
        self._log(f"segment.{status}", segment_id)

    def _write(self, path: str, kind: str) -> int:
        size_bytes = int(self._video_bytes * self._random.uniform(0.5, 1.5))
        sha256 = write_asset(self._root, path, size_bytes, seed=f"{self._random.random()}")
        self.files_written += 1
        self.bytes_written += size_bytes
        ((identity,),) = self._connection.execute(
            "INSERT INTO studio.assets (kind, path, size_bytes, sha256)"
            " VALUES (%s::studio.asset_kind, %s, %s, %s) RETURNING id",
            (kind, path, size_bytes, sha256),
        ).fetchall()
        return int(identity)

    def _drop_asset(self, asset_id: int) -> None:
        row = self._connection.execute("DELETE FROM studio.assets WHERE id = %s RETURNING path", (asset_id,)).fetchone()
        if row is not None:
            self.obsolete.append(row[0])

    def _log(self, action: str, segment_id: int) -> None:
        self._connection.execute(
            "INSERT INTO studio.activity_log (user_email, action, subject)"
            " SELECT email, %s, %s FROM studio.users WHERE role_name = 'director' ORDER BY id LIMIT 1",
            (action, f"segment {segment_id}"),
        )


def _edit_script(connection: Connection, root: Path) -> None:
    path = hooks_root(root) / _EDITED_SCRIPT
    lines = path.read_text("utf-8").splitlines()
    revision = sum(line.startswith("# revision") for line in lines) + 1
    lines.insert(1, f"# revision {revision}: the share keeps one folder per project")
    content = ("\n".join(lines) + "\n").encode()
    write_file(path, content, mode=path.stat().st_mode & 0o777)
    connection.execute(
        "UPDATE studio.hook_scripts SET sha256 = %s WHERE path = %s",
        (hashlib.sha256(content).hexdigest(), _EDITED_SCRIPT),
    )
