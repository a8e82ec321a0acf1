"""The scrub of a WAL archive in pgBackRest's repository: read through it, segments compressed or not."""

from datetime import timedelta
from pathlib import Path

import pytest

from lifeboat.postgres.folders import make_private_dir
from lifeboat.wal.scrub import ScrubOrder, ScrubReport, scrub
from lifeboat.wal.scrub_record import FindingKind, ScrubRecord
from tests.integration.test_pgbackrest_archive import reader_of, write_segments
from tests.support.pgbackrest import BackedUp, Pair, backed_up


def read(source: BackedUp, record: ScrubRecord | None, saved: list[ScrubRecord]) -> ScrubReport:
    tools = source.server.tools
    order = ScrubOrder(make_private_dir(source.root / "scratch", tools.user), tools, timedelta(0))
    return scrub(reader_of(source), record, order, save=saved.append)


@pytest.mark.parametrize("compress_type", ["none", "gz"])
def test_a_flipped_bit_is_found(pair: Pair, pair_template: Path, tmp_path: Path, compress_type: str) -> None:
    with backed_up(pair, pair_template, signer_dir=tmp_path, compress_type=compress_type) as made:
        names = write_segments(made)
        saved: list[ScrubRecord] = []
        sound = read(made, None, saved)
        (stored,) = made.engine.folders.repository.rglob(f"{names[1]}-*")
        content = bytearray(stored.read_bytes())
        # Within the first page, where nothing repeats.
        content[60] ^= 0x10
        stored.write_bytes(content)
        hurt = read(made, saved[-1], saved)

    assert (sound.findings, sound.gaps, sound.notes) == ((), (), ())
    assert sound.segments_read >= len(names)
    assert [(item.name, item.kind) for item in hurt.findings] == [(names[1], FindingKind.CHECKSUM)]
