"""The syntax of postgresql.conf: what we write is what we read, and what others write is understood."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifeboat.postgres.conf import quote_setting, read_settings, render_settings

_VALUES = st.text(st.characters(exclude_categories=["Cs", "Zl", "Zp", "Cc"]))


@given(value=_VALUES)
def test_a_value_survives_writing_and_reading(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_text(render_settings({"archive_command": value}, heading="test"), "utf-8")

    assert read_settings(path) == {"archive_command": value}


def test_values_are_written_by_their_type() -> None:
    text = render_settings({"fsync": False, "port": 5433, "cost": 0.5, "name": r"it's a\b"}, heading="test")

    assert text == "# test\nfsync = off\nport = 5433\ncost = 0.5\nname = 'it''s a\\\\b'\n"


@pytest.mark.parametrize("value", ["a\nb = 1", "a\0"])
def test_a_value_cannot_smuggle_in_another_setting(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        quote_setting(value)


def test_forms_that_postgresql_accepts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "postgresql.conf"
    path.write_text(
        "# comment = 1\n"
        "Max_Connections 200   # no equals sign\n"
        "archive_command = 'cp ''%p'' /a\\\\b' # quoted\n"
        "work_mem=4MB\n"
        "cron.database_name = 'x'\n"
        "work_mem = 8MB\n"
        "include_dir 'conf.d'\n"
        "broken = 'no end\n"
    )

    assert read_settings(path) == {
        "max_connections": "200",
        "archive_command": r"cp '%p' /a\b",
        "work_mem": "8MB",
        "cron.database_name": "x",
    }


def test_a_missing_file_sets_nothing(tmp_path: Path) -> None:
    assert read_settings(tmp_path / "none.conf") == {}
