"""Deliver one WAL file, and tell absence from trouble: only a sure "not there" may let recovery promote."""

from __future__ import annotations  # Python 3.9 cannot evaluate `X | None`

import os
import time
from collections.abc import Callable

from lifeboat.wal.archive_program import durable, layout
from lifeboat.wal.archive_program.layout import ArchiveError, Config

_LEAF_LENGTH = 16  # of a folder that holds segments; others, as `.lock`, would sort before every timeline


class Absent(Exception):
    """The archive is there, was listed, and does not hold the file."""


def locate(config: Config, name: str, looked_at_next: str) -> str:
    """The path of the stored file; raises Absent, and ArchiveError or OSError for anything unclear.

    Where a server finds a history in the folder `looked_at_next` (its pg_wal), there is no harm in "not there".
    """
    kind = layout.require_kind(config, name)
    layout.require_owner(config.archive, config.system_identifier, config.segment_size_bytes)
    leaf = layout.folder_name(name)
    # Only listings prove absence: what is listed and cannot be opened is an error.
    leaves = os.listdir(config.archive)
    entries = layout.find_entries(os.path.join(config.archive, leaf), name) if leaf in leaves else []
    if not entries and kind == "segment":
        _refuse_gap(config.archive, leaves, name)
    if not entries and kind == "history" and not os.path.exists(os.path.join(looked_at_next, name)):
        _refuse_lost_history(leaves, name)
    if not entries:
        raise Absent
    if len(entries) > 1:
        versions = ", ".join(entries)
        raise ArchiveError(f"different versions are in the archive: {versions}", "Move the wrong ones away.")
    return os.path.join(config.archive, leaf, entries[0])


def _refuse_gap(archive: str, leaves: list[str], name: str) -> None:
    """Where later segments of the timeline are there, absence is damage: recovery would promote too early."""
    after = f"{name}~"  # sorts behind its own .partial and before the next name
    for leaf in leaves:
        if leaf[:8] == name[:8] and leaf >= name[:16]:
            found = (layout.split_entry(entry) for entry in os.listdir(os.path.join(archive, leaf)))
            later = min((parts[0] for parts in found if parts and parts[0] > after), default=None)
            if later is not None:
                raise ArchiveError(
                    f"a gap: it is missing while {later} is there",
                    "Take it from another copy of the archive, or recover to a point before the gap.",
                )


def _refuse_lost_history(leaves: list[str], name: str) -> None:
    """Where its timeline and a lower one are there: recovery would end on the lower one, or take the number again.

    An archive that was begun on a timeline never got its history, nor a lower timeline: there recovery needs none.
    """
    timelines = {leaf[:8] for leaf in leaves if len(leaf) == _LEAF_LENGTH}
    if name[:8] in timelines and min(timelines) < name[:8]:
        raise ArchiveError(
            "it is missing while segments of its timeline and of a lower one are there",
            "Copy it from the server's pg_wal or another copy of the archive, with `lifeboat wal push`, or move that"
            " timeline's segments away.",
        )


def fetch(config: Config, target: str, name: str) -> None:
    """Write the archive file `name` to the path `target`, whole and checked; raises as `locate` does."""
    folder, base = os.path.split(os.path.abspath(target))
    stored = locate(config, name, folder)
    durable.remove_leftovers(folder)
    with durable.temporary_file(folder, base, 0o600) as (temporary, stream):
        for plain in layout.read_entry(stored, config.segment_size_bytes):
            stream.write(plain)
        durable.finish(stream)
        os.rename(temporary, target)
        durable.sync_path(folder)


def fetch_with_retries(config: Config, target: str, name: str, on_retry: Callable[[str], None]) -> None:
    """`fetch`, again up to `config.retries` times after a pause that doubles, for anything but Absent."""
    layout.require_kind(config, name)  # trying again would not mend the name
    for attempt in range(config.retries):
        try:
            return fetch(config, target, name)
        except (ArchiveError, OSError) as error:
            on_retry(f"{error}; trying again")
        time.sleep(config.retry_delay_seconds * 2**attempt)
    return fetch(config, target, name)
