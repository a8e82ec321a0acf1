"""What a failing disk and a careless hand do to asset files."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lifeboat.demo.files import assets_root
from lifeboat.errors import PermanentError
from lifeboat.postgres.connections import connect

_FLIPPED_BYTES = 3
_KEPT_FOLDER = "undamaged"


@dataclass(frozen=True)
class DamagedAsset:
    """An asset whose file is no longer what the database says; `path` is relative to the assets root."""

    asset_id: str
    path: str


@dataclass(frozen=True)
class Damage:
    """One file whose content changed behind its size and time of change, and one that is gone."""

    corrupted: DamagedAsset
    removed: DamagedAsset


def damage_assets(dsn: str, root: Path) -> Damage:
    """Flip bytes in one approved final video and remove another; each call takes two that are still sound.

    Raises PermanentError when there are no two left.
    """
    sound = _sound_videos(dsn, assets_root(root))
    corrupted, removed = next(sound, None), next(sound, None)
    if corrupted is None or removed is None:
        raise PermanentError("the studio has no two sound final videos left to damage")
    for asset in (corrupted, removed):
        kept = root / _KEPT_FOLDER / asset.path
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(assets_root(root) / asset.path, kept)
    _flip_bytes(assets_root(root) / corrupted.path)
    (assets_root(root) / removed.path).unlink()
    return Damage(corrupted, removed)


def undo_damage(root: Path) -> list[str]:
    """Put every damaged file back; returns their paths. Nothing happens when none was damaged."""
    kept = root / _KEPT_FOLDER
    paths = [file.relative_to(kept) for file in sorted(kept.rglob("*")) if file.is_file()]
    for path in paths:
        (assets_root(root) / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(kept / path, assets_root(root) / path)
    shutil.rmtree(kept, ignore_errors=True)
    return [str(path) for path in paths]


def _sound_videos(dsn: str, folder: Path) -> Iterator[DamagedAsset]:
    with connect(dsn, application_name="lifeboat demo") as connection:
        rows = connection.execute(
            "SELECT a.id::text, a.path, a.sha256 FROM studio.assets a JOIN studio.segments s ON s.asset_id = a.id"
            " WHERE a.kind = 'final_video' AND s.status = 'approved' ORDER BY md5(a.id::text)"
        ).fetchall()
    for identity, path, sha256 in rows:
        file = folder / path
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
            yield DamagedAsset(identity, path)


def _flip_bytes(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        original = file.read(_FLIPPED_BYTES)
        file.seek(before.st_size // 2)
        file.write(bytes(byte ^ 0xFF for byte in original))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
