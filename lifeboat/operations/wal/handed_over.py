"""WAL that only a replaced server had, and that the restored one's history leads through: into the archive with it.

Without it the archive would have a hole before the new timeline, and no older backup could be restored beyond it.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lifeboat.operations.installation import LOG, Installation
from lifeboat.postgres.folders import create_file, give_to
from lifeboat.recovery.timelines import TimelinePath, path_to
from lifeboat.storage.durable import fsync_directory, fsync_file
from lifeboat.wal.archive_program.layout import ArchiveError, Config
from lifeboat.wal.archive_program.push import push
from lifeboat.wal.coverage import ArchiveListing
from lifeboat.wal.install import WalConfig
from lifeboat.wal.names import ArchiveNameKind, history_name, parse_archive_name, parse_history


def hand_over(
    installation: Installation, listing: ArchiveListing, tail: Path, data_dir: Path, timeline: int
) -> tuple[str, ...]:
    """Archive what of a saved tail was replayed whole on the way to a new timeline; notes for people.

    What the archive does not take now lies in the restored pg_wal afterwards, for the server's archiver. The last
    segment is not among it: the new timeline's first one repeats what of it was replayed. Raises OSError.
    """
    names = _replayed_whole(tail, data_dir, timeline, listing.segment_size_bytes)
    left = _push(installation, listing, tail, names)
    status = data_dir / "pg_wal" / "archive_status"
    for name in left:
        _offer(tail / name, data_dir / "pg_wal" / name, status, installation.run_as)
    if left:
        fsync_directory(data_dir / "pg_wal")
        fsync_directory(status)
    notes = []
    if done := len(names) - len(left):
        notes.append(f"{done} WAL files that only the old server had are in the archive now")
    if left:
        notes.append(
            f"{len(left)} WAL files that only the old server had are in pg_wal, from {left[0]} on: the restored server "
            "archives them when it runs; until `lifeboat wal status` shows no gap there, older backups reach no further"
        )
    return tuple(notes)


def keep_tail(tail: Path, folder: Path, user: str | None) -> str:
    """Keep a saved tail in `folder`, where the data that it belongs to are written over; a note. Raises OSError."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(tail, folder)
    for path in (*folder.iterdir(), folder):
        give_to(path, user)
    fsync_directory(folder)
    fsync_directory(folder.parent)
    return f"the WAL of the old server that was not archived is kept in {folder}"


def _replayed_whole(tail: Path, data_dir: Path, timeline: int, size_bytes: int) -> list[str]:
    name = history_name(timeline)
    switches = parse_history(name, (data_dir / "pg_wal" / name).read_text("utf-8", "replace"))
    path = path_to(timeline, {timeline: switches}, {timeline})
    # Histories first: nothing on a timeline can be used without its own.
    names = sorted((each.name for each in tail.iterdir()), key=lambda each: (not each.endswith(".history"), each))
    return [each for each in names if _is_before(each, path, size_bytes)]


def _is_before(name: str, path: TimelinePath, size_bytes: int) -> bool:
    parsed = parse_archive_name(name, size_bytes)
    if parsed.kind is ArchiveNameKind.HISTORY:
        return True
    stretch = path.stretch(parsed.timeline)
    return (
        parsed.kind is ArchiveNameKind.SEGMENT
        and parsed.segment is not None
        and stretch is not None
        and stretch.end_lsn is not None
        and parsed.segment.end_lsn <= stretch.end_lsn
    )


def _push(installation: Installation, listing: ArchiveListing, tail: Path, names: Sequence[str]) -> list[str]:
    """Push files to Lifeboat's own archive, in order; returns those that it did not take. pgBackRest's takes none."""
    settings = installation.settings
    if settings.pgbackrest_archives:
        return list(names)
    config = WalConfig.of(
        settings.wal,
        installation.destination(settings.wal.destination).path,
        settings.platform.cluster,
        system_identifier=listing.system_identifier,
        segment_size_bytes=listing.segment_size_bytes,
    )
    for number, name in enumerate(names):
        try:
            push(Config(config.model_dump()), str(tail / name), name)
        except (ArchiveError, OSError) as error:
            LOG.warning("%s was not archived: %s", name, error)
            return list(names[number:])
    return []


def _offer(source: Path, target: Path, status: Path, user: str | None) -> None:
    # Replay may have left it there, as done.
    for path in (target, status / f"{target.name}.done", status / f"{target.name}.ready"):
        path.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(source, target)
    if not target.exists():  # another filesystem
        shutil.copyfile(source, target)
        fsync_file(target)
    give_to(target, user)
    create_file(status / f"{target.name}.ready", user)
