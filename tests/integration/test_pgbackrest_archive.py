"""WAL through pgBackRest: pushed by a server, got by a restored one, read by ourselves."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lifeboat.commands import ToolMissing
from lifeboat.engines.pgbackrest.archive import PgBackRestArchive
from lifeboat.postgres.connections import single_value
from lifeboat.wal.archive import WalArchive, WalDamaged, WalFileMissing
from lifeboat.wal.coverage import ArchiveUnreadable
from lifeboat.wal.names import parse_segment
from tests.support.pgbackrest import BackedUp, Pair, backed_up
from tests.support.postgres import absent
from tests.support.wal import run_as_server

MEBIBYTE = 1 << 20


def write_segments(source: BackedUp, count: int = 3) -> list[str]:
    """Fill and archive some segments; returns their names when all of them are in the repository."""
    names = []
    with source.connect() as session:
        session.execute("CREATE TABLE IF NOT EXISTS public.rows (id int)")
        for number in range(count):
            session.execute("INSERT INTO public.rows SELECT generate_series(1, %s)", (100 + number,))
            names.append(str(single_value(session, "SELECT pg_walfile_name(pg_switch_wal())")))
        wait_for(
            lambda: (
                str(single_value(session, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver")) >= names[-1]
            )
        )
    return names


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def reader_of(source: BackedUp) -> WalArchive:
    """The archive, newly opened."""
    return PgBackRestArchive(source.engine.reader(), source.engine.folders.repository)


@pytest.fixture(params=["sync", "async"])
def archiving(request: pytest.FixtureRequest, pair: Pair, pair_template: Path, tmp_path: Path) -> Iterator[BackedUp]:
    """A server that archives one way or the other."""
    settings = {"archive_async": request.param == "async"}
    with backed_up(pair, pair_template, signer_dir=tmp_path, **settings) as made:
        yield made


def test_segments_are_pushed_and_got(archiving: BackedUp) -> None:
    names = write_segments(archiving)
    listing = reader_of(archiving).listing()
    segments = [parse_segment(name, MEBIBYTE) for name in names]
    assert listing.covers(segments[0], segments[-1])
    assert listing.segment_size_bytes == MEBIBYTE
    assert listing.system_identifier == archiving.engine.identity().system_identifier
    assert (listing.gaps, listing.damaged, listing.unknown) == ((), (), ())
    # The server's own command delivers the same bytes, and says 1 for what is surely not there.
    target = archiving.server.data_dir / "got"
    got = fetch_as_server(archiving, names[1], target)
    assert got.returncode == 0, got.stderr
    ours = archiving.root / "ours"
    reader_of(archiving).fetch(names[1], ours)
    assert target.read_bytes() == ours.read_bytes()
    assert len(ours.read_bytes()) == MEBIBYTE
    assert fetch_as_server(archiving, "0000000100000000000000FF", target).returncode == 1
    if archiving.engine.settings.archive_async:
        assert list(archiving.engine.folders.spool.rglob("*.ok"))


def test_whether_a_segment_is_there_takes_no_listing_of_the_archive(
    archiving: BackedUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = write_segments(archiving)
    archive = PgBackRestArchive(archiving.engine.reader(), archiving.engine.folders.repository)

    def refuse(self: PgBackRestArchive) -> None:
        raise AssertionError("the whole archive was listed")

    monkeypatch.setattr(PgBackRestArchive, "_stored", refuse)
    there = parse_segment(names[0], MEBIBYTE)
    assert archive.holds(there)
    assert not archive.holds(parse_segment("0000000100000000000000FF", MEBIBYTE))
    assert not archive.holds(parse_segment("0000000100000009000000FF", MEBIBYTE))
    (stored,) = archiving.engine.folders.repository.rglob(f"{names[0]}-*")
    stored.write_bytes(b"")
    assert not archive.holds(there)


def test_a_listing_asks_pgbackrest_for_one(source: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    write_segments(source)
    listed, ask = [], PgBackRestArchive._stored

    def counted(self: PgBackRestArchive) -> Iterator[tuple[str, int]]:
        listed.append(self)
        return ask(self)

    monkeypatch.setattr(PgBackRestArchive, "_stored", counted)
    assert reader_of(source).listing().segment_size_bytes == MEBIBYTE
    assert len(listed) == 1


def fetch_as_server(source: BackedUp, name: str, target: Path) -> subprocess.CompletedProcess[str]:
    """Run the restore_command as a restored server would: in its data directory."""
    command = f'cd "{source.server.data_dir}" && {source.engine.prepare().restore_command()}'
    return run_as_server(command, target.name, name, source.server.tools.user)


def test_an_identical_segment_is_taken_again_and_a_different_one_is_not(source: BackedUp) -> None:
    (name,) = write_segments(source, 1)
    path = source.server.data_dir / "pg_wal" / name
    again = run_push(source, path, name)
    assert again.returncode == 0, again.stderr
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    other = source.root / name
    other.write_bytes(changed)
    other.chmod(0o644)
    refused = run_push(source, other, name)
    assert refused.returncode == 45
    assert "already exists in the repo" in refused.stderr


def run_push(source: BackedUp, path: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Run the archive_command for one file."""
    return run_as_server(source.engine.prepare().archive_command, path, name, source.server.tools.user)


def test_a_missing_file_is_told_apart_from_an_archive_that_cannot_be_read(source: BackedUp) -> None:
    names = write_segments(source)
    reader = reader_of(source)
    with pytest.raises(WalFileMissing):
        reader.fetch("0000000100000000000000FF", source.root / "x")
    with pytest.raises(WalFileMissing):
        reader.history(2)
    repository = source.engine.folders.repository
    away = repository.rename(repository.with_name("away"))
    for one in (reader, reader_of(source)):
        with pytest.raises(ArchiveUnreadable):
            one.fetch(names[0], source.root / "x")
        with pytest.raises(ArchiveUnreadable):
            one.fetch("0000000100000000000000FF", source.root / "x")
    stopped = fetch_as_server(source, names[0], source.server.data_dir / "x")
    # Every code up to 125 would end recovery and promote.
    assert stopped.returncode == 255
    away.rename(repository)
    reader.fetch(names[0], source.root / "x")


def test_gaps_and_damage_are_found(source: BackedUp) -> None:
    *names, last = write_segments(source, 6)
    reader = reader_of(source)
    stored = {name: next(source.engine.folders.repository.rglob(f"{name}-*.gz")) for name in names}
    stored[names[1]].unlink()
    stored[names[2]].write_bytes(b"not gzip at all")
    stored[names[3]].write_bytes(b"")
    other = stored[names[4]]
    digest = other.name[25:65]
    other.with_name(other.name.replace(digest, "0" * 40)).write_bytes(other.read_bytes())
    listing = reader.listing()
    assert {item.name: item.reason for item in listing.damaged} == {
        names[2]: "not a gz file (15 bytes)",
        names[3]: "empty",
        names[4]: "2 different versions",
    }
    assert [(gap.first.name, gap.last.name) for gap in listing.gaps] == [(names[1], names[4])]
    assert listing.ranges[-1].last.name == last
    with pytest.raises(WalFileMissing):
        reader.fetch(names[1], source.root / "x")
    for name in names[2:]:
        with pytest.raises(WalDamaged):
            reader.fetch(name, source.root / "x")
    other.rename(other.with_name(other.name.replace(digest, "1" * 40)))
    other.with_name(other.name.replace(digest, "0" * 40)).unlink()
    with pytest.raises(WalDamaged, match="SHA-1"):
        reader.fetch(names[4], source.root / "x")
    assert not (source.root / "x").exists()


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)
@pytest.mark.parametrize("compress_type", ["none", "bz2", "zst", "lz4"])
def test_reads_every_compression(pair: Pair, pair_template: Path, tmp_path: Path, compress_type: str) -> None:
    settings = {"compress_type": compress_type}
    with backed_up(pair, pair_template, signer_dir=tmp_path, **settings) as made:
        (name,) = write_segments(made, 1)
        target = made.root / "x"
        try:
            reader_of(made).fetch(name, target)
        except ToolMissing as error:
            absent(error.message)
        assert len(target.read_bytes()) == MEBIBYTE
        assert reader_of(made).listing().damaged == ()


def test_reads_an_encrypted_repository(pair: Pair, pair_template: Path, tmp_path: Path) -> None:
    settings = {"cipher_type": "aes-256-cbc", "cipher_passphrase": "a word that nobody knows"}
    with backed_up(pair, pair_template, signer_dir=tmp_path, **settings) as made:
        (name,) = write_segments(made, 1)
        (stored,) = made.engine.folders.repository.rglob(f"{name}-*.gz")
        assert stored.read_bytes()[:6] == b"Salted"
        reader_of(made).fetch(name, made.root / "x")
        assert len((made.root / "x").read_bytes()) == MEBIBYTE
        assert reader_of(made).listing().damaged == ()
        whole = bytearray(stored.read_bytes())
        stored.write_bytes(whole[:-5])
        assert [item.reason for item in reader_of(made).listing().damaged] == ["cut short"]
        for damage in (whole[:-5], whole[:-16], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
            stored.write_bytes(damage)
            with pytest.raises(WalDamaged):
                reader_of(made).fetch(name, made.root / "y")


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)
def test_a_cut_or_changed_segment_is_found_in_every_compression(source: BackedUp) -> None:
    names: list[str] = []
    hurt: dict[str, str | None] = {}
    for compress_type in ("none", "gz", "bz2", "lz4", "zst"):
        source.with_settings(compress_type=compress_type).prepare()
        short, ending, changed, sound = write_segments(source, 4)
        for name, keeps in ((short, 0.5), (ending, None)):
            (stored,) = source.engine.folders.repository.rglob(f"{name}-*")
            data = stored.read_bytes()
            stored.write_bytes(data[: int(len(data) * keeps)] if keeps is not None else data[:-1])
            hurt[name] = "cut short, or not a whole segment"
        (stored,) = source.engine.folders.repository.rglob(f"{changed}-*")
        flipped = bytearray(stored.read_bytes())
        flipped[len(flipped) // 2] ^= 0x10
        stored.write_bytes(flipped)
        names += [changed, sound]
        reader = reader_of(source)
        assert isinstance(reader, PgBackRestArchive)
        held = [reader.holds(parse_segment(name, MEBIBYTE)) for name in (short, ending, changed, sound)]
        assert held == [False, False, True, True], compress_type
        for name in (short, ending, changed):
            try:
                with pytest.raises(WalDamaged):
                    reader.fetch(name, source.root / "x")
            except ToolMissing as error:
                absent(error.message)
        reader.fetch(sound, source.root / "x")
    # What keeps its length takes reading: that is what `wal verify` is for.
    listing = reader_of(source).listing()
    assert {item.name: item.reason for item in listing.damaged} == hurt
    assert {item.parsed.name for item in listing.files} >= set(names)
