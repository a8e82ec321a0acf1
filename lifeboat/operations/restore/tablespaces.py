"""Where the tablespaces of a restored cluster go: to folders of their own, never back to the original's."""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lifeboat.engines.pgbackrest.restoring import tablespace_folder
from lifeboat.errors import SettingsError
from lifeboat.operations.restore.room import require_free_to_move
from lifeboat.postgres.folders import give_to, give_tree_to, make_private_dir
from lifeboat.storage.durable import fsync_directory, make_directories
from lifeboat.storage.manifest import Manifest


@dataclass(frozen=True)
class TablespaceMap:
    """For each OID the folder that a tablespace is restored to, and where the original has it."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    originals: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def of(
        cls, manifest: Manifest, wanted: Mapping[Path, Path], beside: Path, made: Collection[str] = ()
    ) -> "TablespaceMap":
        """What `wanted` says (old folder to new folder), the others below `beside`; raises SettingsError.

        Folders in `made` are those of an interrupted restore: what is in them does not count.
        """
        originals = {oid: Path(str(folder)) for oid, folder in manifest.details.get("tablespaces", {}).items()}
        unknown = set(wanted) - set(originals.values())
        if unknown:
            known = ", ".join(str(path) for path in originals.values()) or "none"
            raise SettingsError(
                f"{manifest.label} has no tablespace at {min(unknown)}", hint=f"Its tablespaces are at: {known}."
            )
        folders = {oid: wanted.get(old, beside / oid) for oid, old in originals.items()}
        if len(set(folders.values())) < len(folders):
            raise SettingsError("two tablespaces are to go to one folder", hint="Give each a folder of its own.")
        found = cls(folders, originals)
        found._refuse_taken(made)
        return found

    @classmethod
    def as_before(cls, manifest: Manifest) -> "TablespaceMap":
        """Where the original has them, for a restore over it."""
        originals = {oid: Path(str(folder)) for oid, folder in manifest.details.get("tablespaces", {}).items()}
        return cls(originals, originals)

    def refuse_within(self, target: Path) -> None:
        """Raise SettingsError where a tablespace is to go into the restored data directory, or that into it."""
        whole = target.resolve()
        for folder in self.folders.values():
            real = folder.resolve()
            if real.is_relative_to(whole) or whole.is_relative_to(real):
                raise SettingsError(
                    f"the tablespace folder {folder} and the data directory {target} lie within each other",
                    hint="Name a folder beside the data directory, or on another volume: `--tablespace OLD=NEW`.",
                )

    def _refuse_taken(self, made: Collection[str]) -> None:
        for folder in (each for each in self.folders.values() if str(each) not in made):
            if not folder.is_absolute():
                raise SettingsError(f"the tablespace folder {folder} is not an absolute path")
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise SettingsError(
                    f"the tablespace folder {folder} is not empty",
                    hint="Name an empty one, or one that is not there yet: `--tablespace OLD=NEW`.",
                )

    def place(self, data_dir: Path, user: str | None) -> None:
        """Move the restored tablespaces there and link them; raises NoRoomForRestore, OSError."""
        for oid, folder in self.folders.items():
            link = data_dir / "pg_tblspc" / oid
            real = link.resolve()
            for made in make_directories(folder.parent, mode=0o711):
                give_to(made, user)
            if real.exists():
                require_free_to_move(real, folder)
            if link.is_symlink():
                link.unlink()
            if real.exists():
                _move(real, folder, user)
            make_private_dir(folder, user)
            os.symlink(folder, link)
            give_to(link, user)
            fsync_directory(folder.parent)
        fsync_directory(data_dir / "pg_tblspc")
        left = tablespace_folder(data_dir)
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def _move(source: Path, target: Path, user: str | None) -> None:
    if target.is_dir():  # empty, and perhaps a mount point, which cannot be replaced
        for path in source.iterdir():
            _move(path, target / path.name, user)
        source.rmdir()
        return
    try:
        source.rename(target)
    except OSError:  # another filesystem
        shutil.copytree(source, target, symlinks=True)
        give_tree_to(target, user)
        shutil.rmtree(source)
