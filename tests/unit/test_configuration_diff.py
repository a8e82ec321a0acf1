"""Differences down to the value; placeholders filled from live values; settings that are refused."""

import pytest
from pydantic import ValidationError

from lifeboat.configuration.content import AnyContent, Archive, FileItem, FilesSection, RowsSection
from lifeboat.configuration.describe import describe_diff, describe_index
from lifeboat.configuration.diff import FieldChange, diff, diff_fields
from lifeboat.configuration.filling import Filling
from lifeboat.configuration.index import REDACTED, ArchiveIndex, Finding, Redaction
from lifeboat.configuration.jsontext import Row
from lifeboat.configuration.redaction import Redactor
from lifeboat.settings.configuration import ConfigurationSettings, FolderSection, QuerySection


def archive(rows: tuple[Row, ...], files: tuple[FileItem, ...], **more: RowsSection) -> Archive:
    sections: dict[str, AnyContent] = {
        "workflows": RowsSection("query", "workflows", {"id": "integer", "graph": "jsonb"}, ("id",), rows),
        "hooks": FilesSection("folder", "hook scripts", "/srv", files),
        **more,
    }
    index = ArchiveIndex(
        lifeboat_version="0.1.0",
        database="studio",
        server_version="18.4",
        sections={name: section.index for name, section in sections.items()},
    )
    return Archive(index, sections)


OLD = archive(
    ({"id": "1", "graph": '{"seed": 1, "nodes": [{"x": 1.0}, {"x": 2}]}'}, {"id": "2"}, {"id": "3", "name": '"c"'}),
    (
        FileItem("a.sh", "file", 0o644, b"one\ntwo\n"),
        FileItem("b.bin", "file", 0o600, b"\0\1"),
        FileItem("gone", "link", 0o777, target="a.sh"),
    ),
    roles=RowsSection("query", "roles", {}, ("name",), ()),
)
NEW = archive(
    (
        {"id": "1", "graph": '{"seed": "1", "nodes": [{"x": 1.00}, {"x": 2}], "new": null}'},
        {"id": "3"},
        {"id": "4", "graph": "null"},
    ),
    (
        FileItem("a.sh", "file", 0o755, b"one\n2\n"),
        FileItem("b.bin", "file", 0o600, b"\0\2"),
        FileItem("new", "directory", 0o755),
    ),
    extra=RowsSection("lifeboat", "extra", {}, ("id",), ()),
)


def test_the_same_is_empty() -> None:
    assert diff(OLD, OLD).is_empty
    assert describe_diff(diff(OLD, OLD)) == ["no difference"]


def test_differences_are_told_by_value() -> None:
    found = diff(OLD, NEW)
    assert (found.added_sections, found.removed_sections) == (("extra",), ("roles",))
    assert describe_diff(found) == [
        "+ section extra",
        "- section roles",
        "workflows:",
        "  + 4",
        "  - 2",
        "  ~ 1",
        '      graph.seed: 1 → "1"',
        "      graph.nodes[0].x: 1.0 → 1.00",
        "      graph.new: NULL → null",
        "  ~ 3",
        '      name: "c" → NULL',
        "hooks:",
        "  + new",
        "  - gone",
        "  ~ a.sh",
        "      mode 0644 → 0755",
        "      --- old/a.sh",
        "      +++ new/a.sh",
        "      @@ -1,2 +1,2 @@",
        "       one",
        "      -two",
        "      +2",
        "  ~ b.bin",
        f"      {OLD.sections['hooks'].files[1].record.sha256} → {NEW.sections['hooks'].files[1].record.sha256}",  # type: ignore[union-attr]
    ]


def test_lists_of_other_lengths_and_spaces_differ_as_a_whole() -> None:
    assert list(diff_fields({"a": "[1, 2]"}, {"a": "[1]"})) == [FieldChange("a", "[1, 2]", "[1]")]
    assert list(diff_fields({"a": '{"b":1}'}, {"a": '{"b": 1}'})) == [FieldChange("a", '{"b":1}', '{"b": 1}')]


def test_the_index_in_lines() -> None:
    index = OLD.index.model_copy(
        update={
            "redacted": [Redaction(section="prefs", item="7", field="smtp.password")],
            "findings": [Finding(section="hooks", item="x", problem="it is left out", hint="Move it.")],
        }
    )
    assert describe_index(index) == [
        "configuration of studio, PostgreSQL 18.4, 6 items",
        "  workflows: 3 (query)",
        "  hooks: 3 (folder)",
        "  roles: 0 (query)",
        "  redacted: prefs 7, smtp.password",
        "  note: hooks x: it is left out. Move it.",
    ]
    assert index.counts_by_kind() == {"workflows": 3, "hook scripts": 3, "roles": 0}


R = f'"{REDACTED}"'


@pytest.mark.parametrize(
    ("archived", "live", "result", "unknown", "kept"),
    [
        (R, '"real"', '"real"', [], []),
        (R, None, R, ["c"], []),
        (R, '""', R, ["c"], []),
        (f'{{"p": {R}, "port": 25}}', '{"p": "real", "port": 26}', '{"p": "real", "port": 25}', [], []),
        (f'{{"p": {R}}}', '{"q": "real"}', f'{{"p": {R}}}', ["c.p"], []),
        (f'"postgres://u:{REDACTED}@h/d"', '"postgres://u:real@h/d"', '"postgres://u:real@h/d"', [], []),
        (f'"postgres://u:{REDACTED}@h/d"', '"postgres://u:real@h2/d"', '"postgres://u:real@h2/d"', [], ["c"]),
        (
            f'[{{"name": "a", "t": {R}}}]', '[{"name": "b", "t": "B"}, {"name": "a", "t": "A"}]',
            '[{"name": "a", "t": "A"}]', [], [],
        ),
        (f'[{{"t": {R}}}, 1]', '[{"t": "A"}, 2]', '[{"t": "A"}, 1]', [], []),
        (f'[{{"k": 1, "t": {R}}}]', '[{"k": 2, "t": "other"}]', '[{"k": 2, "t": "other"}]', [], ["c"]),
        (f'[{{"name": "a", "t": {R}}}]', '[{"name": "b", "t": "B"}]', '[{"name": "b", "t": "B"}]', [], ["c"]),
        (f'[{{"t": {R}}}]', "null", f'[{{"t": {R}}}]', ["c[0].t"], []),
        (f'{{"a": {R}, "n": 1.10}}', '{"a": "x",  "n": 1.10}', '{"a": "x",  "n": 1.10}', [], []),
    ],
    ids=[
        "a value", "NULL", "empty", "a member", "no member", "a password in a URL", "another URL", "a list by name",
        "a list by place", "another element", "another name", "a list of nothing", "only spaces differ",
    ],
)  # fmt: skip
def test_placeholders_are_filled_from_what_is_live(
    archived: str, live: str | None, result: str, unknown: list[str], kept: list[str]
) -> None:
    filling = Filling(Redactor().text)
    assert filling.fill("c", archived, live) == result
    assert (filling.unknown, filling.kept) == (unknown, kept)


def test_sections_are_told_apart() -> None:
    settings = ConfigurationSettings.model_validate(
        {
            "sections": {
                "workflows": {"sql": "SELECT id FROM workflows;\n", "key_columns": ["id"], "table": "workflows"},
                "hooks": {"path": "/srv/hooks"},
            }
        }
    )
    workflows, hooks = settings.sections["workflows"], settings.sections["hooks"]
    assert isinstance(workflows, QuerySection)
    assert workflows.sql == "SELECT id FROM workflows"
    assert isinstance(hooks, FolderSection)
    assert list(settings.sections) == ["workflows", "hooks"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sections": {"w": {"sql": "DELETE FROM x", "key_columns": ["id"]}}}, "does not start with SELECT"),
        ({"sections": {"w": {"sql": "SELECT 1", "key_columns": []}}}, "at least 1 item"),
        ({"sections": {"w": {"sql": "SELECT 1", "key_columns": ["id"], "tables": "x"}}}, "Extra inputs"),
        ({"sections": {"w": {"path": "relative"}}}, "not an absolute path"),
        ({"sections": {"server": {"path": "/x"}}}, "is Lifeboat's own"),
        ({"sections": {"../x": {"path": "/x"}}}, "match pattern"),
        ({"redact": ["("]}, "not a regular expression"),
    ],
    ids=["no query", "no key", "a typing error", "relative", "taken", "a path", "a pattern"],
)
def test_wrong_settings_are_refused(settings: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        ConfigurationSettings.model_validate(settings)
