"""Takes expired backups out of the repository, and WAL that no kept backup needs (DESIGN 3).

pgBackRest's own retention would pass by our guards, so each backup goes by name. `expire --set` never removes WAL
[ran]: that takes a second expire by retention, which runs only where it can remove no backup.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.failures import STANZA_HINT, RepositoryBusy, StanzaMissing
from lifeboat.engines.pgbackrest.info import StanzaInfo, read_info
from lifeboat.errors import PermanentError

_MOST = 9999999
_REMOVES_BACKUP = ("expire full backup", "expire diff backup", "expire adhoc backup", "remove expired backup")


class ExpiryRefused(PermanentError):
    """Expiring a backup would take others along."""


@dataclass(frozen=True)
class RepositoryExpiry:
    """What went, and why WAL stayed where it did."""

    removed: tuple[str, ...]
    wal_expired: bool
    why_wal_stays: str | None = None


def refuse_expiry(info: StanzaInfo, going: Collection[str], *, held: Collection[str] = ()) -> None:
    """Raise what stands against taking `going` away, before anything is: ExpiryRefused, RepositoryBusy, StanzaMissing.

    `held` are labels of earlier runs that still wait to be taken away.
    """
    _refuse_absent(info)
    there = [label for label in {*going, *held} if info.find(label) is not None]
    if there and info.backup_runs:
        raise RepositoryBusy(
            f"a backup runs in stanza {info.name}, and pgBackRest expires nothing meanwhile",
            hint="Let it end; then apply retention again.",
        )
    _refuse_dependents(info, there)


def expire_from_repository(
    pgbackrest: PgBackRest, going: Sequence[str], kept: Collection[str], *, wal_held_by: str | None = None
) -> RepositoryExpiry:
    """Remove the backups `going`, dependents first, then WAL from before the oldest full backup of `kept`.

    With `wal_held_by`, a reason that others have, all WAL stays. A label that is gone already is passed over: a
    repeated call finishes the work of an interrupted one. Raises ExpiryRefused before anything is removed,
    RepositoryBusy, StanzaMissing.
    """
    info = read_info(pgbackrest)
    _refuse_absent(info)
    there = [label for label in going if info.find(label) is not None]
    _refuse_dependents(info, there)
    removed = []
    for label in _dependents_first(info, there):
        pgbackrest.run("expire", f"--set={label}", doing=f"expiring {label}")
        removed.append(label)
    why = wal_held_by or _expire_wal(pgbackrest, kept)
    return RepositoryExpiry(tuple(removed), why is None, why)


def _refuse_absent(info: StanzaInfo) -> None:
    # A repository that is not mounted lists as one that has nothing: all would seem to be gone already.
    if not info.exists:
        raise StanzaMissing(f"there is no stanza {info.name} in the repository to expire from", hint=STANZA_HINT)


def _refuse_dependents(info: StanzaInfo, going: Collection[str]) -> None:
    for label in going:
        # `expire --set` takes them along, whatever our plan says of them.
        left = [name for name in info.dependents(label) if name not in going]
        if left:
            raise ExpiryRefused(
                f"{label} is not expired: {', '.join(left)} needs it and is not to go",
                hint="Adopt what is in the repository (`lifeboat pgbackrest adopt`), and plan again.",
            )


def _dependents_first(info: StanzaInfo, going: Sequence[str]) -> list[str]:
    return sorted(going, key=lambda label: len(info.chain(label)), reverse=True)


def _expire_wal(pgbackrest: PgBackRest, kept: Collection[str]) -> str | None:
    """Why WAL was not expired; None when it was."""
    ours = sorted(label for label in kept if "_" not in label)
    if not ours:
        return "no full backup is kept"
    if (why := _disagreement(pgbackrest, ours)) is not None:
        return why
    # By count of full backups, as its own retention does; but with the most that it keeps, no backup can go.
    retention = [f"--repo1-retention-full={_MOST}", f"--repo1-retention-archive={len(ours)}"]
    doing = "expiring WAL that no backup needs"
    said: list[str] = []
    pgbackrest.run("expire", *retention, "--dry-run", doing=doing, level="detail", on_line=said.append)
    removes = [line for line in said if any(word in line for word in _REMOVES_BACKUP)]
    if removes:
        return f"pgBackRest would remove a backup: {removes[0].strip()}"
    # A full backup that had ended meanwhile would count, and WAL that the oldest one needs would go.
    if (why := _disagreement(pgbackrest, ours)) is not None:
        return why
    pgbackrest.run("expire", *retention, doing=doing)
    return None


def _disagreement(pgbackrest: PgBackRest, ours: Sequence[str]) -> str | None:
    info = read_info(pgbackrest)
    if info.backup_runs:
        return "a backup runs"
    theirs = sorted(info.full_labels())
    if list(ours) == theirs:
        return None
    unknown = sorted(set(theirs) - set(ours)) or sorted(set(ours) - set(theirs))
    return f"the plan and pgBackRest do not name the same full backups: {', '.join(unknown)}"
