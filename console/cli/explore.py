"""`lifeboat explore`: a read-only server as of a moment."""

import sys
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from console.cli.options import AsJson, At, Backup, Before, Destination, Lsn, Name, Timeline, Xid
from console.cli.output import notice, say, say_json
from console.cli.progress import follow
from console.cli.restore_run import target_of
from console.cli.session import installation_of

if TYPE_CHECKING:
    from lifeboat.operations.restore.explore import Explored


def command(  # noqa: PLR0913 - a command has as many parameters as options
    context: typer.Context,
    at: At = None,
    name: Name = None,
    lsn: Lsn = None,
    xid: Xid = None,
    backup: Backup = None,
    timeline: Timeline = None,
    before: Before = False,
    for_: Annotated[str | None, typer.Option("--for", metavar="TIME", help="End by itself after `30m`, `2h`.")] = None,
    destination: Destination = None,
    as_json: AsJson = False,
) -> None:
    """Serve the cluster as of a moment, isolated and read-only, until Ctrl-C.

    Without a target, as of the latest moment that can be had. Prints the connection string. Everything is removed at
    the end; what a killed run has left, by the next one.

    Read-only is a guard rail, not a lock: sessions are a superuser's, who can promote the server and write to this
    copy, and run programs on this host. Neither the live server nor the archive sees what is written here.
    """
    from contextlib import ExitStack, suppress

    from lifeboat.operations.restore.explore import explored

    seconds = seconds_of(for_) if for_ is not None else None
    given = {"at": at, "name": name, "lsn": lsn, "xid": xid, "backup": backup}
    target = target_of(**given, timeline=timeline, inclusive=not before)
    if all(value is None for value in given.values()):
        notice(f"no target was named: {target} is served")
    with ExitStack() as stack:
        with follow(f"explore {target}") as follower:
            opening = explored(
                installation_of(context),
                target,
                destination=destination,
                on_progress=follower.phase,
                on_amount=lambda progress: follower.amount(progress.done_bytes, progress.total_bytes),
            )
            there = stack.enter_context(opening)
        # Ctrl-C and SIGTERM are how it is meant to end.
        with suppress(KeyboardInterrupt, SystemExit):
            _tell(there, str(target), seconds, as_json=as_json)
            threading.Event().wait(seconds)
    notice("removed")


def _tell(there: "Explored", target: str, seconds: float | None, *, as_json: bool) -> None:
    from datetime import UTC, datetime, timedelta

    account = there.found.cluster.tools.user
    facts = {
        "dsn": there.found.connection.redacted(),
        "target": target,
        "landing": str(there.found.landing),
        "backup": there.planned.manifest.label,
        "account": account,
    }
    if as_json:
        say_json(facts)
    else:
        say(f"{target}, from {facts['backup']}: {facts['landing']}")
        say(f'  psql "{facts["dsn"]}"' + (f"   # as {account} or root" if account else ""))
    sys.stdout.flush()
    ends = "Ctrl-C ends it"
    if seconds is not None:
        ends = f"it ends by itself at {datetime.now(UTC) + timedelta(seconds=seconds):%H:%M:%S} UTC, or by Ctrl-C,"
    notice("read-only, as a guard rail: the session is a superuser's, on a copy that nothing else uses")
    notice(f"{ends} and removes everything")


def seconds_of(text: str) -> float:
    """How long `30m`, `2h` or `90s` is; raises TargetUnreadable."""
    from datetime import UTC, datetime

    from lifeboat.recovery.targets import TargetUnreadable, parse_time

    now = datetime.now(UTC)
    try:
        seconds = (now - parse_time(text, now)).total_seconds()
    except TargetUnreadable:
        seconds = 0.0
    if seconds <= 0 or "-" in text:
        raise TargetUnreadable(f"{text!r} is not a length of time", hint="Write it like `30m` or `2h`.")
    return seconds
