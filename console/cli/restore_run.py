"""`lifeboat restore run`: to a moment, into a new cluster, in place, or one database from a dump."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.cli.confirmation import confirm_plan, short_hash
from console.cli.options import AsJson, At, Backup, Before, Destination, Lsn, Name, Timeline, Xid, Yes
from console.cli.output import notice, say, say_json
from console.cli.progress import follow
from console.cli.restore_words import order_words, preview_command, tell_next
from console.cli.session import installation_of
from tasks.figures import duration_text, size_text

if TYPE_CHECKING:
    from lifeboat.engines.engine import Progress
    from lifeboat.operations.installation import Installation
    from lifeboat.operations.restore.preparation import PreparedRestore
    from lifeboat.operations.restore.results import RestoreOrder, RestoreReport
    from lifeboat.recovery.targets import RecoveryTarget


def run(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="new:DIR, in-place or database:NAME.")],
    at: At = None,
    name: Name = None,
    lsn: Lsn = None,
    xid: Xid = None,
    backup: Backup = None,
    latest: Annotated[bool, typer.Option("--latest", help="All that there is.")] = False,
    timeline: Timeline = None,
    before: Before = False,
    tablespace: Annotated[
        list[str] | None, typer.Option("--tablespace", metavar="OLD=NEW", help="Where a tablespace goes; may repeat.")
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option("--data-dir", metavar="DIR", help="In place: the server's data directory.")
    ] = None,
    stop_server: Annotated[bool, typer.Option("--stop-server", help="In place: stop the server if it runs.")] = False,
    accept: Annotated[
        list[str] | None, typer.Option("--accept", metavar="DANGER", help="In place: patroni, standbys or slots.")
    ] = None,
    discard_old: Annotated[
        bool, typer.Option("--discard-old", help="In place, by pgBackRest: write over the old data; none are kept.")
    ] = False,
    full_read: Annotated[
        bool, typer.Option("--full-read/--no-full-read", help="Read every restored table once.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    yes: Yes = None,
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Restore to a moment and prove where it landed.

    Give one target: --at, --name, --lsn, --xid, --backup or --latest. Needs storage alone: neither Prefect nor the
    catalog nor the platform's server has to run. A restore in place is typed once more before it begins, and keeps
    the old data directory.
    """
    from dataclasses import replace
    from pathlib import Path

    from lifeboat.catalog.values import RestoreTarget
    from lifeboat.errors import SettingsError
    from lifeboat.operations.restore.in_place import DANGERS
    from lifeboat.operations.restore.results import RestoreOrder, RestoreTo
    from lifeboat.operations.restore.run import has_only_to_finish
    from lifeboat.recovery.targets import TargetUnreadable

    given = {"at": at, "name": name, "lsn": lsn, "xid": xid, "backup": backup}
    if latest == any(value is not None for value in given.values()):
        raise TargetUnreadable("name one recovery target", hint="--at, --name, --lsn, --xid, --backup or --latest.")
    if unknown := set(accept or []) - set(DANGERS):
        raise SettingsError(f"{min(unknown)!r} is no danger that can be accepted", hint=f"Known: {', '.join(DANGERS)}.")
    order = RestoreOrder(
        target_of(**given, timeline=timeline, inclusive=not before),
        RestoreTo.parse(to),
        destination=destination,
        tablespaces=tablespaces_of(tablespace or []),
        full_read=full_read,
        data_dir=Path(data_dir) if data_dir else None,
        stop_server=stop_server,
        discard_old=discard_old,
        acknowledged=frozenset(accept or []),
    )
    installation = installation_of(context)
    if dry_run:
        plan = _plan(installation, order)
        if as_json:
            say_json(plan)
            return
        _show_plan(plan)
        is_cluster = order.to.kind is not RestoreTarget.DATABASE
        again = order_words(replace(order, stop_server=order.stop_server or bool(plan.get("needs_stop"))))
        tell_next(installation, order.target, destination, again, of_cluster=is_cluster)
        return
    # What only has to be put in its place was planned and confirmed before, and replaces nothing.
    if order.to.kind is RestoreTarget.IN_PLACE and not has_only_to_finish(installation, order):
        plan = _plan(installation, order, to_be_done=True)
        confirm_plan(
            str(plan["hash"]),
            yes,
            show=lambda: _show_plan(plan),
            question=f"{'WRITE OVER' if discard_old else 'replace'} {plan['place']}",
        )
    with follow(f"restore to {order.target}") as follower:
        report = _run(installation, order, follower.phase, follower.amount)
    say_json(report) if as_json else _show(report)


def target_of(*, timeline: int | None = None, inclusive: bool = True, **given: str | None) -> Any:  # noqa: ANN401 - lazy
    """The recovery target that options name; raises TargetUnreadable."""
    from datetime import UTC, datetime

    from lifeboat.recovery.targets import parse_target

    return parse_target(now=datetime.now(UTC), timeline=timeline, inclusive=inclusive, **given)


def tablespaces_of(words: list[str]) -> dict[Any, Any]:
    """Old folder to new folder, from OLD=NEW; raises SettingsError."""
    from pathlib import Path

    from lifeboat.errors import SettingsError

    found = {}
    for word in words:
        old, equals, new = word.partition("=")
        if not (old.startswith("/") and equals and new.startswith("/")):
            raise SettingsError(f"{word!r} is not OLD=NEW", hint="Both are absolute paths of folders.")
        found[Path(old)] = Path(new)
    return found


def _run(installation: "Installation", order: "RestoreOrder", phase: Any, amount: Any) -> "RestoreReport":  # noqa: ANN401
    from lifeboat.operations.restore.run import run_restore

    def tell(progress: "Progress") -> None:
        amount(progress.done_bytes, progress.total_bytes)

    return run_restore(installation, order, phase, tell)


def _plan(installation: "Installation", order: "RestoreOrder", *, to_be_done: bool = False) -> dict[str, object]:
    from lifeboat.catalog.values import RestoreTarget
    from lifeboat.operations.restore.in_place import refuse_running
    from lifeboat.operations.restore.preparation import prepare_restore
    from lifeboat.operations.restore.to_database import plan_database

    if order.to.kind is RestoreTarget.DATABASE:
        manifest = plan_database(installation, order)
        return {"target": str(order.target), "to": str(order.to), "place": order.to.database, "backup": manifest.label}
    with follow(f"plan the restore to {order.target}") as follower:

        def tell(progress: "Progress") -> None:
            follower.amount(progress.done_bytes, progress.total_bytes)

        prepared = prepare_restore(installation, order, on_amount=tell)
        if to_be_done and prepared.old is not None:
            # Before anything is typed.
            refuse_running(prepared.old, order)
        return {
            **_described(order, prepared),
            "preview": preview_command(installation, order.target, order.destination),
        }


def _described(order: "RestoreOrder", prepared: "PreparedRestore") -> dict[str, object]:
    import hashlib

    from lifeboat.operations.restore.needed_space import needed_bytes
    from lifeboat.operations.restore.place import left_by_interrupted

    planned = prepared.planned
    plan, old = planned.plan, prepared.old
    facts: dict[str, object] = {
        "target": str(plan.target),
        "to": str(order.to),
        "place": str(prepared.target),
        "backup": plan.backup.label,
        "chain": [manifest.label for manifest in planned.chain],
        "timeline": plan.timeline,
        "segments": max(0, plan.span.last_number - plan.span.first_number + 1),
        "recovery_settings": plan.settings,
        "tablespaces": {oid: str(folder) for oid, folder in prepared.tablespaces.folders.items()},
        "needed_bytes": needed_bytes(planned),
        "needs_stop": old is not None and old.must_stop and not order.stop_server,
        "loses": losses(order.target, plan.timeline, planned.material.current_timeline),
        "replaces": str(old.data_dir) if old is not None and old.has_data else None,
        "discards": order.discard_old,
        "notes": [*plan.notes, *prepared.notes, *left_by_interrupted(prepared.target, order.key)],
    }
    named = {
        key: facts[key] for key in ("target", "to", "place", "backup", "timeline", "recovery_settings", "discards")
    }
    return {**facts, "hash": hashlib.sha256(repr(sorted(named.items())).encode()).hexdigest()}


def losses(target: "RecoveryTarget", timeline: int, current_timeline: int) -> list[str]:
    """What the cluster in place has, and a restore to a target on a timeline has not."""
    from lifeboat.recovery.targets import TargetKind

    lost = [] if target.kind is TargetKind.LATEST else [f"everything that was committed after {target}"]
    if timeline != current_timeline:
        lost.append(f"everything that only the current timeline, {current_timeline}, has")
    return lost


def _show_plan(plan: dict[str, Any]) -> None:
    say(f"Restore to {plan['target']}, {plan['to']}:")
    say(f"  backup {plan['backup']}" + (f", of the chain {' + '.join(plan['chain'])}" if plan.get("chain") else ""))
    if "segments" in plan:
        say(f"  then at most {plan['segments']} archived WAL segments, on timeline {plan['timeline']}")
        say(f"  up to about {size_text(plan['needed_bytes'])} in {plan['place']}")
    for folder in plan.get("tablespaces", {}).values():
        say(f"  a tablespace in {folder}")
    if plan.get("replaces") and plan["discards"]:
        say(f"  WRITES OVER {plan['replaces']}: the data that are there now are lost")
    elif plan.get("replaces"):
        say(f"  REPLACES {plan['replaces']}, which is kept as {plan['replaces']}.before-restore-…")
    if plan.get("replaces"):
        for lost in plan["loses"]:
            say(f"  LOSES {lost}")
        if plan["preview"] is not None:
            say(f"  what that is, counted: {plan['preview']}")
    if plan.get("needs_stop"):
        say("  the server RUNS: without --stop-server this is refused")
    for note in plan.get("notes", []):
        say(f"  note: {note}")
    # It confirms what replaces something; elsewhere nobody asks for it.
    if plan.get("replaces"):
        say(f"  plan {short_hash(plan['hash'])}")


def _show(report: "RestoreReport") -> None:
    seconds = (report.completed_at - report.started_at).total_seconds()
    say(f"{report.label} was restored to {report.target} in {duration_text(seconds)}: {report.place}")
    say("  " + ", ".join(f"{name} {duration_text(took)}" for name, took in report.phases.items()))
    say(f"  landed: {report.landing}")
    if report.heartbeat_at is not None:
        say(f"  newest heartbeat recovered: {report.heartbeat_at:%Y-%m-%d %H:%M:%S.%f} UTC")
    for note in report.notes:
        say(f"  note: {note}")
    notice("what to do next:")
    for number, step in enumerate(report.next_steps, 1):
        say(f"  {number}. {step}")
