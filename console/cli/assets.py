"""`lifeboat assets`."""

from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson
from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from console.cli.session import with_source
from tasks.figures import duration_text, size_text

if TYPE_CHECKING:
    from lifeboat.assets.findings import AssetProgress, AssetReport

app = typer.Typer(no_args_is_help=True)


@app.callback()
def assets() -> None:
    """Check the files that the database refers to."""


@app.command()
def verify(
    context: typer.Context,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew, even where an interrupted check could go on.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every asset file; compare it with the database's record.

    Exit code 3 when files are missing, corrupt or unreadable.
    """
    from lifeboat.operations.verify_assets import verify_installation_assets

    with follow("checking assets") as follower:

        def tell(progress: "AssetProgress") -> None:
            follower.amount(progress.bytes_checked, None)

        report = verify_installation_assets(with_source(context), resume=not fresh, on_progress=tell)
    if as_json:
        say_json({"sound": report.sound, **vars(report)})
    else:
        _show(report)
    if not report.sound:
        raise typer.Exit(3)


def _show(report: "AssetReport") -> None:
    if report.findings:
        rows = [(item.kind, item.path, item.asset_id, item.asset_kind, item.detail) for item in report.findings]
        say_table(("finding", "file", "asset", "kind", "detail"), rows)
    say(
        f"{report.checked:,} files, {size_text(report.bytes_checked)} in {duration_text(report.duration_seconds)}: "
        f"{report.missing} missing, {report.corrupt} corrupt, {report.unreadable} unreadable"
    )
    if report.resumed:
        notice("note: this went on where an interrupted check had stopped")
    if report.without_checksum:
        notice(f"note: {report.without_checksum:,} records have no checksum: their files were only read to the end")
    if report.total_findings > len(report.findings):
        notice(f"note: only the first {len(report.findings):,} of {report.total_findings:,} findings are listed")
