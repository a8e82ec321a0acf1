"""The commands that go on from a preview or a plan, as they are typed."""

from dataclasses import replace
from typing import TYPE_CHECKING

from console.cli.output import notice

if TYPE_CHECKING:
    from lifeboat.operations.installation import Installation
    from lifeboat.operations.restore.results import RestoreOrder
    from lifeboat.recovery.targets import RecoveryTarget


def tell_next(
    installation: "Installation",
    target: "RecoveryTarget",
    destination: str | None,
    restore: list[str],
    *,
    of_cluster: bool = True,
) -> None:
    """Write what to run next: a look at the moment, and the restore to it.

    `restore` are the words behind the target. A target that is not `of_cluster` means a dump, which `explore` has not.
    """
    from lifeboat.settings.own_command import own_command

    file = installation.settings_file
    words = [*target_words(target), *destination_words(destination)]
    notice("what to do next:")
    if of_cluster:
        notice(f"  look at it, read-only: {own_command(file, 'explore', *words)}")
    notice(f"  restore it: {own_command(file, 'restore', 'run', *words, *restore)}")


def preview_command(
    installation: "Installation", target: "RecoveryTarget", destination: str | None = None
) -> str | None:
    """The command that counts what a restore to a target loses; None where it takes no such target."""
    from lifeboat.settings.own_command import own_command

    if target.at is None:
        return None
    words = target_words(replace(target, inclusive=True))  # it has no --before
    return own_command(installation.settings_file, "restore", "preview", *words, *destination_words(destination))


def target_words(target: "RecoveryTarget") -> list[str]:
    """A target as options of `restore run`; the latest moment as none, which is `explore`'s way."""
    from lifeboat.recovery.targets import time_text
    from lifeboat.wal.names import format_lsn

    given = {
        "--at": time_text(target.at) if target.at is not None else None,
        "--name": target.name,
        "--lsn": format_lsn(target.lsn) if target.lsn is not None else None,
        "--xid": str(target.xid) if target.xid is not None else None,
        "--backup": target.backup,
        "--timeline": str(target.timeline) if target.timeline is not None else None,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, value)]
    return words + ([] if target.inclusive else ["--before"])


def destination_words(destination: str | None) -> list[str]:
    """The option that names a destination, unless it is the default one."""
    return [] if destination is None else ["--destination", destination]


def order_words(order: "RestoreOrder") -> list[str]:
    """What an order says besides its target and destination, as options of `restore run`."""
    from lifeboat.recovery.targets import TargetKind

    words = ["--latest"] if order.target.kind is TargetKind.LATEST else []
    words += ["--to", str(order.to)]
    for old, new in order.tablespaces.items():
        words += ["--tablespace", f"{old}={new}"]
    words += ["--data-dir", str(order.data_dir)] if order.data_dir is not None else []
    flags = {
        "--stop-server": order.stop_server,
        "--discard-old": order.discard_old,
        "--no-full-read": not order.full_read,
    }
    words += [flag for flag, given in flags.items() if given]
    for danger in sorted(order.acknowledged):
        words += ["--accept", danger]
    return words
