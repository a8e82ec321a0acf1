"""What our manifest says of a backup in pgBackRest's repository, and how stock pgBackRest restores it."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifeboat.engines.backup_end import stop_of_second
from lifeboat.engines.engine import Taken
from lifeboat.engines.pgbackrest.configuration import REPOSITORY_FOLDER, Folders
from lifeboat.engines.pgbackrest.info import BackupInfo, StanzaInfo
from lifeboat.engines.restore_steps import start_cut_off
from lifeboat.storage.manifest import RestoreStep

ENGINE = "pgbackrest"
ID_ANNOTATION = "lifeboat-id"
# Why the run that took it has failed, on a backup that pgBackRest would not take away.
FAILED_ANNOTATION = "lifeboat-failed"
BAD_PAGES = "the source has pages with wrong checksums, which are in the backup as they are"


@dataclass(frozen=True)
class Whereabouts:
    """Which repository and stanza a backup is in, and what a reader of it needs."""

    folders: Folders
    stanza: str
    cipher_type: str
    cluster_folder: Path | None

    @property
    def repository_word(self) -> str:
        """The repository in a shell command where `$REPOSITORY` is the cluster's folder at the destination."""
        if self.cluster_folder is not None and self.folders.repository == self.cluster_folder / REPOSITORY_FOLDER:
            return f'"$REPOSITORY/{REPOSITORY_FOLDER}"'
        return shlex.quote(str(self.folders.repository))


def describe_backup(  # noqa: PLR0913 - where it is, what pgBackRest says, and what only the server or settings say
    where: Whereabouts,
    info: StanzaInfo,
    backup: BackupInfo,
    *,
    superuser: str,
    pg_version: str,
    compression: str,
    holds_wal: bool = False,
) -> Taken:
    """The facts of one backup; `backup` was asked for by its label, so that its tablespaces are there.

    `holds_wal` says that the WAL it needs is known to be in it, and not in the archive alone.
    """
    tablespaces = {str(item.oid): item.destination for item in backup.tablespace or []}
    major = pg_version.partition(".")[0]
    details: dict[str, Any] = {
        "repository": str(where.folders.repository),
        "stanza": where.stanza,
        "label": backup.label,
        "repository_bytes": backup.info.repository.delta,
        "cluster_bytes": backup.info.size,
        "tablespaces": tablespaces,
        "chain": info.chain(backup.label),
        "references": sorted(backup.reference or []),
        "superuser": superuser,
        "pgbackrest_version": backup.backrest.version,
        "page_checksum_errors": bool(backup.error),
        "holds_wal": holds_wal,
    }
    return Taken(
        engine=ENGINE,
        type=backup.type.backup_type,
        pg_version=pg_version,
        system_identifier=info.system_identifier(backup),
        compression=compression,
        # The version that took it surely reads it; an older one may not know the server's version or an option.
        tools={"postgres": major, "pgbackrest": backup.backrest.version},
        restore=restore_steps(where, backup.label, tablespaces),
        timeline=backup.timeline,
        start_lsn=backup.lsn.start if backup.lsn else None,
        stop_lsn=backup.lsn.stop if backup.lsn else None,
        # The primary's clock, asked after the stop, in whole seconds (backupStop, backup.c).
        stopped_at=stop_of_second(backup.completed_at),
        details=details,
        label=backup.label,
    )


def restore_steps(where: Whereabouts, label: str, tablespaces: Mapping[str, str]) -> list[RestoreStep]:
    """The restore with pgbackrest and pg_ctl alone, to be run by the account that will own the server.

    `$REPOSITORY` is the cluster's folder at the destination, `$TARGET` a new data directory, `$SOCKET` a folder for
    the server's socket, `$TABLESPACES` a folder for tablespaces. The server starts cut off: no archiving, no TCP.
    """
    words = [
        "TZ=UTC pgbackrest --no-config",
        f"--stanza={shlex.quote(where.stanza)}",
        f"--repo1-path={where.repository_word}",
        '--pg1-path="$TARGET"',
        '--lock-path="$TARGET.lock" --log-level-file=off --log-level-console=warn',
        f"--set={label} --type=immediate --target-action=promote",
    ]
    steps = []
    if where.cipher_type != "none":
        words.append(f"--repo1-cipher-type={where.cipher_type}")
        steps.append(
            RestoreStep(
                title="Give pgBackRest the repository's passphrase in the variable PGBACKREST_REPO1_CIPHER_PASS",
                commands=['[ -n "$PGBACKREST_REPO1_CIPHER_PASS" ]'],
            )
        )
    for oid, location in tablespaces.items():
        # By OID: a tablespace's name may have characters that a shell or a path would mind.
        words.append(f'--tablespace-map={oid}="$TABLESPACES/{oid}"')
        steps.append(
            RestoreStep(
                title=f"Make a folder for tablespace {oid} (it was at {location}) where you want it",
                commands=[f'mkdir -p "$TABLESPACES/{oid}" && chmod 700 "$TABLESPACES/{oid}"'],
            )
        )
    return [
        *steps,
        RestoreStep(
            title=f"Restore {label} and all that it builds on",
            commands=['mkdir -p "$TARGET" && chmod 700 "$TARGET"', " ".join([*words, "restore"])],
        ),
        start_cut_off(),
    ]
