"""`lifeboat restore points`, `restore point add` and `note` as somebody types them."""

from datetime import UTC, datetime

from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.archive_program.layout import find_entries
from lifeboat.wal.coverage import wait_for_segment
from tests.support.command_line import Run, lifeboat, settings_file

__all__ = ["lifeboat", "settings_file"]


def test_nothing_to_restore_is_told_and_ends_with_3(lifeboat: Run) -> None:
    ended = lifeboat("restore", "points")
    assert ended.code == 3
    # Without any archived WAL there is not even a timeline.
    assert "no usable backup leads there" in ended.out or "Nothing can be restored" in ended.out
    assert "Nothing is known to have happened" in ended.out


def test_points_notes_and_a_named_point(lifeboat: Run, installation: Installation) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    made = lifeboat("restore", "point", "add", "before-upgrade", "--json")
    assert (made.code, made.json["name"], made.json["timeline"]) == (0, "before-upgrade", 1)
    noted = lifeboat("note", "add", "--at", "1m ago", "somebody pressed the button", "--json")
    assert noted.code == 0
    lifeboat("note", "add", "the upgrade begins")
    listed = lifeboat("note", "list")
    assert "somebody pressed the button" in listed.out
    assert lifeboat("note", "remove", noted.json["id"]).code == 0

    shown = lifeboat("restore", "points")
    assert shown.code == 0, shown.out + shown.err
    assert "Timeline 1 (the current one):" in shown.out
    assert "every second from " in shown.out
    assert "before-upgrade" in shown.out
    assert f"full backup {backup.label} (basebackup)" in shown.out
    assert "the upgrade begins" in shown.out
    assert "pressed the button" not in shown.out

    found = lifeboat("restore", "points", "--json").json
    (reach,) = found["timelines"]
    assert (reach["current"], reach["gaps"], len(reach["windows"])) == (True, [], 1)
    assert reach["earliest"] == reach["windows"][0]["earliest"]
    assert datetime.fromisoformat(reach["latest"]) > datetime.fromisoformat(reach["earliest"])
    (named,) = found["restore_points"]
    assert (named["name"], named["restorable"], named["why_not"]) == ("before-upgrade", True, None)
    assert {each["kind"] for each in found["annotations"]} == {"backup", "note"}
    assert {each["timeline"] for each in found["annotations"]} == {1, None}
    assert "is archived yet. Newer WAL is archived when" in found["why_no_later"]
    assert "is archived yet. Newer WAL is archived when" in shown.out
    (unread,) = found["unindexed"]
    assert (unread["timeline"], unread["known_until"]) == (1, None)
    assert unread["text"] in shown.err
    assert found["missing"] == []

    early = lifeboat("restore", "points", "--to", "2020-01-01", "--json")
    assert early.code == 3
    assert early.json["restore_points"] == early.json["timelines"][0]["windows"] == []
    assert lifeboat("restore", "points", "--from", "yesterday-ish").code == 2
    assert lifeboat("restore", "points", "--timeline", "9").code == 1
    again = lifeboat("restore", "point", "add", "before-upgrade")
    assert (again.code, "there is a restore point 'before-upgrade' already" in again.err) == (1, True)
    for name in ("a\nb", "a\x1b[2Jb", "a\u202eb", "a\u00a0b", " a", "a ", "", "x" * 64):
        assert lifeboat("restore", "point", "add", name).code == 2


def test_a_gap_is_told_and_ends_with_3(lifeboat: Run, installation: Installation) -> None:
    take_backup(installation, BackupOrder(BackupType.FULL))
    root = installation.destination("wal").path
    with connect(installation.source, autocommit=True) as session:
        names = []
        for number in range(3):
            session.execute("INSERT INTO public.characters VALUES (%s, 'late')", (9000 + number,))
            row = session.execute("SELECT pg_walfile_name(pg_current_wal_lsn()), pg_switch_wal()::text").fetchone()
            assert row is not None
            wait_for_segment(root, "studio", timeline=1, lsn=row[1], timeout_seconds=60)
            names.append(row[0])
    folder = root / "studio" / "wal" / names[1][:16]
    (entry,) = find_entries(str(folder), names[1])
    away = folder / entry
    content = away.read_bytes()
    away.unlink()
    try:
        ended = lifeboat("restore", "points")
    finally:
        # The session's archive serves other tests too.
        away.write_bytes(content)
    assert ended.code == 3
    assert f"the WAL segment {names[1]} is missing" in ended.out
    assert lifeboat("restore", "points", "--from", f"{datetime.now(UTC):%Y-%m-%d}").code == 0
