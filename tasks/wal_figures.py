"""The server's side of archiving in figures, for pages and for terminals: no Prefect is needed to read them."""

from typing import TYPE_CHECKING

from tasks.figures import size_text, time_text

if TYPE_CHECKING:
    from lifeboat.wal.health import ServerWal

SLOT_COLUMNS = ("slot", "kind", "active", "WAL", "kept", "until it is lost")


def server_facts(server: "ServerWal | None") -> list[tuple[str, str]]:
    """The figures of the server's side."""
    if server is None:
        return []
    archiver, unknown = server.archiver, "?"
    archived = (
        f"{archiver.last_archived_wal} at {time_text(archiver.last_archived_at)}" if archiver.last_archived_at else ""
    )
    failed = f"{archiver.last_failed_wal} at {time_text(archiver.last_failed_at)}" if archiver.last_failed_at else ""
    age = server.heartbeat_age_seconds
    return [
        ("last archived", archived or "nothing yet"),
        ("finished segments that wait", unknown if server.segments_behind is None else str(server.segments_behind)),
        ("WAL not archived yet", _lag_text(server)),
        ("failures of archive_command", f"{archiver.failed_count}{f', last with {failed}' if failed else ''}"),
        ("newest heartbeat", "never" if age is None else f"{age:.1f} s old"),
    ]


def _lag_text(server: "ServerWal") -> str:
    last = server.archiver.last_archived_wal
    if server.lag_bytes is not None:
        return size_text(server.lag_bytes)
    if server.timeline is None or server.current_lsn is None:
        return "not known: the server is in recovery"
    if last is None:
        return "not known: nothing was archived yet"
    return f"not known: no segment of timeline {server.timeline} was archived yet, the last file was {last}"


def slot_rows(server: "ServerWal") -> list[tuple[str, ...]]:
    """The replication slots as a table."""
    return [
        (
            slot.name,
            slot.kind,
            "yes" if slot.active else "NO",
            slot.wal_status or "none",
            size_text(slot.retained_bytes),
            "unlimited" if slot.safe_bytes is None else size_text(max(0, slot.safe_bytes)),
        )
        for slot in server.slots
    ]
