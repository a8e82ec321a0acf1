"""What is installed for the server, and for whom."""

import ast
import json
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from pydantic import ValidationError

from lifeboat.settings.wal import WalSettings
from lifeboat.wal.archive_program.layout import Config
from lifeboat.wal.install import (
    ArchiveNotReady,
    InstalledProgram,
    WalConfig,
    packed_program,
    prepare_archive,
)
from tests.support.wal import SEGMENT_BYTES, SYSTEM, make_archive

VALUES = {
    "path": "/srv/backups",
    "cluster": "studio",
    "system_identifier": SYSTEM,
    "segment_size_bytes": SEGMENT_BYTES,
    "compression_level": 1,
    "retries": 3,
    "retry_delay_seconds": 1,
    "minimum_free_bytes": 0,
}


def test_program_understands_the_rendered_config() -> None:
    rendered = WalConfig.model_validate(VALUES).model_dump_json()
    config = Config(json.loads(rendered))
    assert config.archive == "/srv/backups/studio/wal"
    assert {key: getattr(config, key) for key in VALUES} == VALUES


def test_config_comes_from_the_settings() -> None:
    settings = WalSettings(compression_level=3, fetch_retries=7, fetch_retry_delay_seconds=2, minimum_free_bytes=5)
    config = WalConfig.of(
        settings, Path("/srv/backups"), "studio", system_identifier=SYSTEM, segment_size_bytes=SEGMENT_BYTES
    )
    assert (config.compression_level, config.retries, config.retry_delay_seconds) == (3, 7, 2.0)
    assert (config.minimum_free_bytes, config.path, config.cluster) == (5, "/srv/backups", "studio")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "srv/backups"},
        {"path": "/srv/back\nups"},
        {"cluster": "../other"},
        {"cluster": ""},
        {"cluster": ".hidden"},
        {"system_identifier": "7301234567890123456x"},
        {"segment_size_bytes": 3 * SEGMENT_BYTES},
        {"segment_size_bytes": 0},
        {"compression_level": 10},
        {"retries": -1},
        {"minimum_free_bytes": -1},
        {"format": 2},
        {"unknown": 1},
    ],
)
def test_senseless_config_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WalConfig.model_validate(VALUES | change)


def test_program_needs_the_standard_library_only() -> None:
    with zipfile.ZipFile(BytesIO(packed_program())) as archive:
        members = {name: ast.parse(archive.read(name), feature_version=(3, 9)) for name in archive.namelist()}
    assert "__main__.py" in members
    imported: set[str] = set()
    for tree in members.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert {name for name in foreign if not name.startswith("lifeboat.wal.archive_program")} == set()


def test_the_same_source_packs_to_the_same_bytes() -> None:
    assert packed_program() == packed_program()


def test_percent_and_quotes_in_paths_are_escaped() -> None:
    installed = InstalledProgram(Path("/o'%p/prog.pyz"), Path("/a b/wal.json"), Path("/usr/bin/python3"), None)
    assert installed.archive_command == (
        "/usr/bin/python3 -X utf8 -I -S '/o'\"'\"'%%p/prog.pyz' push --config '/a b/wal.json' \"%p\" \"%f\" || exit 1"
    )
    assert installed.restore_command == (
        "/usr/bin/python3 -X utf8 -I -S '/o'\"'\"'%%p/prog.pyz' fetch --config '/a b/wal.json' --absent-code 44"
        ' "%p" "%f"; case $? in 0) exit 0;; 44) exit 1;; *) exit 255;; esac'
    )


def test_archive_is_prepared_once(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    marker = archive.folder / "archive.json"
    before = marker.stat().st_mtime_ns
    assert json.loads(marker.read_text()) == {"system_identifier": SYSTEM, "segment_size_bytes": SEGMENT_BYTES}
    assert prepare_archive(archive.config, user=None) == archive.folder
    assert marker.stat().st_mtime_ns == before


def test_archive_of_another_system_is_not_taken_over(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    with pytest.raises(ArchiveNotReady, match=f"belongs to system {SYSTEM}") as caught:
        prepare_archive(archive.config.model_copy(update={"system_identifier": "42"}), user=None)
    assert "own cluster name" in str(caught.value.hint)


def test_archive_that_lost_its_marker_is_not_taken_over(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    marker = archive.folder / "archive.json"
    content = marker.read_text()
    marker.unlink()
    prepare_archive(archive.config, user=None)
    marker.unlink()
    (archive.folder / "0000000100000000").mkdir()
    with pytest.raises(ArchiveNotReady, match="holds WAL, but not the marker") as caught:
        prepare_archive(archive.config, user=None)
    marker.write_text(str(caught.value.hint).partition("this content: ")[2].removesuffix("."))
    assert json.loads(marker.read_text()) == json.loads(content)
    prepare_archive(archive.config, user=None)


def test_missing_destination_is_not_created(tmp_path: Path) -> None:
    config = WalConfig.model_validate(VALUES | {"path": str(tmp_path / "mount")})
    with pytest.raises(ArchiveNotReady, match=r"the destination .* is not there"):
        prepare_archive(config, user=None)
    assert not (tmp_path / "mount").exists()
