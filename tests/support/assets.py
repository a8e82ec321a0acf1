"""Asset files with the records that describe them."""

import hashlib
import random
from collections.abc import Iterable
from pathlib import Path

from lifeboat.assets.findings import Finding
from lifeboat.assets.integrity import verify_assets
from lifeboat.assets.records import AssetRecord

CONTENT = b"final cut" * 1000


def write_assets(root: Path, count: int, *, size_bytes: int = 2000, seed: int = 1) -> list[AssetRecord]:
    """Write files of about that size in folders of 50; returns their records, in the order of their ids."""
    source = random.Random(seed)  # noqa: S311 - test content
    records = []
    for number in range(1, count + 1):
        path = Path(f"{number // 50:03d}") / f"{number:05d}.mp4"
        content = source.randbytes(source.randint(size_bytes // 2, size_bytes * 3 // 2))
        (root / path.parent).mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        records.append(record_of(f"{number:05d}", path, content))
    return records


def record_of(identity: str, path: Path | str, content: bytes, *, kind: str = "final_video") -> AssetRecord:
    """The record of a file with that content."""
    return AssetRecord(identity, kind, str(path), len(content), hashlib.sha256(content).hexdigest())


def flip_byte(path: Path, position: int = 0) -> None:
    """Change one byte, and nothing else of the file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


def behind(records: Iterable[AssetRecord], position: str | None) -> list[AssetRecord]:
    """The records that a resumed check still has to read."""
    return [record for record in records if position is None or record.id > position]


def make_root(folder: Path) -> Path:
    """A root with one sound file in it."""
    root = folder / "assets"
    root.mkdir()
    (root / "sound.mp4").write_bytes(CONTENT)
    return root


def only_finding(record: AssetRecord, *roots: Path) -> Finding:
    """What the check says about that one file."""
    report = verify_assets([record], roots, workers=1)
    assert report.checked == 1
    assert report.total_findings == 1
    return report.findings[0]
