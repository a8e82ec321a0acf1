"""The folder that a restored data directory grows in, beside where it will be: nothing half made bears its name.

`<target>.unfinished/` holds `restore.json`, the journal, the server's log, and `data/`, which is renamed to the target
in the end. A killed restore leaves that folder; the next one for the same target finishes or clears it.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lifeboat.errors import PermanentError, SettingsError, TransientError
from lifeboat.postgres import postmaster
from lifeboat.postgres.folders import check_reachable, give_to, make_private_dir
from lifeboat.postgres.restoring import DATA_NAME, LOCK_NAME, UNFINISHED_SUFFIX
from lifeboat.storage.durable import fsync_directory, write_durably

_JOURNAL = "restore.json"
_LOCK = LOCK_NAME
_TAIL = "tail"
# What a restore puts there, by the first part of its name; the empty one is a temporary file of a killed write.
_KNOWN = frozenset({"", "restore", _LOCK, DATA_NAME, _TAIL})


class RestoreUnderWay(TransientError):
    """Another process restores to the same place."""


class PlaceTaken(SettingsError):
    """The target is not an empty place."""


class Step(StrEnum):
    """How far a restore has come; OVER writes into the old data directory, which is lost from then on."""

    BUILDING = "building"
    OVER = "over"
    READY = "ready"


@dataclass
class Journal:
    """What is known of a restore that has begun: enough for another process to finish it or to clear it away.

    `control` is the SHA-256 of the restored pg_control: it changes as soon as a server is started there. Of a restore
    over the old data it is that of theirs, until they are known to be written over; `sockets` is the folder of the
    isolated server that is started there then.
    """

    order: str
    step: Step = Step.BUILDING
    made: tuple[str, ...] = ()
    kept: str | None = None
    control: str | None = None
    sockets: str | None = None
    report: dict[str, Any] | None = None


@dataclass
class Place:
    """A held folder, and the target beside it."""

    target: Path
    folder: Path
    user: str | None
    journal: Journal | None

    @property
    def data_dir(self) -> Path:
        """Where the data directory grows."""
        return self.folder / DATA_NAME

    @property
    def tail_dir(self) -> Path:
        """Where the WAL is saved that only the old data directory holds."""
        return self.folder / _TAIL

    @property
    def saved_tail(self) -> Path | None:
        """That folder, where something was saved."""
        return self.tail_dir if self.tail_dir.is_dir() and any(self.tail_dir.iterdir()) else None

    @property
    def is_in_place(self) -> bool:
        """Whether the target is what was restored, and no server was started there since."""
        return (
            not self.data_dir.exists() and self.journal is not None and self.journal.control == control_of(self.target)
        )

    @property
    def is_written_over(self) -> bool:
        """Whether a restore has written over the old data, and what is there now is its own.

        pgBackRest removes pg_control before it changes anything, and brings it back last, beside a backup_label: until
        then the old data are whole, and their server may have been started again.
        """
        journal = self.journal
        if journal is None or journal.step is not Step.OVER or self._runs_by_itself(journal):
            return False
        control = control_of(self.target)
        if journal.control is None or control is None:
            return True
        return control != journal.control and (self.target / "backup_label").is_file()

    @property
    def is_used_since(self) -> bool:
        """Whether somebody has started a server on the data that a restore has written over."""
        journal = self.journal
        return (
            journal is not None
            and journal.step is Step.OVER
            and journal.control is None
            and self._runs_by_itself(journal)
        )

    def _runs_by_itself(self, journal: Journal) -> bool:
        if postmaster.running_pid(self.target) is None:
            return False
        return journal.sockets is None or postmaster.socket_folder(self.target) != Path(journal.sockets)

    @property
    def is_bare(self) -> bool:
        """Whether the target is not there, or an empty folder that somebody has made since."""
        return not self.target.exists() or (self.target.is_dir() and not any(self.target.iterdir()))

    @property
    def old_is_moved(self) -> bool:
        """Whether the old data are under the name that they are kept as."""
        return self.journal is not None and self.journal.kept is not None and Path(self.journal.kept).is_dir()

    @property
    def is_proven(self) -> bool:
        """Whether a restore came so far that what it made only has to be put in its place."""
        journal = self.journal
        return journal is not None and journal.step is Step.READY and journal.report is not None

    def only_has_to_finish(self, key: str) -> bool:
        """Whether what a killed restore of an order of that key had proven only has to be put in its place."""
        if self.journal is None or not self.is_proven or self.journal.order != key:
            return False
        return self.is_between_renames or self.is_in_place

    @property
    def is_between_renames(self) -> bool:
        """Whether the old data are moved away already, and the restored ones not there yet."""
        return self.old_is_moved and self.data_dir.is_dir() and self.is_bare

    def write(self, journal: Journal) -> None:
        """Have the journal on disk."""
        write_durably(self.folder / _JOURNAL, json.dumps(vars(journal), indent=2).encode() + b"\n", mode=0o600)
        self.journal = journal

    def clear(self) -> None:
        """Remove what a restore has made so far, the server in it too; the journal goes last.

        Raises PlaceTaken once the old data are moved: what was made may be all that leads on from them.
        """
        self.refuse_moved()
        postmaster.end_servers_in(self.folder)
        for made in map(Path, self.journal.made if self.journal else ()):
            if made.is_dir():
                _empty(made)
                with suppress(OSError):  # a mount point stays
                    made.rmdir()
                    if made.parent.name.startswith(f"{self.target.name}.tablespaces"):
                        made.parent.rmdir()
        _empty(self.folder, {_LOCK, _JOURNAL})
        (self.folder / _JOURNAL).unlink(missing_ok=True)
        self.journal = None

    def refuse_moved(self) -> None:
        """Raise PlaceTaken once the old data are moved: what was made may be all that leads on from them."""
        if self.journal is not None and self.old_is_moved:
            raise PlaceTaken(
                f"an interrupted restore has moved the old data of {self.target} to {self.journal.kept} and what it "
                f"had restored is in {self.data_dir}, but {self.target} holds something else now",
                hint="Move that away, then run the interrupted restore again: it only has to be put in its place.",
            )

    def put_in_place(self, old_to: Path | None = None) -> None:
        """Two renames, or one: the old data directory to `old_to`, the restored one to the target; durable.

        May be called again after it was interrupted anywhere.
        """
        if self.data_dir.is_dir():
            if old_to is not None and self.target.is_dir() and any(self.target.iterdir()):
                if old_to.exists():
                    raise PermanentError(
                        f"{old_to} holds the old data already, and {self.target} is there again",
                        hint=f"Somebody made a new one meanwhile: move {self.target} away, then run this again.",
                    )
                self.target.rename(old_to)
                fsync_directory(self.target.parent)
            self.data_dir.rename(self.target)
        fsync_directory(self.target.parent)

    def leave(self) -> None:
        """The restore is done: the folder goes, its journal last."""
        for path in sorted(self.folder.iterdir(), key=lambda each: each.name in {_JOURNAL, _LOCK}):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self.folder.rmdir()
        fsync_directory(self.folder.parent)


def _empty(folder: Path, but: Collection[str] = ()) -> None:
    for path in folder.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def hold_place(target: Path, user: str | None) -> Iterator[Place]:
    """Hold the folder beside `target`, made if it is not there.

    Raises PlaceTaken, RestoreUnderWay, FolderUnreachable.
    """
    folder = target.with_name(target.name + UNFINISHED_SUFFIX)
    if not target.parent.is_dir():
        raise PlaceTaken(f"there is no folder {target.parent}", hint="Make it first, on the volume that is meant.")
    check_reachable(target.parent, user)
    existed = folder.is_dir()
    if existed and not {path.name.partition(".")[0] for path in folder.iterdir()} <= _KNOWN:
        raise PlaceTaken(f"{folder} holds something that no restore has put there", hint="Move it away.")
    try:
        make_private_dir(folder, user)
    except OSError as error:
        raise PlaceTaken(
            f"{folder} cannot be made: {error.strerror}", hint="Choose a place that this account may write to."
        ) from error
    descriptor = _locked(folder, target)
    try:
        place = Place(target, folder, user, _read(folder / _JOURNAL))
        give_to(folder / _LOCK, user)
        try:
            yield place
        finally:
            if place.journal is None and folder.is_dir() and {path.name for path in folder.iterdir()} <= {_LOCK}:
                place.leave()
    finally:
        os.close(descriptor)


def _locked(folder: Path, target: Path) -> int:
    path, descriptor = folder / _LOCK, -1
    with suppress(BlockingIOError, FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever held it may have removed it since it was opened: a lock on that file keeps nobody out.
        if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
            return descriptor
    if descriptor >= 0:
        os.close(descriptor)
    raise RestoreUnderWay(
        f"another process restores to {target}", hint="Wait until it has ended, or restore elsewhere."
    )


def control_of(data_dir: Path) -> str | None:
    """The SHA-256 of a data directory's pg_control, None where there is none."""
    path = data_dir / "global" / "pg_control"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def interrupted_over(target: Path) -> Path | None:
    """The saved tail of WAL (a folder, or nothing there) of a killed restore that wrote over the old data."""
    place = interrupted_place(target)
    return place.tail_dir if place is not None and place.is_written_over else None


def interrupted_place(target: Path) -> Place | None:
    """What a killed restore to `target` has left, to be looked at only; None where there is nothing."""
    folder = target.with_name(target.name + UNFINISHED_SUFFIX)
    journal = _read(folder / _JOURNAL)
    return Place(target, folder, None, journal) if journal is not None else None


def refuse_interrupted(place: Place, key: str, *, discards: bool, in_place: bool) -> None:
    """Raise PlaceTaken where what a killed restore has left must not be cleared away for an order of that key.

    `discards` is whether that may write over the old data, `in_place` whether it replaces any.
    """
    target, journal = place.target, place.journal
    if place.is_written_over:
        if discards:
            return
        raise PlaceTaken(
            f"an interrupted restore has written over the data in {target}: there is nothing to be kept",
            hint="Run it again with --discard-old.",
        )
    if place.is_used_since and place.saved_tail is not None:
        raise PlaceTaken(
            f"an interrupted restore has written over the data in {target}, and a server runs there now;"
            f" {place.tail_dir} has the last WAL of the old data",
            hint="Stop that server and run the interrupted restore again; or, if its data are right, move"
            f" {place.folder} away.",
        )
    if in_place and place.is_bare and place.saved_tail is not None and not place.is_between_renames:
        raise PlaceTaken(
            f"an interrupted restore began with data in {target} that are gone; {place.folder} has WAL of theirs",
            hint=f"Move the old data back to {target}; or, if they are to be lost, move {place.folder} away.",
        )
    if place.is_proven and place.is_between_renames and journal is not None and journal.order != key:
        raise PlaceTaken(
            f"an interrupted restore of {target} ({journal.order}) has to be finished first",
            hint="Run it again with the same target: it only has to be put in its place.",
        )
    if place.data_dir.exists() and not place.is_between_renames:
        place.refuse_moved()


def interrupted_tail(target: Path) -> Path | None:
    """The tail of WAL that a killed restore has saved, where the old data are no longer in their place."""
    place = interrupted_place(target)
    if place is None or place.journal is None:
        return None
    return place.saved_tail if place.is_written_over or place.is_between_renames else None


def left_by_interrupted(target: Path, key: str) -> tuple[str, ...]:
    """Notes for the plan of an order of that key, on what a killed restore to `target` has left."""
    place = interrupted_place(target)
    if place is None or place.journal is None:
        return ()
    if place.only_has_to_finish(key):
        use = "which is proven and only has to be put in its place: nothing is restored again"
    elif place.is_written_over:
        use = "of which this one uses the saved WAL"
    else:
        use = "which this one clears away"
    return (f"an interrupted restore ({place.journal.order}) has left {place.folder}, {use}",)


def made_before(target: Path) -> tuple[str, ...]:
    """The folders that an interrupted restore to `target` has made elsewhere."""
    journal = _read(target.with_name(target.name + UNFINISHED_SUFFIX) / _JOURNAL)
    return journal.made if journal is not None else ()


def refuse_taken(target: Path) -> None:
    """Raise PlaceTaken unless `target` is absent or an empty folder that can be replaced by a rename."""
    if not target.is_absolute():
        raise PlaceTaken(f"{target} is not an absolute path", hint="Write `new:/path/of/the/data/directory`.")
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise PlaceTaken(f"{target} is not empty", hint="Name a folder that is empty or not there yet.")
    if os.path.ismount(target):
        raise PlaceTaken(
            f"{target} is a mount point, which a data directory should not be",
            hint=f"Name a folder in it: `new:{target}/data`.",
        )


def _read(path: Path) -> Journal | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_bytes())
        return Journal(**{**values, "step": Step(values["step"]), "made": tuple(values["made"])})
    except (ValueError, KeyError, TypeError) as error:
        raise PermanentError(
            f"cannot understand the journal {path}: {error}",
            hint="It was written by another version: look at the folder, then move it away.",
        ) from error
