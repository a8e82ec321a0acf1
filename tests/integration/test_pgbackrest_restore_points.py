"""Restore points where pgBackRest keeps backups and WAL."""

from datetime import datetime

from lifeboat.catalog.migrate import migrate
from tests.support.pgbackrest_platform import Platform


def test_windows_and_a_named_point_from_the_repository(platform: Platform) -> None:
    platform.set_up()
    migrate(platform.installation.catalog_connection)
    full = platform.take("full")
    made = platform.run("restore", "point", "add", "before the upgrade", "--json")
    assert made.code == 0, made.err
    with platform.connect() as session:
        session.execute("DELETE FROM public.segments WHERE id = 7")
        session.execute("SELECT pg_switch_wal()")
    added = platform.run("restore", "point", "add", "after it", "--json")
    assert added.code == 0, added.err

    shown = platform.run("restore", "points", "--json")
    assert shown.code == 0, shown.out + shown.err
    (reach,) = shown.json["timelines"]
    (window,) = reach["windows"]
    assert (window["backups"], reach["gaps"]) == ([full["label"]], [])
    assert datetime.fromisoformat(window["earliest"]) < datetime.fromisoformat(made.json["at"])
    assert datetime.fromisoformat(made.json["at"]) < datetime.fromisoformat(window["latest"])
    assert [(each["name"], each["restorable"]) for each in shown.json["restore_points"]] == [
        ("before the upgrade", True),
        ("after it", True),
    ]
    assert shown.json["missing"] == []
