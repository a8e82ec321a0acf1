"""`lifeboat backup`: list, show, pin and unpin; run and verify are in modules of their own."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli import backup_run, backup_verify
from console.cli.options import AsJson, Destination
from console.cli.output import notice, say, say_json, say_table
from console.cli.session import installation_of
from tasks.figures import count_text, duration_text, size_text, time_text
from tasks.restore_commands import restore_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifeboat.operations.backup.inventory import ListedBackup
    from lifeboat.storage.repository import StoredBackup

app = typer.Typer(no_args_is_help=True)
app.command("run")(backup_run.run)
app.command("verify")(backup_verify.verify)

BackupName = Annotated[str, typer.Argument(metavar="ID", help="A label, an id, or `latest`.")]


@app.command("list")
def list_(context: typer.Context, destination: Destination = None, as_json: AsJson = False) -> None:
    """List backups, oldest first.

    Finished ones are read from storage, so that this works while the catalog is down.
    Exit code 3 when there is one whose manifest cannot be trusted, 1 when a destination cannot be read: then what the
    catalog knows of it is shown.
    """
    from lifeboat.operations.backup.inventory import list_backups

    inventory = list_backups(installation_of(context), destination)
    if as_json:
        say_json(inventory)
    elif inventory.backups:
        columns = ("backup", "type", "engine", "destination", "started (UTC)", "took", "size", "status", "proof")
        say_table(columns, [_row(backup) for backup in inventory.backups], right=("took", "size"))
    elif not inventory.unread:
        say("There are no backups yet: take one with `lifeboat backup run --type full`.")
    if not as_json:
        for backup in inventory.backups:
            if backup.error:
                notice(f"{backup.label or backup.id}: {backup.error}")
        for note in inventory.notes:
            notice(f"note: {note}")
        for why in inventory.unread.values():
            notice(f"error: {why}; of its backups only what the catalog knows can be listed")
    if inventory.unread:
        raise typer.Exit(1)
    if inventory.damaged:
        raise typer.Exit(3)


@app.command()
def show(context: typer.Context, backup: BackupName, destination: Destination = None, as_json: AsJson = False) -> None:
    """Show one backup, and the commands that restore it.

    Of a run that left none, what the catalog knows.
    """
    from lifeboat.operations.backup.selection import NoSuchBackup, find_backup

    repository = installation_of(context).repository(destination)
    try:
        stored = find_backup(repository, backup)
    except NoSuchBackup:
        if not _show_run(context, backup, as_json=as_json):
            raise
        return
    location = f"{repository.destination.describe()}/{repository.key(stored.manifest.label)}"
    events = repository.events(stored.manifest.label)
    if as_json:
        state = {"verified": stored.state.verified, **vars(stored.state)}
        parts = {
            "manifest": stored.manifest,
            "state": state,
            "events": events,
            "manifest_sha256": stored.manifest_sha256,
            "restore_commands": restore_lines(stored.manifest, location),
        }
        say_json(parts)
        return
    _show(stored, location)
    for event in events:
        detail = ", ".join(f"{key} {value}" for key, value in event.detail.items() if isinstance(value, str))
        say(f"  {time_text(event.at)}  {event.kind}{f' ({detail})' if detail else ''}")
    say("\nTo restore it with stock tools:")
    for line in restore_lines(stored.manifest, location):
        say(f"  {line}".rstrip())


@app.command()
def pin(context: typer.Context, backup: BackupName, destination: Destination = None, as_json: AsJson = False) -> None:
    """Keep a backup whatever retention's rules say."""
    _set_pinned(context, backup, destination, pinned=True, as_json=as_json)


@app.command()
def unpin(context: typer.Context, backup: BackupName, destination: Destination = None, as_json: AsJson = False) -> None:
    """Let retention's rules decide over a backup again."""
    _set_pinned(context, backup, destination, pinned=False, as_json=as_json)


def _set_pinned(context: typer.Context, backup: str, destination: str | None, *, pinned: bool, as_json: bool) -> None:
    from lifeboat.operations.backup.pins import set_pinned

    manifest, changed = set_pinned(installation_of(context), backup, pinned, destination=destination)
    if as_json:
        say_json({"id": manifest.id, "label": manifest.label, "pinned": pinned, "changed": changed})
    elif pinned:
        say(f"{manifest.label} is pinned {'now' if changed else 'already'}")
    else:
        say(f"{manifest.label} {'is no longer pinned' if changed else 'was not pinned'}")


def _show_run(context: typer.Context, wanted: str, *, as_json: bool) -> bool:
    from lifeboat.operations.backup.selection import find_run

    row = find_run(installation_of(context), wanted)
    if row is None:
        return False
    if as_json:
        say_json({"catalog": row})
        return True
    fields = {
        "backup": row.label,
        "id": row.id,
        "type": row.type,
        "engine": row.engine,
        "destination": row.destination,
        "status": row.status,
        "started": time_text(row.started_at),
        "ended": time_text(row.ended_at) if row.ended_at else None,
        "expired": time_text(row.expired_at) if row.expired_at else None,
        "error": row.error,
        "flow run": row.flow_run_id,
    }
    _say_fields(fields)
    notice("note: this is the catalog's row; there is no such backup in storage")
    return True


def _row(backup: "ListedBackup") -> tuple[object, ...]:
    ended, began = backup.completed_at, backup.started_at
    return (
        backup.label or backup.id,
        backup.type,
        backup.engine,
        backup.destination,
        time_text(began).removesuffix(" UTC") if began else None,
        duration_text((ended - began).total_seconds()) if ended and began else None,
        size_text(backup.size_bytes) if backup.size_bytes is not None else None,
        backup.status,
        _proof(backup),
    )


def _proof(backup: "ListedBackup") -> str:
    words = []
    if backup.verified and backup.verified_at:
        words.append(f"restored {time_text(backup.verified_at)}")
    if backup.suspect:
        words.append("suspect")
    if backup.pinned:
        words.append("pinned")
    return ", ".join(words)


def _show(stored: "StoredBackup", location: str) -> None:
    manifest, state = stored.manifest, stored.state
    server = f"PostgreSQL {manifest.pg_version}, system {manifest.system_identifier}" if manifest.pg_version else None
    wal = f"timeline {manifest.timeline}, {manifest.start_lsn} to {manifest.stop_lsn}" if manifest.start_lsn else None
    proof = f"restored {time_text(state.verified_at)}" if state.verified and state.verified_at else "never restored"
    if state.failed_drill_at is not None and not state.verified:
        proof = f"its last restore drill failed, {time_text(state.failed_drill_at)}"
    held = f"in {count_text(len(manifest.objects), 'object')} ({manifest.compression})"
    if not manifest.objects and "repository" in manifest.details:
        held = f"in stanza {manifest.details['stanza']} of the repository {manifest.details['repository']}"
    fields = {
        "backup": manifest.label,
        "id": manifest.id,
        "set": manifest.set_id,
        "type": f"{manifest.type} ({manifest.reason})" if manifest.reason else manifest.type,
        "engine": manifest.engine,
        "needs": manifest.parent_label,
        "started": time_text(manifest.started_at),
        "completed": time_text(manifest.completed_at),
        "size": f"{size_text(manifest.size_bytes)} {held}",
        "place": location,
        "server": server,
        "database": manifest.database,
        "WAL": wal,
        "tools": ", ".join(f"{name} {lowest}" for name, lowest in manifest.tools.items()),
        "fingerprint": count_text(len(manifest.fingerprint.tables), "table") if manifest.fingerprint else None,
        "proof": proof,
        "pinned": "yes" if state.pinned else None,
        "suspect": "yes" if state.suspect else None,
        "signed by": f"key {manifest.signed_by}",
        "flow run": manifest.flow_run_id,
    }
    _say_fields(fields)


def _say_fields(fields: "Mapping[str, object]") -> None:
    for name, value in fields.items():
        if value is not None:
            say(f"{name:<12}{value}")
