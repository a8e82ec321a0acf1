"""`lifeboat config` on a real platform: out, compared, back, and back again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tomlkit

from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from tests.support.command_line import Run, lifeboat, settings_file

__all__ = ["lifeboat", "settings_file"]
CHANGE = """
DELETE FROM public.segments;
DELETE FROM public.characters WHERE id = 1;
UPDATE public.characters SET name = 'x' WHERE id = 2;
"""
Heroes = Callable[..., tuple[str, ...]]


@pytest.fixture
def heroes(settings_file: Path, installation: Installation) -> Heroes:
    """Has a configuration section of three rows; runs SQL and returns their names."""
    sections = {
        "heroes": {"sql": "SELECT id, name FROM characters WHERE id <= 3", "key_columns": ["id"], "table": "characters"}
    }
    text = tomlkit.parse(settings_file.read_text())
    text["configuration"] = {"sections": sections, "server_files": [], "roles": False}
    settings_file.write_text(tomlkit.dumps(text))

    def run(sql: str = "SELECT") -> tuple[str, ...]:
        with connect(installation.source, autocommit=True) as session:
            session.execute(sql)
            rows = session.execute("SELECT name FROM public.characters WHERE id <= 3 ORDER BY id").fetchall()
        return tuple(str(row[0]) for row in rows)

    return run


def test_configuration_goes_out_and_back(lifeboat: Run, heroes: Heroes, installation: Installation) -> None:
    before = lifeboat("config", "export", "--json").json["label"]
    with connect(installation.source, autocommit=True) as session:
        session.execute("UPDATE public.characters SET name = 'changed' WHERE id = 2")
    after = lifeboat("config", "export", "--json").json["label"]
    listed = lifeboat("config", "list", "--json")
    differs = lifeboat("config", "diff", before, "latest", "--json")
    dry = lifeboat("config", "apply", before, "--dry-run", "--json")
    refused = lifeboat("config", "apply", before, typed="no\n")
    applied = lifeboat("config", "apply", before, "--yes", dry.json["plan_hash"], "--json")
    with connect(installation.source, autocommit=True) as session:
        row = session.execute("SELECT name FROM public.characters WHERE id = 2").fetchone()

    assert [item["label"] for item in listed.json] == [before, after]
    assert (differs.code, differs.json["equal"]) == (3, False)
    assert any("changed" in line for line in differs.json["lines"])
    assert dry.json["empty"] is False
    assert refused.code == 1
    assert (applied.code, applied.json["updated_count"]) == (0, 1)
    assert row == ("character 2",)
    same = lifeboat("config", "diff", before, before)
    assert (same.code, same.out.endswith("no difference\n")) == (0, True)


def test_an_archive_is_compared_with_the_platform_as_it_is_now(
    lifeboat: Run, heroes: Heroes, installation: Installation
) -> None:
    label = lifeboat("config", "export", "--json").json["label"]
    same = lifeboat("config", "diff", label)
    heroes("UPDATE public.characters SET name = 'changed' WHERE id = 2")
    differs = lifeboat("config", "diff", label, "live", "--json")
    turned = lifeboat("config", "diff", "live", "latest")

    assert (same.code, same.out) == (0, f"{label} → live\nno difference\n")
    assert (differs.code, differs.json["old"], differs.json["new"]) == (3, label, "live")
    assert '      name: "character 2" → "changed"' in differs.json["lines"]
    assert turned.code == 3
    assert 'name: "changed" → "character 2"' in turned.out
    assert installation.repository().labels() == [label]


def test_an_applied_archive_is_taken_back_by_the_command_that_it_tells(
    lifeboat: Run, heroes: Heroes, installation: Installation
) -> None:
    before = lifeboat("config", "export", "--json").json["label"]
    changed = heroes(CHANGE)
    dry = lifeboat("config", "apply", before, "--dry-run", "--json")
    taken = installation.repository().labels()
    applied = lifeboat("config", "apply", before, "--yes", dry.json["plan_hash"])
    after = heroes()
    again = lifeboat("config", "apply", before, "--json")
    told = applied.err.partition("to go back: lifeboat ")[2].splitlines()[0].split()
    undone = lifeboat(*told, "--yes", lifeboat(*told, "--dry-run", "--json").json["plan_hash"], "--no-undo", "--json")

    assert taken == [before]
    assert (applied.code, after) == (0, ("character 1", "character 2", "character 3"))
    assert (again.code, again.json["undo"]) == (0, None)
    assert told[:2] + told[3:] == ["config", "apply", "--prune"]
    assert installation.repository().labels() == [before, told[2]]
    assert (undone.code, undone.json["undo"], heroes()) == (0, None, changed)


def test_without_a_way_back_nothing_is_applied_unless_that_is_wanted(
    lifeboat: Run, heroes: Heroes, settings_file: Path, reachable_tmp: Path
) -> None:
    label = lifeboat("config", "export", "--json").json["label"]
    archive = next((reachable_tmp / "store" / "studio" / label).glob("*.tar.gz"))
    changed = heroes("UPDATE public.characters SET name = 'changed' WHERE id = 2")
    text = tomlkit.parse(settings_file.read_text())
    text["destinations"]["primary"]["minimum_free_bytes"] = 10**15
    settings_file.write_text(tomlkit.dumps(text))
    plan = lifeboat("config", "apply", str(archive), "--dry-run", "--json").json["plan_hash"]
    refused = lifeboat("config", "apply", str(archive), "--yes", plan)
    untouched = heroes()
    applied = lifeboat("config", "apply", str(archive), "--yes", plan, "--no-undo")

    assert (refused.code, untouched) == (1, changed)
    assert "nothing was applied: the present configuration cannot be kept" in refused.err
    assert "HINT: Mend that, or pass --no-undo" in refused.err
    assert (applied.code, heroes()[1]) == (0, "character 2")


def test_an_archive_is_also_read_from_a_file(lifeboat: Run, installation: Installation) -> None:
    label = lifeboat("config", "export", "--json").json["label"]
    path = next((installation.destination().path / "studio" / label).glob("*.tar.gz"))

    assert lifeboat("config", "diff", str(path), label, "--json").json["equal"] is True
    assert lifeboat("config", "diff", str(path.parent / "manifest.json"), label).code == 1


def test_a_database_backup_is_no_configuration_archive(lifeboat: Run) -> None:
    taken = lifeboat("backup", "run", "--type", "logical", "--in-process", "--json")
    label = str(taken.json[0]["label"])
    refused = lifeboat("config", "apply", label, "--dry-run")

    assert refused.code == 1
    assert "is a logical backup, not a configuration archive" in refused.err
