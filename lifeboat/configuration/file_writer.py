"""Writes files atomically, keeps what they replace, and can undo it all, even from another process after a crash."""

import json
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from lifeboat.configuration.content import FileItem
from lifeboat.configuration.index import ConfigurationError
from lifeboat.configuration.live_files import look_at, open_folder, split_path
from lifeboat.configuration.plan import FileAction
from lifeboat.storage.durable import fsync_directory, make_directories

JOURNAL_NAME = "journal.jsonl"
_KEPT = "kept"
_Step: TypeAlias = dict[str, Any]


class FileWriter:
    """Carries out file actions; replaced files and a journal of every step go to `keep_in`, a folder of mode 0700."""

    def __init__(self, keep_in: Path) -> None:
        self._keep_in = keep_in
        self._steps: list[_Step] = []

    def apply(self, section: str, root: Path, action: FileAction) -> None:
        """Carry out one action. Raises ConfigurationError or OSError; what was done before can still be undone."""
        item = action.item
        for folder in reversed([root, *root.parents]):
            if not folder.exists():
                self._record("made", section, folder, "")
                make_directories(folder)
        if action.action == "remove":
            self._keep(section, root, item)
            self._record("removed", section, root, item.path, written=None)
            _remove(root, item.path)
        elif action.action == "mode":
            old = action.now.mode if action.now is not None else item.mode
            self._record("mode", section, root, item.path, mode=old)
            _change_mode(root, item)
        elif item.kind == "directory":
            self._record("made", section, root, item.path)
            _make_folder(root, item)
        else:
            self._make_parents(section, root, item.path)
            if action.now is not None:
                self._keep(section, root, action.now)
            what = "replaced" if action.now is not None else "created"
            self._record(what, section, root, item.path, written=_identity(item))
            _put(root, item)

    def undo(self) -> None:
        """Bring back what was there before, the last step first."""
        _undo(self._keep_in, self._steps)
        self._steps.clear()

    def _make_parents(self, section: str, root: Path, path: str) -> None:
        parents = split_path(path)[0].split("/") if "/" in path else []
        for depth in range(1, len(parents) + 1):
            parent = "/".join(parents[:depth])
            if look_at(root, parent) is None:
                self._record("made", section, root, parent)
                _make_folder(root, FileItem(parent, "directory", 0o755))

    def _keep(self, section: str, root: Path, item: FileItem) -> None:
        kept = self._keep_in / _KEPT / section / item.path
        make_directories(kept.parent, mode=0o700)
        if item.kind == "link":
            kept.symlink_to(item.target or "")
            fsync_directory(kept.parent)
            return
        now = look_at(root, item.path)
        if now is None or now.kind != "file":
            raise ConfigurationError(f"{root / item.path} changed while it was being replaced", hint="Plan again.")
        _write_new(kept, now.content, now.mode)

    def _record(self, what: str, section: str, root: Path, path: str, **details: int | str | None) -> None:
        """A step is on disk before it is made, so that a crash leaves nothing that cannot be undone."""
        step: _Step = {"what": what, "section": section, "root": str(root), "path": path, **details}
        make_directories(self._keep_in, mode=0o700)
        with (self._keep_in / JOURNAL_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(step) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._steps.append(step)


def undo_files(keep_in: Path) -> int:
    """Undo the file changes whose journal lies in `keep_in`; returns the number of steps. Safe to repeat."""
    lines = (keep_in / JOURNAL_NAME).read_text("utf-8").splitlines()
    steps: list[_Step] = [json.loads(line) for line in lines if line]
    _undo(keep_in, steps)
    return len(steps)


def _undo(keep_in: Path, steps: list[_Step]) -> None:
    for step in reversed(steps):
        root, path = Path(step["root"]), step["path"]
        kept = keep_in / _KEPT / step["section"] / path
        if step["what"] == "made":
            # Somebody may have put something else into the folder since.
            with suppress(OSError):
                (root / path).rmdir()
            continue
        now = look_at(root, path)
        if step["what"] == "mode" and now is not None:
            _change_mode(root, FileItem(path, now.kind, step["mode"]))
        # What somebody has written since is theirs: it is neither overwritten nor removed.
        elif step["what"] != "mode" and _identity(now) == step["written"]:
            if step["what"] == "created":
                _remove(root, path)
            elif kept.is_symlink() or kept.exists():
                _put(root, _kept_item(kept, path))


def _identity(item: FileItem | None) -> str | None:
    return None if item is None else f"{item.kind} {item.record.sha256 or item.target}"


def _kept_item(kept: Path, path: str) -> FileItem:
    if kept.is_symlink():
        return FileItem(path, "link", 0o777, target=os.readlink(kept))
    return FileItem(path, "file", kept.stat().st_mode & 0o7777, kept.read_bytes())


def _put(root: Path, item: FileItem) -> None:
    """Write a file or link under a temporary name, then rename it: the name shows the old or the new, never a part."""
    folder, name = split_path(item.path)
    with open_folder(root, folder) as descriptor:
        if descriptor is None:
            raise ConfigurationError(f"{root / folder} is not there any more", hint="Plan again.")
        temporary = f".{name[:100]}.{uuid.uuid4().hex}.tmp"
        try:
            if item.kind == "link":
                os.symlink(item.target or "", temporary, dir_fd=descriptor)
            else:
                _fill(descriptor, temporary, name, item)
            os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=descriptor)
            raise
        os.fsync(descriptor)


def _fill(descriptor: int, temporary: str, name: str, item: FileItem) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600, dir_fd=descriptor), "wb") as file:
        file.write(item.content)
        file.flush()
        _give_owner(file.fileno(), descriptor, name)
        os.fchmod(file.fileno(), item.mode)
        os.fsync(file.fileno())


def _give_owner(file: int, descriptor: int, name: str) -> None:
    """As root: the owner of what is replaced, or of the folder; the platform must be able to read its own files."""
    if os.geteuid() != 0:
        return
    try:
        found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        found = os.fstat(descriptor)
    os.fchown(file, found.st_uid, found.st_gid)


def _make_folder(root: Path, item: FileItem) -> None:
    folder, name = split_path(item.path)
    with open_folder(root, folder) as descriptor:
        if descriptor is None:
            raise ConfigurationError(f"{root / folder} is not there any more", hint="Plan again.")
        os.mkdir(name, 0o700, dir_fd=descriptor)
        owner = os.fstat(descriptor)
    with open_folder(root, item.path) as made:
        if made is not None:
            if os.geteuid() == 0:
                os.fchown(made, owner.st_uid, owner.st_gid)
            os.fchmod(made, item.mode)
            os.fsync(made)
    fsync_directory(root / folder)


def _change_mode(root: Path, item: FileItem) -> None:
    folder, name = split_path(item.path)
    with open_folder(root, folder) as descriptor:
        if descriptor is not None:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=descriptor)
            try:
                os.fchmod(file, item.mode)
            finally:
                os.close(file)


def _remove(root: Path, path: str) -> None:
    folder, name = split_path(path)
    with open_folder(root, folder) as descriptor:
        if descriptor is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=descriptor)
            os.fsync(descriptor)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    fsync_directory(path.parent)
