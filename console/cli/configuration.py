"""`lifeboat config`."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.confirmation import confirm_plan
from console.cli.options import AsJson, Destination, Yes
from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from console.cli.session import installation_of, with_source
from tasks.figures import count_text, duration_text, size_text, time_text

if TYPE_CHECKING:
    from lifeboat.configuration.plan import ApplyPlan
    from lifeboat.operations.configuration_archives import LoadedArchive
    from lifeboat.operations.installation import Installation

app = typer.Typer(no_args_is_help=True)

Archive = Annotated[str, typer.Argument(metavar="ARCHIVE", help="A label, an id, `latest`, or a configuration.tar.gz.")]
OrLive = Annotated[
    str, typer.Argument(metavar="[ARCHIVE|live]", help="As ARCHIVE, or `live`: the platform as it is now.")
]
_LIVE = "live"


@app.command()
def export(context: typer.Context, destination: Destination = None, as_json: AsJson = False) -> None:
    """Export the configuration, without secrets, as an archive."""
    from lifeboat.operations.export_configuration import export_configuration

    with follow("exporting the configuration"):
        taken = export_configuration(with_source(context), destination=destination)
    if as_json:
        say_json(taken)
    else:
        took = duration_text(taken.duration_seconds)
        say(f"{taken.label}: {size_text(taken.size_bytes)} in {took}, at {taken.location}")


@app.command("list")
def list_(context: typer.Context, destination: Destination = None, as_json: AsJson = False) -> None:
    """List the configuration archives, oldest first."""
    from lifeboat.operations.configuration_archives import list_archives

    archives = list_archives(installation_of(context), destination)
    if as_json:
        fields = {"id", "label", "set_id", "started_at", "completed_at", "size_bytes", "database", "details"}
        say_json([{**item.model_dump(include=fields), "size_bytes": item.size_bytes} for item in archives])
        return
    if not archives:
        say("there is no configuration archive yet: `lifeboat config export` takes one, and so does each full backup")
        return
    rows = [
        (
            item.label,
            time_text(item.started_at).removesuffix(" UTC"),
            size_text(item.size_bytes),
            item.database,
            ", ".join(f"{count} {kind}" for kind, count in item.details.get("items", {}).items()),
        )
        for item in archives
    ]
    say_table(("archive", "started (UTC)", "size", "database", "items"), rows, right=("size",))


@app.command()
def diff(
    context: typer.Context, old: OrLive, new: OrLive = _LIVE, destination: Destination = None, as_json: AsJson = False
) -> None:
    """Show what differs between two archives, or one and the platform.

    Exit code 3 when anything does. What is live is exported to a temporary folder and not stored.
    """
    from lifeboat.configuration.describe import describe_diff
    from lifeboat.configuration.diff import diff as compare
    from lifeboat.configuration.structure import diff_structure

    before, after = (_load(context, name, destination) for name in (old, new))
    found = compare(before.archive, after.archive)
    if as_json:
        head = {"old": before.name, "new": after.name, "equal": found.is_empty}
        say_json({**head, **diff_structure(found), "lines": describe_diff(found)})
    else:
        say(f"{before.name} → {after.name}")
        for line in describe_diff(found):
            say(line)
    if not found.is_empty:
        raise typer.Exit(3)


def _load(context: typer.Context, name: str, destination: str | None) -> "LoadedArchive":
    from lifeboat.operations.configuration_archives import load_archive
    from lifeboat.operations.live_configuration import read_live

    if name != _LIVE:
        return load_archive(installation_of(context), name, destination)
    with follow("exporting the live configuration"):
        return read_live(with_source(context))


@app.command()
def apply(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    archive: Archive,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Also remove what the archive does not have.")] = False,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="SECTION", help="Apply only this section; may be repeated.")
    ] = None,
    no_undo: Annotated[
        bool, typer.Option("--no-undo", help="Do not archive the present configuration first: no way back.")
    ] = False,
    yes: Yes = None,
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Bring the platform's configuration back to an archive.

    All of it is done, or nothing. The present configuration is archived first, and replaced files are kept.
    """
    from lifeboat.operations.configuration_archives import apply_configuration, load_archive, plan_configuration

    installation = with_source(context)
    loaded = load_archive(installation, archive, destination)
    plan = plan_configuration(installation, loaded.archive, prune=prune, only=only or None)
    if dry_run:
        _show(plan, as_json=as_json)
        return
    if not plan.is_empty:
        confirm_plan(plan.sha256, yes, show=lambda: _show(plan, as_json=False), question=f"apply {loaded.name}")
    undo = None if no_undo or plan.is_empty else _keep_present(installation, plan)
    applied = apply_configuration(installation, loaded.name, plan, undo=undo)
    if as_json:
        say_json({**vars(applied), "undo": undo})
        return
    rows = count_text(applied.inserted_count, "row")
    counts = f"{rows} inserted, {applied.updated_count} updated, {applied.removed_count} removed"
    say(f"{loaded.name}: {counts}, {count_text(applied.file_count, 'file')} changed")
    if applied.keep_in is not None:
        notice(f"the replaced files are kept in {applied.keep_in}")
    for step in plan.by_hand:
        notice("\n".join([f"by hand: {step.title}", *(f"    {line}" for line in step.lines)]))


def _keep_present(installation: "Installation", plan: "ApplyPlan") -> str:
    from lifeboat.operations.live_configuration import keep_present

    with follow("archiving the present configuration"):
        kept = keep_present(installation, plan)
    # Told before anything changes: whatever happens next, this is the way back.
    notice(f"the present configuration is kept as {kept.label}; to go back: {kept.command}")
    for gap in kept.gaps:
        notice(f"not complete: {gap}")
    return kept.label


def _show(plan: "ApplyPlan", *, as_json: bool) -> None:
    from lifeboat.configuration.describe import describe_plan
    from lifeboat.configuration.structure import plan_structure

    lines = describe_plan(plan)
    if as_json:
        head = {"plan_hash": plan.sha256, "empty": plan.is_empty}
        say_json({**head, **plan_structure(plan), "lines": lines})
        return
    for line in lines:
        say(line)
