"""Backups of runs that failed after pgBackRest had ended: taken away, or marked where it will not let them go."""

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.describing import FAILED_ANNOTATION
from lifeboat.engines.pgbackrest.info import BackupInfo, InfoType, StanzaInfo
from lifeboat.errors import LifeboatError

_MOST_CHARACTERS = 200


def failure_of(backup: BackupInfo) -> str | None:
    """Why the run that took it has failed; None for one that nobody has marked."""
    return (backup.annotation or {}).get(FAILED_ANNOTATION)


def discard_backup(pgbackrest: PgBackRest, label: str, why: str) -> LifeboatError | None:
    """Expire the backup of a failed run, or mark it with `why` so that nobody adopts it; then what kept it.

    Raises what the marking raises.
    """
    try:
        pgbackrest.run("expire", f"--set={label}", doing=f"removing {label}")
    except LifeboatError as error:
        # The only full backup of a cluster stays (src/command/expire/expire.c), however bad it is.
        line = " ".join(why.split())[:_MOST_CHARACTERS] or "it does not say why"
        pgbackrest.run(
            "annotate", f"--set={label}", f"--annotation={FAILED_ANNOTATION}={line}", doing=f"marking {label}"
        )
        return error
    return None


def discard_marked(pgbackrest: PgBackRest, info: StanzaInfo) -> list[str]:
    """Take away the marked backups that can go by now, and return their labels; raises what `expire` raises."""
    gone = []
    for backup in reversed(info.backup):
        if failure_of(backup) is None or any(label not in gone for label in info.dependents(backup.label)):
            continue
        if backup.type is InfoType.FULL and not _another_full(info, backup):
            continue
        pgbackrest.run("expire", f"--set={backup.label}", doing=f"removing {backup.label}")
        gone.append(backup.label)
    return gone


def _another_full(info: StanzaInfo, backup: BackupInfo) -> bool:
    return any(
        item.type is InfoType.FULL and item.database.id == backup.database.id and failure_of(item) is None
        for item in info.backup
    )
