"""The studio's folders: assets and hook scripts, each file written whole or not at all."""

import hashlib
import os
import random
from pathlib import Path

from lifeboat.demo.scripts import HookScript

_HEADERS = {
    ".mp4": bytes.fromhex("0000001c6674797069736f6d0000020069736f6d69736f326d703431"),
    ".png": bytes.fromhex("89504e470d0a1a0a"),
}


def assets_root(root: Path) -> Path:
    """The folder that asset paths are relative to."""
    return root / "assets"


def hooks_root(root: Path) -> Path:
    """The folder of the hook scripts."""
    return root / "hooks"


def write_asset(root: Path, path: str, size_bytes: int, *, seed: str) -> str:
    """Write a file that starts like its type and goes on at random; returns its SHA-256."""
    source = random.Random(seed)  # noqa: S311 - content, not secrets
    header = _HEADERS.get(Path(path).suffix, b"")[:size_bytes]
    content = header + source.randbytes(size_bytes - len(header))
    write_file(assets_root(root) / path, content)
    return hashlib.sha256(content).hexdigest()


def write_script(root: Path, script: HookScript) -> str:
    """Write a hook script with its mode; returns its SHA-256."""
    content = script.text.encode()
    write_file(hooks_root(root) / script.path, content, mode=script.mode)
    return hashlib.sha256(content).hexdigest()


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file or nothing. Without fsync, which would take most of the time that a demo has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fchmod(descriptor, mode)
    temporary.replace(path)
