"""`lifeboat wal`: status and install; push and fetch are run without this module (see main.py)."""

from typing import TYPE_CHECKING

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say, say_json, say_table
from console.cli.session import installation_of
from tasks.figures import count_text, size_text

if TYPE_CHECKING:
    from lifeboat.operations.installation import Installation
    from lifeboat.wal.coverage import ArchiveListing, SegmentRange

app = typer.Typer(no_args_is_help=True)
_ANY_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command()
def status(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what the WAL archive holds, and what it lacks.

    Contiguous ranges by timeline, gaps, damaged files, and how many segments wait in the server.

    Exit code 3 when a range is not restorable: a gap, a short or an empty segment.
    """
    from lifeboat.errors import SettingsError
    from lifeboat.wal.coverage import scan_archive

    installation = installation_of(context)
    wal = installation.settings.wal
    if not wal.archive:
        raise SettingsError(
            "`wal.archive` is false: there is no WAL archive", hint="Set it to true and run `lifeboat doctor`."
        )
    listing = scan_archive(installation.destination(wal.destination).path, installation.settings.platform.cluster)
    lag, remark = _lag(installation)
    if as_json:
        say_json(_as_json(listing, lag))
    else:
        _show(listing)
        say(remark if lag is None else f"The server has {lag} finished segments that are not archived yet.")
    if listing.gaps or listing.damaged:
        raise typer.Exit(3)


@app.command()
def install(context: typer.Context, as_json: AsJson = False) -> None:
    """Install the archive program; print what turns archiving on.

    The statements are for a superuser of the platform's server: Lifeboat does not change that server by itself.
    """
    from lifeboat.operations.archive_setup import set_up_archiving

    setup = set_up_archiving(installation_of(context))
    if as_json:
        say_json(
            {"statements": setup.statements, "needs_restart": setup.needs_restart, "program": setup.installed.program}
        )
        return
    notice(f"{setup.installed.program} works as the server's account. Run this in the server, as a superuser:")
    for statement in setup.statements:
        say(statement)
    if setup.needs_restart:
        notice("Then restart the server: archive_mode needs it.")


@app.command(context_settings=_ANY_ARGUMENTS)
def push(context: typer.Context) -> None:
    """Archive one WAL file: what archive_command calls."""
    _run("push", context)


@app.command(context_settings=_ANY_ARGUMENTS)
def fetch(context: typer.Context) -> None:
    """Deliver one WAL file: what restore_command calls."""
    _run("fetch", context)


def _run(command: str, context: typer.Context) -> None:
    from lifeboat.wal import command_line

    raise typer.Exit(command_line.main(["lifeboat", "wal", command, *context.args]))


def _lag(installation: "Installation") -> tuple[int | None, str]:
    from lifeboat.errors import LifeboatError
    from lifeboat.operations.doctor_archive import segments_behind
    from lifeboat.operations.doctor_source import read_source

    try:
        facts = read_source(installation)
    except LifeboatError as error:
        return None, f"The server cannot be asked how far it is ahead: {error.message}"
    behind = segments_behind(facts.archiver, facts.segment_size_bytes)
    return behind, "How far the server is ahead cannot be told: it has archived nothing on its present timeline."


def _show(listing: "ArchiveListing") -> None:
    size = size_text(listing.stored_bytes)
    say(f"{listing.archive}: {count_text(len(listing.files), 'file')}, {size}, of system {listing.system_identifier}")
    rows = [(item.first.start_lsn, "range", *_range_row(item)) for item in listing.ranges]
    rows += [(item.first.start_lsn, "GAP", *_range_row(item)) for item in listing.gaps]
    ordered = [row[1:] for row in sorted(rows, key=lambda row: (row[2], row[0]))]
    if ordered:
        say_table(
            ("what", "timeline", "first segment", "last segment", "segments"), ordered, right=("timeline", "segments")
        )
    else:
        say("No segment was archived yet.")
    for damaged in listing.damaged:
        say(f"DAMAGED {damaged.path}: {damaged.reason}")


def _range_row(item: "SegmentRange") -> tuple[int, str, str, int]:
    return item.timeline, item.first.name, item.last.name, item.count


def _as_json(listing: "ArchiveListing", lag: int | None) -> dict[str, object]:
    def ranges(items: "tuple[SegmentRange, ...]") -> list[dict[str, object]]:
        names = ("timeline", "first", "last", "segments")
        return [dict(zip(names, _range_row(item), strict=True)) for item in items]

    return {
        "archive": listing.archive,
        "system_identifier": listing.system_identifier,
        "stored_bytes": listing.stored_bytes,
        "files": len(listing.files),
        "ranges": ranges(listing.ranges),
        "gaps": ranges(listing.gaps),
        "damaged": [{"name": item.name, "path": item.path, "reason": item.reason} for item in listing.damaged],
        "history_timelines": listing.history_timelines,
        "segments_behind": lag,
    }
