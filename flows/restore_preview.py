"""Restore preview: what a restore would undo, before anybody asks for one."""

from datetime import UTC, datetime

from flows.definition import lifeboat_flow
from lifeboat.operations.preview.quick import PreviewOrder, RestorePreview
from lifeboat.recovery.targets import parse_target
from tasks.preview_restore import preview_restore


@lifeboat_flow("restore-preview")
def restore_preview(
    at: str = "15m ago", timeline: int | None = None, destination: str | None = None, update_index: bool = True
) -> RestorePreview:
    """Say, as an artifact, what a restore undoes per table, which transactions it loses and what it needs.

    Nothing is restored. A target that cannot be had fails the run; the message names the nearest moment that can.

    Args:
        at: The moment to restore to: `2026-11-22 14:03:22+01:00`, without a zone in UTC, or `15m ago`.
        timeline: A timeline of the archive; without it, the current one.
        destination: A destination of lifeboat.toml; without it, the default one.
        update_index: Bring the activity index up to date first.
    """
    target = parse_target(now=datetime.now(UTC), at=at, timeline=timeline)
    return preview_restore(PreviewOrder(target, destination, update_index))
