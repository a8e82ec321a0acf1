"""Reads a folder's files, links and directories, never through a symbolic link and never out of the folder."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from lifeboat.configuration.content import FileItem, FilesSection
from lifeboat.configuration.globs import Globs
from lifeboat.configuration.index import ConfigurationError, Finding
from lifeboat.configuration.redaction import Redactor
from lifeboat.configuration.secret_text import holds_private_key, suspected_secrets
from lifeboat.settings.configuration import FolderSection

_KEY_STORES = (".p12", ".pfx", ".jks", ".keystore", ".kdbx")
_LINES_SHOWN = 5


def link_leaves(path: str, target: str) -> bool:
    """Whether the link at `path` could point out of its section.

    `..` counts only at the start: after another name, which may be a link itself, nobody knows where it leads.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return target.startswith("/") or not target or "\0" in target or ups > path.count("/") or ".." in parts[ups:]


@dataclass
class FolderReader:
    """Reads one folder section; what is left out, or carries a suspected secret, is a finding."""

    name: str
    settings: FolderSection
    redactor: Redactor
    max_file_bytes: int
    max_total_bytes: int
    max_items: int
    findings: list[Finding] = field(default_factory=list)

    def read(self) -> FilesSection:
        """The folder as it is. Raises ConfigurationError when it cannot be read or is too large."""
        include, exclude = Globs(self.settings.include), Globs(self.settings.exclude)
        found: dict[str, FileItem] = {}
        total = 0
        for item in self._walk(exclude):
            if item.kind != "directory" and not include.match(item.path):
                continue
            found[item.path] = item
            total += len(item.content)
            if total > self.max_total_bytes or len(found) > self.max_items:
                raise ConfigurationError(
                    f"the folder {self.settings.path} of the section {self.name} has more than {self.max_items} files"
                    f" or {self.max_total_bytes} bytes",
                    hint="This looks like data, not configuration: exclude a part, or raise the limit in settings.",
                )
        # A directory is kept for what is in it, or because it matches itself.
        parents = {parent for path, item in found.items() if item.kind != "directory" for parent in _parents(path)}
        kept = [
            found[path]
            for path in sorted(found)
            if found[path].kind != "directory" or path in parents or include.match(path)
        ]
        return FilesSection("folder", self.settings.kind or self.name, str(self.settings.path), tuple(kept))

    def takes(self, item: FileItem) -> bool:
        """Whether an export would take this file or link, if it lay in the folder."""
        include, exclude = Globs(self.settings.include), Globs(self.settings.exclude)
        if not include.match(item.path) or any(exclude.match(path) for path in (item.path, *_parents(item.path))):
            return False
        if item.kind == "link":
            return not link_leaves(item.path, item.target or "")
        return len(item.content) <= self.max_file_bytes and not self._is_refused(item.path, item.content)

    def _walk(self, exclude: Globs) -> Iterator[FileItem]:
        def fail(error: OSError) -> None:
            raise ConfigurationError(
                f"cannot read {error.filename or self.settings.path} of the section {self.name}: {error.strerror}",
                hint="Correct the path or the rights: a part of a folder must not look like all of it.",
            ) from error

        # The folder itself may be a link: an administrator named it.
        top = os.path.realpath(self.settings.path)
        try:
            for folder, folders, files, descriptor in os.fwalk(top, onerror=fail, follow_symlinks=False):
                base = os.path.relpath(folder, top)
                prefix = "" if base == "." else base + "/"
                names = sorted(name for name in (*folders, *files) if self._is_utf8(prefix + name))
                folders[:] = [name for name in folders if name in names and not exclude.match(prefix + name)]
                for name in names:
                    item = None if exclude.match(prefix + name) else self._item(prefix + name, name, descriptor)
                    if item is not None:
                        yield item
        except OSError as error:
            fail(error)

    def _item(self, path: str, name: str, folder: int) -> FileItem | None:
        try:
            return self._read_item(path, name, folder)
        except FileNotFoundError:
            return None  # removed since the folder was listed
        except OSError as error:
            error.filename = os.path.join(self.settings.path, path)
            raise

    def _read_item(self, path: str, name: str, folder: int) -> FileItem | None:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            return FileItem(path, "directory", mode)
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(name, dir_fd=folder)
            if link_leaves(path, target):
                self._left_out(path, "the link leaves the folder", "Copy what it points to into the folder.")
                return None
            return FileItem(path, "link", 0o777, target=target)
        if stat.S_ISREG(found.st_mode):
            return self._file(path, name, folder)
        self._left_out(path, "it is not a file, a link or a directory", "Exclude it, or move it away.")
        return None

    def _file(self, path: str, name: str, folder: int) -> FileItem | None:
        # Between stat and open the name may have become a link or a pipe: neither is followed nor waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(descriptor, "rb") as file:
            found = os.fstat(file.fileno())
            content = file.read(self.max_file_bytes + 1) if stat.S_ISREG(found.st_mode) else b""
        if len(content) > self.max_file_bytes:
            hint = "Exclude it if it is no configuration, or raise `max_file_bytes`."
            self._left_out(path, f"the file is larger than {self.max_file_bytes} bytes", hint)
            return None
        if self._is_refused(path, content):
            return None
        return FileItem(path, "file", stat.S_IMODE(found.st_mode), content)

    def _is_refused(self, path: str, content: bytes) -> bool:
        if path.lower().endswith(_KEY_STORES) or holds_private_key(content.decode("latin-1")):
            hint = (
                "Keep private keys out of configuration folders, in a secret store; exclude the file to silence this."
            )
            self._left_out(path, "the file holds a private key", hint)
            return True
        try:
            lines = suspected_secrets(content.decode(), self.redactor.names)
        except UnicodeDecodeError:
            return False
        if not lines:
            return False
        where = ", ".join(str(line) for line in lines[:_LINES_SHOWN]) + (" …" if len(lines) > _LINES_SHOWN else "")
        refused = self.settings.suspected_secrets == "refuse"
        problem = f"the file seems to hold a password or token in line {where}"
        hint = "Let it read the value from the environment or a secret store."
        if refused:
            self._left_out(path, problem, hint)
        else:
            self.findings.append(
                Finding(section=self.name, item=path, problem=f"{problem}; it is in the archive as it is", hint=hint)
            )
        return refused

    def _left_out(self, path: str, problem: str, hint: str) -> None:
        self.findings.append(Finding(section=self.name, item=path, problem=f"{problem}; it is left out", hint=hint))

    def _is_utf8(self, path: str) -> bool:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            self._left_out(shown, "the name is not UTF-8", "Rename it.")
            return False
        return True


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path
