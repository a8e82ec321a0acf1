"""`lifeboat config` on a real platform: out, compared, back, and back again."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import tomlkit

from lifeboat.operations.installation import Installation
from lifeboat.postgres.connections import connect
from lifeboat.settings.loading import CONFIG_VARIABLE
from tests.support.command_line import Ended, Run, lifeboat, settings_file

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


def change_settings(settings_file: Path, **configuration: object) -> None:
    text = tomlkit.parse(settings_file.read_text())
    text["configuration"].update(configuration)
    settings_file.write_text(tomlkit.dumps(text))


def way_back(applied: Ended) -> list[str]:
    """The words after the program of the command that `config apply` tells."""
    return shlex.split(applied.err.partition("to go back: ")[2].splitlines()[0])[1:]


def apply_words(lifeboat: Run, *words: str) -> list[str]:
    """The command line that applies an archive with the plan's approval."""
    dry = lifeboat(*words, "--dry-run", "--json")
    return [*words, "--yes", dry.json["plan_hash"]]


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
    (section,) = differs.json["sections"]
    (item,) = section["changed"]
    assert (differs.json["added_sections"], section["added"], section["changed_files"]) == ([], [], [])
    assert item["fields"] == [{"path": "name", "old": '"character 2"', "new": '"changed"'}]
    assert dry.json["empty"] is False
    (table,) = [table for table in dry.json["tables"] if table["update"]]
    assert (table["table"], table["insert"], table["remove"]) == ("public.characters", [], [])
    assert table["update"] == [
        {"item": item["item"], "fields": [{"path": "name", "old": '"changed"', "new": '"character 2"'}]}
    ]
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
    lifeboat: Run,
    heroes: Heroes,
    installation: Installation,
    settings_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The copied command line must find the same installation from any shell, whatever its folders are called.
    settings_file = settings_file.rename(settings_file.with_name("the studio's.toml"))
    monkeypatch.setenv(CONFIG_VARIABLE, str(settings_file))
    before = lifeboat("config", "export", "--json").json["label"]
    changed = heroes(CHANGE)
    dry = lifeboat("config", "apply", before, "--dry-run", "--json")
    taken = installation.repository().labels()
    applied = lifeboat("config", "apply", before, "--yes", dry.json["plan_hash"])
    after = heroes()
    again = lifeboat("config", "apply", before, "--json")
    told = way_back(applied)
    monkeypatch.delenv(CONFIG_VARIABLE)
    undone = lifeboat(*told, "--yes", lifeboat(*told, "--dry-run", "--json").json["plan_hash"], "--no-undo", "--json")

    assert taken == [before]
    assert (applied.code, after) == (0, ("character 1", "character 2", "character 3"))
    assert (again.code, again.json["undo"]) == (0, None)
    assert told[:4] + told[5:] == ["--config", str(settings_file), "config", "apply", "--prune"]
    assert installation.repository().labels() == [before, told[4]]
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


def test_a_file_that_exports_leave_out_is_neither_replaced_nor_removed(
    lifeboat: Run, heroes: Heroes, settings_file: Path, reachable_tmp: Path, installation: Installation
) -> None:
    hooks = reachable_tmp / "hooks"
    hooks.mkdir()
    deploy, added = hooks / "deploy.sh", hooks / "added.sh"
    deploy.write_text("API_TOKEN=abc123def\n")
    added.write_text("API_TOKEN=abc123def\n")
    (hooks / "plain.sh").write_text("true\n")
    change_settings(settings_file, sections={"hooks": {"path": str(hooks)}})
    both = lifeboat("config", "export", "--json").json["label"]
    deploy.write_text("API_TOKEN=newer123\n")
    added.unlink()
    (hooks / "plain.sh").unlink()
    change_settings(settings_file, sections={"hooks": {"path": str(hooks), "suspected_secrets": "refuse"}})
    refused = lifeboat(*apply_words(lifeboat, "config", "apply", both))
    untouched = deploy.read_text()
    stored = installation.repository().labels()
    deploy.write_text("API_TOKEN=abc123def\n")
    applied = lifeboat(*apply_words(lifeboat, "config", "apply", both))
    undone = lifeboat(*apply_words(lifeboat, *way_back(applied)), "--no-undo")

    assert (refused.code, untouched, stored) == (1, "API_TOKEN=newer123\n", [both])
    assert "no archive could bring back: hooks deploy.sh (an export leaves it out)\n" in refused.err
    assert "HINT: Keep that yourself and pass --no-undo" in refused.err
    assert applied.code == 0
    assert "not complete: hooks added.sh: the file is new and stays, because exports leave it out\n" in applied.err
    assert (undone.code, sorted(path.name for path in hooks.iterdir())) == (0, ["added.sh", "deploy.sh"])


def test_a_redacted_value_is_neither_replaced_nor_removed(
    lifeboat: Run, heroes: Heroes, settings_file: Path, installation: Installation
) -> None:
    with_values = lifeboat("config", "export", "--json").json["label"]
    heroes("DELETE FROM public.segments; DELETE FROM public.characters WHERE id = 3")
    change_settings(settings_file, redact=["^name$"])
    redacted = lifeboat("config", "export", "--json").json["label"]
    changed = heroes("UPDATE public.characters SET name = 'mine' WHERE id = 2")
    update = lifeboat(*apply_words(lifeboat, "config", "apply", with_values))
    heroes("INSERT INTO public.characters VALUES (3, 'third')")
    removal = lifeboat(*apply_words(lifeboat, "config", "apply", redacted, "--prune"))
    untouched = heroes()
    stored = installation.repository().labels()
    wanted = lifeboat(*apply_words(lifeboat, "config", "apply", redacted, "--prune"), "--no-undo")

    assert changed == ("character 1", "mine")
    assert (update.code, removal.code, untouched) == (1, 1, ("character 1", "mine", "third"))
    assert "no archive could bring back: heroes 2 name (it is redacted in archives)\n" in update.err
    assert "no archive could bring back: heroes 3 name (it is redacted in archives)\n" in removal.err
    assert stored == [with_values, redacted]
    assert (wanted.code, heroes()) == (0, ("character 1", "mine"))


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
