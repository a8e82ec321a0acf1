"""PostgreSQL's own manifest of a base backup (documentation: "Backup Manifest Format", versions 1 and 2)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifeboat.errors import PermanentError

MANIFEST_NAME = "backup_manifest"
_VERSIONS = (1, 2)
_LAST_LINE = b'"Manifest-Checksum"'


class BackupManifestDamaged(PermanentError):
    """PostgreSQL's backup manifest is unreadable or fails its own checksum."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"the backup manifest {path} is damaged: {what}",
            hint="Nothing in this backup can be checked against it; take it for lost unless another copy is whole.",
        )


@dataclass(frozen=True)
class ManifestFile:
    """One file as it was sent: size in bytes; `checksum` in lower-case hex, None where none was taken."""

    size_bytes: int
    algorithm: str
    checksum: str | None


@dataclass(frozen=True)
class BackupManifest:
    """The files of a base backup by path in the data directory; an incremental's INCREMENTAL.* under these names."""

    files: dict[str, ManifestFile]
    system_identifier: int | None


def read_backup_manifest(path: Path) -> BackupManifest:
    """Read and check a backup_manifest. Raises BackupManifestDamaged, OSError."""
    data = path.read_bytes()
    _check_own_checksum(path, data)
    try:
        content = json.loads(data)
        version = content["PostgreSQL-Backup-Manifest-Version"]
        if version not in _VERSIONS:
            raise BackupManifestDamaged(path, f"its version {version} is not known")
        files = dict(_file(entry) for entry in content["Files"])
        if len(files) != len(content["Files"]):
            raise BackupManifestDamaged(path, "it lists a file twice")
        return BackupManifest(files, content.get("System-Identifier"))
    except (ValueError, KeyError, TypeError) as error:
        raise BackupManifestDamaged(path, f"it is not what the format says ({error!r})") from error


def _check_own_checksum(path: Path, data: bytes) -> None:
    # The checksum covers all bytes before the last line, which holds it.
    head, separator, last = data.rstrip(b"\n").rpartition(b"\n")
    if not separator or not last.startswith(_LAST_LINE):
        raise BackupManifestDamaged(path, "its end is missing")
    said = last.removeprefix(_LAST_LINE).strip(b': "}').decode("ascii", "replace")
    if hashlib.sha256(head + separator).hexdigest() != said.lower():
        raise BackupManifestDamaged(path, "its own checksum differs")


def _file(entry: dict[str, Any]) -> tuple[str, ManifestFile]:
    if "Path" in entry:
        name = str(entry["Path"])
    else:  # a name that is not UTF-8, in hex
        name = bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")
    algorithm, checksum = entry.get("Checksum-Algorithm", "NONE"), entry.get("Checksum")
    size = int(entry["Size"])
    return name, ManifestFile(size, str(algorithm), str(checksum).lower() if checksum is not None else None)
