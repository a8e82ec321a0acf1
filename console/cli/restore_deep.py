"""`lifeboat restore preview --deep`: the exact answer, by restoring in a scratch cluster and comparing."""

from typing import TYPE_CHECKING, Any

from console.cli.output import notice, say, say_json, say_table
from console.cli.progress import follow
from tasks.figures import duration_text

if TYPE_CHECKING:
    from lifeboat.operations.installation import Installation
    from lifeboat.operations.preview.deep import DeepPreview
    from lifeboat.recovery.targets import RecoveryTarget

_COLUMNS = ("table", "rows then", "rows now", "come back", "go", "change back")
_WIDTH = 80


def show_deep_preview(
    installation: "Installation", target: "RecoveryTarget", destination: str | None, *, as_json: bool
) -> None:
    """Make a deep preview and show it."""
    from lifeboat.operations.preview.deep import deep_preview

    with follow(f"deep preview of {target}") as follower:
        found = deep_preview(
            installation,
            target,
            destination=destination,
            on_progress=follower.phase,
            on_amount=lambda progress: follower.amount(progress.done_bytes, progress.total_bytes),
        )
    if as_json:
        say_json({"exact": found.exact, **vars(found), "tables": found.different})
    else:
        _show(found)


def _show(found: "DeepPreview") -> None:
    seconds = sum(found.phases.values())
    say(f"{found.target}, from {found.label}, compared with the database as it is now, in {duration_text(seconds)}")
    say(f"  landed: {found.landing}")
    if found.different:
        say_table(_COLUMNS, [_row(table) for table in found.different], right=_COLUMNS[1:])
    else:
        say("Every table has the rows that it had.")
    for table in found.different:
        for text, columns in {"come back": table.columns_then, "go": table.columns_now}.items():
            if columns:
                say(f"  columns of {table.table} that {text}: {', '.join(columns)}")
    for text, names in {
        "comes back": found.comes_back,
        "goes away": found.goes_away,
        "is defined as before": found.redefined,
    }.items():
        for name in names:
            say(f"  {text}: {name}")
    for fact in found.facts:
        say(f"  {fact.name}: {_shown(fact.now)} becomes {_shown(fact.then)}")
    if any(fact.name.startswith("sequence ") for fact in found.facts):
        notice("note: replay leaves a sequence up to 32 values ahead of what it had given out")
    for name in found.not_compared:
        notice(f"note: not compared: {name}")


def _shown(value: str | None) -> str:
    if value is None:
        return "not there"
    line = " ".join(value.split())
    return (line if len(line) <= _WIDTH else f"{line[:_WIDTH]}…") or "there"


def _row(table: Any) -> tuple[object, ...]:  # noqa: ANN401 - a TablePreview, whose module is not imported here
    def figure(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    counts = (table.rows_then, table.rows_now, table.only_then, table.only_now, table.changed)
    return table.table, *map(figure, counts)
