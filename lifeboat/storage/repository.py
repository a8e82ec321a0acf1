"""The backups of one cluster at one destination: `<cluster>/<label>/`, payload first, `manifest.json` last.

A folder without a manifest is an unfinished backup. A folder with `expired.json` instead is what an expired backup
leaves: its manifest and events, so that the catalog can be rebuilt.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO

from lifeboat.storage.destination import Destination, ObjectMissing
from lifeboat.storage.events import BackupState, Event, decode_event, encode_event
from lifeboat.storage.labels import is_label
from lifeboat.storage.manifest import (
    MANIFEST_NAME,
    SIGNATURE_SUFFIX,
    BackupType,
    Manifest,
    ManifestError,
    decode_manifest,
    encode_manifest,
)
from lifeboat.storage.signed_objects import put_signed, read_signed
from lifeboat.storage.signing import Signer, TrustedKeys
from lifeboat.storage.unfinished import (
    UnfinishedBackup,
    hold_left_behind,
    stage_backup,
    stage_label,
    wait_for_free_second,
)

EXPIRED_NAME = "expired.json"
EVENTS_FOLDER = "events"
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class StoredBackup:
    """A finished backup as storage has it: manifest, what its events add up to, and the manifest's own SHA-256."""

    manifest: Manifest
    state: BackupState
    manifest_sha256: str


@dataclass(frozen=True)
class BackupRepository:
    """Reads and writes the backups of `cluster` at `destination`; every manifest and event is signed and checked."""

    destination: Destination
    cluster: str
    signer: Signer | None
    trusted: TrustedKeys

    def key(self, label: str, name: str = "") -> str:
        """The destination's key of an object of a backup."""
        return f"{self.cluster}/{label}/{name}" if name else f"{self.cluster}/{label}"

    def begin(self, kind: BackupType, started_at: datetime, parent_label: str | None = None) -> UnfinishedBackup:
        """Reserve the next free label and its staged folder; the clock's second is moved on where it is taken."""
        return stage_backup(self.destination, self.cluster, kind, started_at, parent_label)

    def begin_label(self, label: str, started_at: datetime) -> UnfinishedBackup:
        """Stage the folder of a backup whose label a tool has given; raises FileExistsError when it is taken."""
        return stage_label(self.destination, self.cluster, label, started_at)

    def wait_for_free_second(self) -> None:
        """Before a tool chooses a label by its clock: wait, at most two minutes, until no folder has this second."""
        wait_for_free_second(self._folders())

    def relabel(self, backup: UnfinishedBackup, label: str) -> None:
        """Give an unfinished backup the label that its tool has chosen; raises FileExistsError when it is taken."""
        if backup.label != label:
            backup.move_to(self.begin_label(label, backup.started_at))

    def publish(self, backup: UnfinishedBackup, manifest: Manifest) -> str:
        """Make the backup a finished one and return the manifest's SHA-256: signature, then manifest, all durable."""
        data = encode_manifest(manifest)
        self._put_signed(self.key(backup.label, MANIFEST_NAME), data, exclusive=True)
        backup.published = True
        backup.release()
        return hashlib.sha256(data).hexdigest()

    def labels(self) -> list[str]:
        """The labels of all finished backups, oldest first."""
        return [label for label in self._folders() if self._has(label, MANIFEST_NAME)]

    def expired_labels(self) -> list[str]:
        """The labels of backups that retention has expired."""
        return [label for label in self._folders() if self._has(label, EXPIRED_NAME)]

    def unfinished_labels(self) -> list[str]:
        """The labels of folders that are no finished and no expired backup."""
        done = (MANIFEST_NAME, EXPIRED_NAME)
        return [label for label in self._folders() if not any(self._has(label, name) for name in done)]

    def manifest(self, label: str) -> Manifest:
        """The manifest of a finished backup; raises ManifestError, ObjectMissing."""
        return self.load(label).manifest

    def load(self, label: str, *, name: str = MANIFEST_NAME) -> StoredBackup:
        """Manifest and state of a backup; raises ManifestError when it is damaged or not signed by a trusted key."""
        key = self.key(label, name)
        data = self._read_signed(key, self.key(label, MANIFEST_NAME))
        manifest = decode_manifest(data, where=key)
        if manifest.label != label or manifest.cluster != self.cluster:
            raise ManifestError(f"the manifest {key} describes {manifest.cluster}/{manifest.label}")
        return StoredBackup(manifest, BackupState.of(self.events(label)), hashlib.sha256(data).hexdigest())

    def backups(self) -> list[StoredBackup]:
        """All finished backups, oldest first; raises ManifestError at the first that cannot be trusted."""
        return [self.load(label) for label in self.labels()]

    def sound_backups(self, on_fault: Callable[[ManifestError | ObjectMissing], None]) -> list[StoredBackup]:
        """As `backups`, but one that cannot be trusted is told to `on_fault` and hides no other."""
        found = []
        for label in self.labels():
            try:
                found.append(self.load(label))
            except (ManifestError, ObjectMissing) as error:
                on_fault(error)
        return found

    def expired(self) -> list[StoredBackup]:
        """What is left of expired backups."""
        return [self.load(label, name=EXPIRED_NAME) for label in self.expired_labels()]

    def chain(self, label: str) -> list[Manifest]:
        """The backups that a restore of `label` needs, the full one first; raises ObjectMissing when one is gone."""
        manifests = [self.manifest(label)]
        while (parent := manifests[0].parent_label) is not None:
            manifests.insert(0, self.manifest(parent))
        return manifests

    def open_object(self, label: str, name: str) -> BinaryIO:
        """A stream over one payload object."""
        return self.destination.open(self.key(label, name))

    def check_objects(self, manifest: Manifest, on_bytes: Callable[[int], None] | None = None) -> Iterator[str]:
        """Read every payload object and yield a sentence for each that is missing, short or changed.

        `on_bytes` is told how many bytes more were read.
        """
        for item in manifest.objects:
            try:
                with self.open_object(manifest.label, item.name) as stream:
                    size, digest = hash_stream(stream, on_bytes)
            except ObjectMissing:
                yield f"{manifest.label}/{item.name} is missing"
                continue
            if size != item.size_bytes:
                yield f"{manifest.label}/{item.name} has {size:,} bytes instead of {item.size_bytes:,}"
            elif digest != item.sha256:
                yield f"{manifest.label}/{item.name} has changed: its SHA-256 is not the manifest's"

    def append_event(self, event: Event) -> None:
        """Store a fact about a backup, durably."""
        key = self.key(event.label, f"{EVENTS_FOLDER}/{event.object_name()}")
        self._put_signed(key, encode_event(event), exclusive=True)

    def events(self, label: str) -> list[Event]:
        """The facts stored about a backup, oldest first; raises ManifestError when one is not signed."""
        folder = self.key(label, EVENTS_FOLDER)
        keys = [f"{folder}/{name}" for name in self.destination.names(folder) if name.endswith(".json")]
        found = [decode_event(self._read_signed(key, key), where=key) for key in keys]
        if any(event.label != label for event in found):
            raise ManifestError(f"{folder} holds an event of another backup")
        return found

    def expire(self, label: str) -> None:
        """Take a backup away: first it stops being one, then its payload goes; a repeated call finishes the work."""
        if self._has(label, MANIFEST_NAME):
            self.destination.rename(self.key(label, MANIFEST_NAME), self.key(label, EXPIRED_NAME))
        for name in self.leftovers(label):
            self.destination.delete_folder(self.key(label, name))

    def leftovers(self, label: str) -> list[str]:
        """What is in an expired backup's folder beside its manifest and events."""
        kept = {EXPIRED_NAME, MANIFEST_NAME + SIGNATURE_SUFFIX, EVENTS_FOLDER}
        return [name for name in self.destination.names(self.key(label)) if name not in kept]

    def remove_unfinished(self, label: str) -> bool:
        """Remove an unfinished folder, unless a living process still writes it; says whether it went."""
        with hold_left_behind(self.destination, self.key(label)) as left_behind:
            # Looked at only under the hold: before, its writer may have been about to publish. A folder with events
            # was a backup once, and has lost its manifest: that is for somebody to look at.
            done = (MANIFEST_NAME, EXPIRED_NAME, EVENTS_FOLDER)
            if not left_behind or any(self._has(label, name) for name in done):
                return False
            self.destination.delete_folder(self.key(label))
            return True

    def _folders(self) -> list[str]:
        return [name for name in self.destination.names(self.cluster) if is_label(name)]

    def _has(self, label: str, name: str) -> bool:
        return self.destination.exists(self.key(label, name))

    def _put_signed(self, key: str, data: bytes, *, exclusive: bool) -> None:
        put_signed(self.destination, self.signer, key, data, exclusive=exclusive)

    def _read_signed(self, key: str, signed_key: str) -> bytes:
        return read_signed(self.destination, self.trusted, key, signed_key)


def hash_stream(stream: BinaryIO, on_bytes: Callable[[int], None] | None = None) -> tuple[int, str]:
    """Size in bytes and SHA-256 of a stream, in bounded memory; `on_bytes` is told of each block."""
    digest, size = hashlib.sha256(), 0
    while block := stream.read(_BLOCK_BYTES):
        digest.update(block)
        size += len(block)
        if on_bytes is not None:
            on_bytes(len(block))
    return size, digest.hexdigest()
