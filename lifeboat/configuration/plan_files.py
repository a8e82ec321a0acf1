"""Plans the changes of one folder: archived files against what lies there now."""

import hashlib
from collections.abc import Collection
from pathlib import Path

from lifeboat.configuration.content import FileItem, FilesSection
from lifeboat.configuration.export import folder_reader
from lifeboat.configuration.index import Finding
from lifeboat.configuration.live_files import look_at
from lifeboat.configuration.plan import FileAction, FilesPlan
from lifeboat.configuration.redaction import Redactor
from lifeboat.settings.configuration import ConfigurationSettings, FolderSection

# The bits that let a program act as another account are not given by an archive.
SET_ID_BITS = 0o6000


class FilesPlanner:
    """Plans one section of files; `notes` tell what is left alone, and why.

    `left_out` are paths that were there when the archive was written and are not in it: they are never removed.
    """

    def __init__(self, name: str, archived: FilesSection, root: Path, left_out: Collection[str] = ()) -> None:
        self._name, self._archived, self._root, self._left_out = name, archived, root, left_out
        self._digest = hashlib.sha256(str(root).encode())
        self._unchanged_count = 0
        self.notes: list[Finding] = []

    @property
    def live_digest(self) -> str:
        """Stands for every live file that the plan depends on."""
        return self._digest.hexdigest()

    def plan(self, settings: ConfigurationSettings, section: FolderSection, *, prune: bool) -> FilesPlan:
        """The changes; with `prune` also what the section takes in and the archive has not."""
        actions = [action for item in self._archived.files if (action := self._action(item)) is not None]
        if prune:
            actions += self._removals(settings, section)
        return FilesPlan(self._name, self._root, tuple(actions), self._unchanged_count)

    def _action(self, item: FileItem) -> FileAction | None:
        now = look_at(self._root, item.path)
        self._digest.update(f"{item.path} {now.record.model_dump_json() if now is not None else '-'}\n".encode())
        wanted = item if now == item else self._safe(item)
        if now == wanted:
            self._unchanged_count += 1
            return None
        if now is None:
            return FileAction("write", wanted, None)
        if (now.kind == "directory") != (wanted.kind == "directory"):
            problem = f"is a {now.kind} now and was a {wanted.kind}: it is left alone"
            self._note(item.path, problem, "Move it away and apply again.")
            return None
        same = (now.kind, now.content, now.target) == (wanted.kind, wanted.content, wanted.target)
        return FileAction("mode" if same else "write", wanted, now)

    def _safe(self, item: FileItem) -> FileItem:
        if item.kind != "file" or not item.mode & SET_ID_BITS:
            return item
        self._note(item.path, "has a set-user-id or set-group-id bit, which is not set", "Set it by hand if it is due.")
        return FileItem(item.path, item.kind, item.mode & ~SET_ID_BITS, item.content)

    def _removals(self, settings: ConfigurationSettings, section: FolderSection) -> list[FileAction]:
        if not self._root.is_dir():
            return []
        archived = {item.path for item in self._archived.files}
        moved = section.model_copy(update={"path": self._root})
        reader = folder_reader(self._name, moved, settings, Redactor(settings.redact, settings.keep))
        live = reader.read().files
        # No archive has what an export leaves out, so that its absence says nothing, and none could bring it back.
        unknown = {finding.item for finding in reader.findings} - {item.path for item in live}
        unknown |= {item.path for item in live if item.path in self._left_out and item.kind != "directory"}
        for path in sorted(unknown - archived):
            self._note(path, "is not removed: exports leave it out", "Remove it by hand if it is to go.")
        extra = [item for item in live if item.path not in archived | unknown and item.kind != "directory"]
        for item in extra:
            self._digest.update(f"{item.record.model_dump_json()}\n".encode())
        return [FileAction("remove", item, item) for item in extra]

    def _note(self, item: str, problem: str, hint: str) -> None:
        self.notes.append(Finding(section=self._name, item=item, problem=problem, hint=hint))
