"""The studio's hook scripts: files that the platform runs when something happens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HookScript:
    """A file below the hooks folder. `event` None means that other scripts use it."""

    path: str
    mode: int
    event: str | None
    text: str


HOOK_SCRIPTS = (
    HookScript(
        "segment_approved/10-publish.sh",
        0o755,
        "segment.approved",
        """#!/bin/sh
# Copies an approved video to the delivery share.
set -eu
. "$(dirname "$0")/../lib/common.sh"
require SEGMENT_PATH PROJECT
install -D -m 0644 "$ASSETS/$SEGMENT_PATH" "$DELIVERY/$PROJECT/$(basename "$SEGMENT_PATH")"
log "published $SEGMENT_PATH"
""",
    ),
    HookScript(
        "segment_approved/20-subtitles.py",
        0o755,
        "segment.approved",
        '''#!/usr/bin/env python3
"""Writes an empty subtitle file beside a video that has dialogue."""

import os
from pathlib import Path

video = Path(os.environ["ASSETS"], os.environ["SEGMENT_PATH"])
if os.environ.get("SCENE_TYPE") in {"dialogue", "monologue"}:
    video.with_suffix(".srt").touch()
''',
    ),
    HookScript(
        "segment_rejected/10-requeue.sh",
        0o755,
        "segment.rejected",
        """#!/bin/sh
# Puts a rejected segment back into the render queue, once.
set -eu
. "$(dirname "$0")/../lib/common.sh"
require SEGMENT_ID ATTEMPT
[ "$ATTEMPT" -lt 2 ] || { log "segment $SEGMENT_ID was rejected twice: left alone"; exit 0; }
spool render "$SEGMENT_ID"
""",
    ),
    HookScript(
        "render_failed/10-collect-logs.py",
        0o755,
        "render.failed",
        '''#!/usr/bin/env python3
"""Keeps the last lines of a failed render's log."""

import os
import sys
from pathlib import Path

LINES = 200
source = Path(os.environ["RENDER_LOG"])
target = Path(os.environ["FAILURES"], f"{os.environ['JOB_NUMBER']}.log")
target.write_text("".join(source.open(errors="replace").readlines()[-LINES:]))
sys.stdout.write(f"kept {target}\\n")
''',
    ),
    HookScript(
        "lib/common.sh",
        0o644,
        None,
        """# Shared by the shell hooks; sourced, never run.
log() { printf '%s %s\\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >> "${HOOK_LOG:-/dev/stderr}"; }
require() { for name in "$@"; do eval "[ -n \\"\\${$name:-}\\" ]" || { log "$name is not set"; exit 64; }; done; }
spool() { printf '%s\\n' "$2" >> "$SPOOL/$1"; }
""",
    ),
    HookScript(
        "lib/formats.json",
        0o644,
        None,
        '{"delivery": {"container": "mp4", "codec": "h264", "frame_rate": 24}, "preview": {"container": "webm"}}\n',
    ),
)
