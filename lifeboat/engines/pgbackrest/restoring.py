"""From the repository back to a data directory, and the check that the repository still has what it should."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.failures import StanzaMissing
from lifeboat.engines.pgbackrest.info import read_info
from lifeboat.postgres.folders import make_private_dir
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.manifest import Manifest

_VERIFIED = re.compile(r"^\s*backup: (\S+), status: ([\w-]+)(.*)$", re.MULTILINE)


def tablespace_folder(target: Path) -> Path:
    """Where the tablespaces of a restored data directory go by default: beside it."""
    return target.with_name(f"{target.name}.tablespaces")


def spool_folder(target: Path) -> Path:
    """Where WAL is got to ahead of the recovery of a restored data directory: beside it."""
    return target.with_name(f"{target.name}.spool")


def restore_backup(  # noqa: PLR0913 - what to restore, where to, how
    pgbackrest: PgBackRest,
    manifest: Manifest,
    target: Path,
    *,
    tablespaces: Path | Mapping[str, Path] | None = None,
    delta: bool = False,
    on_line: Callable[[str], None] | None = None,
    on_tick: Callable[[], None] | None = None,
) -> None:
    """Restore the files of one backup, with all that it builds on; recovery is left to the caller's settings.

    `tablespaces` is a folder for all (default: `tablespace_folder`), or one for each OID. With `delta` the target may
    hold an older state of the same cluster. pg_control comes last: an interrupted restore cannot be started. Raises
    BackupDamaged, DestinationFull, DestinationUnavailable, StanzaMissing, RepositoryBusy, EngineFailed.
    """
    _refuse_changed(pgbackrest, manifest)
    make_private_dir(target, pgbackrest.user)
    words = [f"--set={manifest.label}", f"--pg1-path={target}", "--type=none"]
    if delta:
        words.append("--delta")
    if isinstance(tablespaces, Mapping):
        words += [f"--tablespace-map={oid}={path}" for oid, path in tablespaces.items()]
    elif manifest.details.get("tablespaces"):
        folder = tablespaces or tablespace_folder(target)
        make_private_dir(folder, pgbackrest.user)
        words.append(f"--tablespace-map-all={folder}")
    try:
        pgbackrest.run(
            "restore",
            *words,
            doing=f"restoring {manifest.label} to {target}",
            level="detail",
            on_line=on_line,
            on_tick=on_tick,
        )
    except StanzaMissing as error:
        # The repository answered a moment ago: what is missing is a file of the backup.
        raise BackupDamaged(error.message, hint="Restore from another backup, and see what removed it.") from error


def check_stored(pgbackrest: PgBackRest, manifests: Sequence[Manifest]) -> list[str]:
    """Have pgBackRest read the whole repository (`verify`), and name what is wrong with these backups.

    A backup is only as good as those whose files it refers to, so their faults are named with it.
    """
    done = pgbackrest.run(
        "verify", "--output=text", "--verbose", doing=f"verifying stanza {pgbackrest.stanza}", level="warn"
    )
    status = {label: f"{word}{rest}" for label, word, rest in _VERIFIED.findall(done.stdout)}
    faults: dict[str, None] = {}
    for manifest in manifests:
        for label in dict.fromkeys([*manifest.details.get("references", []), manifest.label]):
            found = status.get(label)
            if found is None:
                faults[f"{label} is not in the repository of stanza {pgbackrest.stanza}"] = None
            elif not found.startswith("valid"):
                faults[f"{label} is {found}"] = None
    return list(faults)


def _refuse_changed(pgbackrest: PgBackRest, manifest: Manifest) -> None:
    info = read_info(pgbackrest)
    if not info.exists:
        raise StanzaMissing(
            f"there is no stanza {pgbackrest.stanza} in the repository that {pgbackrest.config} names",
            hint="See that the repository is mounted, and that [engines.pgbackrest] names the right one.",
        )
    backup = info.find(manifest.label)
    if backup is None:
        raise BackupDamaged(
            f"pgBackRest's repository does not have {manifest.label} any more",
            hint="Somebody expired it with pgBackRest itself; restore another backup.",
        )
    if info.system_identifier(backup) != manifest.system_identifier:
        raise BackupDamaged(
            f"{manifest.label} in the repository is a backup of the cluster {info.system_identifier(backup)},"
            f" and of {manifest.system_identifier} by its manifest",
            hint="Name the right repository and stanza in [engines.pgbackrest].",
        )
