"""The settings file that `init` writes: it loads, and so does everything that it shows as a comment."""

import re
import tomllib
from pathlib import Path

import pytest

from lifeboat.operations.initialise import settings_text
from lifeboat.settings.loading import load_settings

STATE, BACKUPS = Path("/var/lib/life boat"), Path('/backups/"quoted"')
_SHOWN = re.compile(r"^#(?=[a-z_]+ = (?! # not set))", re.MULTILINE)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Where a settings file is written."""
    return tmp_path / "lifeboat.toml"


def test_it_protects_the_embedded_server(written: Path) -> None:
    written.write_text(settings_text(dsn=None, state_dir=STATE, destination=BACKUPS))
    settings = load_settings(written, environ={})

    assert settings.platform.embedded
    assert settings.platform.dsn is None
    assert settings.state_dir == STATE
    assert settings.destinations["primary"].path == BACKUPS


@pytest.mark.parametrize(
    "dsn", ["host=/run/postgresql dbname=studio", "postgresql://u:p%27w@h/d", r"password='a\'\\b\"'"]
)
def test_it_protects_a_server(written: Path, dsn: str) -> None:
    written.write_text(settings_text(dsn=dsn, state_dir=STATE, destination=BACKUPS))
    settings = load_settings(written, environ={})

    assert not settings.platform.embedded
    assert settings.platform.dsn is not None
    assert settings.platform.dsn.get_secret_value() == dsn


def test_what_it_shows_as_comments_is_valid_too(written: Path) -> None:
    text = settings_text(dsn=None, state_dir=STATE, destination=BACKUPS)
    plain = load_settings(_write(written, text), environ={})
    full = load_settings(_write(written, _SHOWN.sub("", text)), environ={})

    assert full.assets.query is not None
    assert len(full.configuration.sections) == 2
    assert full.drills.validation[0].name == "there are characters"
    assert full.platform.audit_query is not None
    left_out = {"audit_query"}
    changed: dict[str, bool | set[str]] = {"assets": True, "configuration": True, "drills": True, "platform": left_out}
    assert full.model_dump(exclude=changed) == plain.model_dump(exclude=changed)


def test_every_setting_is_in_it() -> None:
    text = settings_text(dsn=None, state_dir=STATE, destination=BACKUPS)

    for key in (
        "bin_dir",
        "dsn",
        "when_locked",
        "jobs",
        "compression_level",
        "keep_last",
        "fraction",
        "mount",
        "api_url",
    ):
        assert re.search(rf"^#?{key} =", text, re.MULTILINE), key
    assert not [line for line in text.splitlines() if "password" in line and not line.startswith("#")]


def test_sections_are_in_the_file_once() -> None:
    text = settings_text(dsn=None, state_dir=STATE, destination=BACKUPS)
    headers = re.findall(r"^\[.+\]$", text, re.MULTILINE)

    assert len(headers) == len(set(headers))
    assert "[destinations.primary]" in headers
    assert tomllib.loads(text)["backup"] == {"destination": "primary"}


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
