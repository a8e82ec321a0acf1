"""An archive to be damaged in every way, and scrubbed."""

import gzip
import hashlib
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from lifeboat.postgres.binaries import PgTools
from lifeboat.wal.archive import FilesystemArchive
from lifeboat.wal.names import Segment
from lifeboat.wal.scrub import ScrubOrder, ScrubProgress, ScrubReport, scrub
from lifeboat.wal.scrub_record import ScrubRecord
from tests.integration.test_wal_archiving import SEGMENT_BYTES

PAGE_BYTES = 8192


@dataclass
class ScrubLab:
    """A copy of an archive, and what the scrub remembers of it."""

    destination: Path
    tools: PgTools | None
    scratch_dir: Path
    record: ScrubRecord | None = None
    saves: int = 0
    read: list[ScrubProgress] = field(default_factory=list)

    @property
    def archive(self) -> FilesystemArchive:
        return FilesystemArchive(self.destination, "studio")

    @property
    def folder(self) -> Path:
        return self.destination / "studio" / "wal"

    @property
    def segments(self) -> list[Segment]:
        found = [item.parsed.segment for item in self.archive.listing().files if item.parsed.kind == "segment"]
        return sorted(segment for segment in found if segment is not None)

    def run(
        self, *, max_age_days: float = 30, max_seconds: float | None = None, window_segments: int = 4
    ) -> ScrubReport:
        order = ScrubOrder(
            self.scratch_dir,
            self.tools,
            timedelta(days=max_age_days),
            max_seconds,
            window_bytes=window_segments * SEGMENT_BYTES,
        )
        return scrub(self.archive, self.record, order, save=self._save, on_progress=self.read.append)

    def _save(self, record: ScrubRecord) -> None:
        # Through its stored form, as from run to run.
        self.record, self.saves = ScrubRecord.model_validate_json(record.model_dump_json()), self.saves + 1

    @property
    def victim(self) -> Segment:
        """A segment in the midst of others that is full of records."""
        return next(each for each in self.segments[1:] if len(self.plain(each).rstrip(b"\0")) > SEGMENT_BYTES - 8192)

    def stored(self, segment: Segment) -> Path:
        (found,) = self.folder.rglob(f"{segment.name}-*.gz")
        return found

    def plain(self, segment: Segment) -> bytearray:
        return bytearray(gzip.decompress(self.stored(segment).read_bytes()))

    def replace(self, segment: Segment, content: bytes | bytearray) -> None:
        """Store other content as the archive program would have: with a checksum that is right."""
        old = self.stored(segment)
        old.with_name(f"{segment.name}-{hashlib.sha256(content).hexdigest()}.gz").write_bytes(
            gzip.compress(bytes(content), 1)
        )
        old.unlink()


def flip_stored_bit(lab: ScrubLab, segment: Segment) -> None:
    path = lab.stored(segment)
    content, plain = path.read_bytes(), lab.plain(segment)
    for offset in range(len(content) // 2, len(content)):
        flipped = content[:offset] + bytes([content[offset] ^ 0x10]) + content[offset + 1 :]
        # Where rows repeat, another bit may mean the same plain text: that is no damage.
        try:
            same = gzip.decompress(flipped) == plain
        except (OSError, EOFError, zlib.error):
            same = False
        if not same:
            path.write_bytes(flipped)
            return
    raise AssertionError("no bit matters")


def flip_uncompressed_bit(lab: ScrubLab, segment: Segment) -> None:
    path, content = lab.stored(segment), lab.plain(segment)
    path.write_bytes(gzip.compress(bytes(content), 0))  # as with compression_level = 0
    flip_stored_bit(lab, segment)


def zero_stored_bytes(lab: ScrubLab, segment: Segment) -> None:
    path = lab.stored(segment)
    content = bytearray(path.read_bytes())
    content[1000:2000] = bytes(1000)
    path.write_bytes(content)


def zero_all(lab: ScrubLab, segment: Segment) -> None:
    lab.replace(segment, bytes(SEGMENT_BYTES))


def zero_page(lab: ScrubLab, segment: Segment) -> None:
    content = lab.plain(segment)
    content[20 * PAGE_BYTES : 21 * PAGE_BYTES] = bytes(PAGE_BYTES)
    lab.replace(segment, content)


def zero_tail(lab: ScrubLab, segment: Segment) -> None:
    content = lab.plain(segment)
    content[64 * PAGE_BYTES :] = bytes(64 * PAGE_BYTES)
    lab.replace(segment, content)


def take_from_another_cluster(lab: ScrubLab, segment: Segment) -> None:
    content = lab.plain(segment)
    content[24] ^= 0xFF
    lab.replace(segment, content)


def flip_record_bit(lab: ScrubLab, segment: Segment) -> None:
    content = lab.plain(segment)
    content[30 * PAGE_BYTES + 4000] ^= 0x01
    lab.replace(segment, content)


def put_another_segments_content(lab: ScrubLab, segment: Segment) -> None:
    lab.replace(segment, lab.plain(segment.following()))


def zero_file(lab: ScrubLab, segment: Segment) -> None:
    path = lab.stored(segment)
    path.write_bytes(bytes(path.stat().st_size))


def truncate(lab: ScrubLab, segment: Segment) -> None:
    path = lab.stored(segment)
    path.write_bytes(path.read_bytes()[:-100])
