"""Names for the exit codes of pgBackRest (its src/build/error/error.yaml), with what it said."""

import re
from collections.abc import Sequence

from lifeboat.commands import CommandFailed
from lifeboat.engines.engine import EngineFailed
from lifeboat.errors import LifeboatError, PermanentError, TransientError
from lifeboat.postgres.connections import AuthenticationFailed, SourceUnavailable
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.destination import DestinationDenied, DestinationFull, DestinationUnavailable
from lifeboat.wal.coverage import WalNotArchived


class RepositoryBusy(TransientError):
    """Another pgBackRest command holds the stanza's lock."""


class RepositoryMismatch(PermanentError):
    """The repository belongs to another cluster than the server."""


class StanzaMissing(PermanentError):
    """The repository has no stanza of the name, or is not there."""


class LabelNotLater(EngineFailed):
    """A backup's label would sort before that of another, which may be gone by now."""


class LastFullBackup(PermanentError):
    """PgBackRest does not expire the only full backup of a cluster."""


class RepositoryStopped(PermanentError):
    """An administrator has stopped pgBackRest on this host (`pgbackrest stop`)."""


class RepositoryUndecipherable(PermanentError):
    """What is in the repository cannot be decrypted: damaged, or of another passphrase."""


class ArchivingNotSet(PermanentError):
    """The server does not archive its WAL with pgBackRest."""


STANZA_HINT = (
    "See that the repository is mounted and that [engines.pgbackrest] names the right one. `lifeboat wal install` or"
    " the first backup makes it; in the place of one that is lost, `lifeboat pgbackrest create` does."
)
_Named = tuple[type[LifeboatError], str]
_BY_TEXT: Sequence[tuple[str, _Named]] = (
    (
        r"No space left on device|Disk quota exceeded",
        (DestinationFull, "Free space at the repository, or let retention expire backups (`lifeboat retention plan`)."),
    ),
    (
        r"password authentication failed|no password supplied|no pg_hba\.conf entry|[Pp]eer authentication failed"
        r"|role \".*\" does not exist|permission denied for function",
        (AuthenticationFailed, "Correct `platform.dsn`, or give its role the rights that `lifeboat doctor` lists."),
    ),
    (
        r"ArchiveMismatchError|BackupMismatchError|do(?:es)? not match (?:the database|repo\d|stanza)",
        (RepositoryMismatch, "Name the right repository and stanza in [engines.pgbackrest]."),
    ),
    (
        r"Permission denied",
        (DestinationDenied, "The account that pgBackRest runs as needs the right to read the data and write there."),
    ),
    (
        r"has a stanza-create been performed|stanza-create must be performed",
        (StanzaMissing, STANZA_HINT),
    ),
)
# The same words, where a command works at another place.
_BY_COMMAND: dict[str, Sequence[tuple[str, _Named]]] = {
    "restore": [
        (
            r"No space left on device|Disk quota exceeded",
            (DestinationFull, "Free space where the data directory is restored to, or restore to another place."),
        )
    ],
    "backup": [
        (
            r"new backup label '.*' is not later than",
            (LabelNotLater, "Take a full backup, and look at the host's clock."),
        ),
    ],
    "expire": [
        (r"cannot be expired until another full backup", (LastFullBackup, "Take another full backup; then it goes.")),
    ],
}
_BY_CODE: dict[int, _Named] = {
    26: (BackupDamaged, "Restore from another backup, and look at the repository's disks."),
    28: (RepositoryMismatch, "See whose repository it is: `pgbackrest info`."),
    29: (BackupDamaged, "Restore from another backup, and look at the repository's disks."),
    44: (RepositoryMismatch, "Name the right repository and stanza in [engines.pgbackrest]."),
    46: (EngineFailed, "This pgBackRest does not know the server's version: install a newer one."),
    49: (DestinationUnavailable, "See whether the repository's host answers."),
    50: (RepositoryBusy, "Let the other command end, or look for it with `pgbackrest info`."),
    51: (RepositoryMismatch, "Name the right repository and stanza in [engines.pgbackrest]."),
    55: (StanzaMissing, STANZA_HINT),
    56: (SourceUnavailable, "See whether the server runs and answers: `lifeboat doctor` checks the connection."),
    58: (RepositoryMismatch, "See which server `platform.dsn` names, and which data directory that one has."),
    62: (RepositoryStopped, "Allow it again with `pgbackrest --stanza=… start`."),
    63: (RepositoryBusy, "It was told to end; run it again."),
    68: (ArchivingNotSet, "Set the server's archive_command as `lifeboat doctor` shows it."),
    75: (BackupDamaged, "The repository does not have it any more: `pgbackrest info` lists what it has."),
    82: (WalNotArchived, "The server's log has archive_command's error; see pg_stat_archiver."),
    87: (ArchivingNotSet, "Set archive_mode = on and the server's archive_command, and restart it."),
    95: (
        RepositoryUndecipherable,
        "Compare `engines.pgbackrest.cipher_passphrase` with the repository's, then its disks.",
    ),
    101: (DestinationUnavailable, "The repository's store answers with an error of its own: try again later."),
    103: (StanzaMissing, STANZA_HINT),
}
_ERROR = re.compile(r"ERROR: \[\d+\]: (.*?)(?=^(?:P\d+ +)?(?:INFO|WARN|ERROR|DETAIL)|\Z)", re.DOTALL | re.MULTILINE)


def name_failure(failure: CommandFailed, doing: str, command: str = "") -> LifeboatError:
    """The error that stands for a failed `command`; EngineFailed where its exit code is not a known one."""
    said = _said(failure)
    message = f"{doing} failed: {said}"
    for pattern, (kind, hint) in (*_BY_COMMAND.get(command, ()), *_BY_TEXT):
        if re.search(pattern, said):
            return kind(message, hint=hint)
    kind, hint = _BY_CODE.get(failure.returncode, (EngineFailed, "The whole output is in the flow run's log."))
    return kind(message, hint=hint)


def _said(failure: CommandFailed) -> str:
    if failure.returncode < 0:
        return f"pgbackrest was killed by signal {-failure.returncode}"
    found = _ERROR.search(failure.stderr_tail)
    text = found[1] if found else failure.stderr_tail
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " / ".join(lines[:6]) or f"exit code {failure.returncode}, no message"
