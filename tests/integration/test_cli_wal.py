"""`lifeboat wal status | health | verify` on a copy of a real archive: what they write and how they end."""

import shutil
from pathlib import Path

import pytest
import tomlkit

from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from tests.support.command_line import Run, lifeboat, settings_file

__all__ = ["lifeboat", "settings_file"]


@pytest.fixture
def archive(lifeboat: Run, installation: Installation, settings_file: Path, reachable_tmp: Path) -> Path:
    """A copy of the platform's archive, which the settings name from now on."""
    with connect(installation.source, autocommit=True) as session:
        for _ in range(3):
            session.execute("CREATE TABLE IF NOT EXISTS public.rows AS SELECT generate_series(1, 1000)")
            session.execute("INSERT INTO public.rows SELECT generate_series(1, 1000)")
            session.execute("SELECT pg_switch_wal()")
    done = lifeboat("backup", "run", "--type", "full", "--in-process", "--json")
    assert done.code == 0, done.err
    shutil.copytree(Path(lifeboat("wal", "status", "--json").json["archive"]), reachable_tmp / "copy/studio/wal")
    text = tomlkit.parse(settings_file.read_text())
    text["destinations"]["copy"] = {"path": str(reachable_tmp / "copy")}
    text["wal"]["destination"] = "copy"
    text["agent"] = {"enabled": False}
    settings_file.write_text(tomlkit.dumps(text))
    return reachable_tmp / "copy/studio/wal"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum of what was compressed (RFC 1952)
    path.write_bytes(content)


def test_damage_is_verified_shown_and_judged(lifeboat: Run, archive: Path) -> None:
    before = lifeboat("wal", "status")
    sound = lifeboat("wal", "verify", "--json")
    victim = sorted(archive.glob("0*/0*.gz"))[-3]
    flip(victim)
    unread = lifeboat("wal", "verify")
    found = lifeboat("wal", "verify", "--all", "--json")
    plain = lifeboat("wal", "verify")
    status = lifeboat("wal", "status", "--json")
    shown = lifeboat("wal", "status")
    health = lifeboat("wal", "health", "--json")
    acknowledged = lifeboat("wal", "health", "--acknowledge")
    told = lifeboat("wal", "health")

    name = victim.name[:24]
    assert "The contents were not read yet" in before.out
    assert (sound.code, sound.json["sound"], sound.json["findings"]) == (0, True, [])
    assert sound.json["segments_read"] >= 4
    assert (unread.code, "0 segments" in unread.out) == (0, True)
    assert (found.code, [item["name"] for item in found.json["findings"]]) == (3, [name])
    assert plain.code == 3
    assert name in plain.out
    assert (status.code, status.json["findings"][0]["kind"], status.json["gaps"]) == (3, "checksum", [])
    assert status.json["server"]["archives"] is True
    assert shown.code == 3
    assert f"DAMAGED {name}: " in shown.out
    assert (health.code, health.json["healthy"]) == (3, False)
    assert "damaged" in {item["code"] for item in health.json["findings"]}
    # A full backup begins behind it: once somebody says that he has seen it, it is no alarm any more.
    assert acknowledged.code == 3
    assert told.code == 0
    assert f"WAL: {name} damaged in the archive" in told.out


def test_a_sound_archive_is_healthy_and_status_shows_lag_and_slots(
    lifeboat: Run, archive: Path, installation: Installation
) -> None:
    healthy = lifeboat("wal", "health")
    with connect(installation.source, autocommit=True) as session:
        session.execute("SELECT pg_create_physical_replication_slot('left_alone', true)")
        try:
            status = lifeboat("wal", "status")
            data = lifeboat("wal", "status", "--json").json
            warned = lifeboat("wal", "health")
        finally:
            session.execute("SELECT pg_drop_replication_slot('left_alone')")

    assert (healthy.code, "WAL archiving is healthy." in healthy.out) == (0, True), healthy.out
    assert status.code == 0
    assert "left_alone" in status.out
    assert "WAL not archived yet: " in status.out
    assert data["lag_bytes"] >= 0
    assert data["server"]["slots"][0]["name"] == "left_alone"
    assert (warned.code, "replication slot left_alone is inactive" in warned.out) == (0, True)


def test_without_a_server_the_archive_is_still_shown(
    lifeboat: Run, archive: Path, reachable_tmp: Path, settings_file: Path
) -> None:
    text = tomlkit.parse(settings_file.read_text())
    bin_dir = text["platform"]["bin_dir"]
    text["platform"] = {"cluster": "studio", "dsn": f"host={reachable_tmp} dbname=nowhere", "bin_dir": bin_dir}
    settings_file.write_text(tomlkit.dumps(text))
    status = lifeboat("wal", "status", "--json")
    verified = lifeboat("wal", "verify")

    assert (status.code, status.json["server"], status.json["segments_behind"]) == (0, None, None)
    assert "cannot be reached" in status.json["notes"][0]
    assert verified.code == 0
