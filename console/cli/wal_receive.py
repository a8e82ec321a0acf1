"""`lifeboat wal receive`."""

import logging

import typer

from console.cli.session import installation_of


def receive(context: typer.Context) -> None:
    """Stream WAL into the archive with pg_receivewal.

    It has a slot, and runs in the foreground until Ctrl-C or SIGTERM.

    It needs `wal.receive = true` and a role with REPLICATION, and waits for a server or an archive that is away. The
    slot stays: when the receiver is given up for good, drop it, or the server keeps WAL for it.

    Restores use whole segments only: the server's archive_timeout says how long a commit waits for the end of its one.
    """
    installation = installation_of(context)
    log = logging.getLogger("lifeboat")
    # It is watched through its log: what it does has to be there without --verbose.
    log.setLevel(min(log.level, logging.INFO))
    from lifeboat.operations.wal.receive import receive_wal_until_stopped

    receive_wal_until_stopped(installation)
