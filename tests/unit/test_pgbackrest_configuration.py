"""What is written for pgBackRest and for the server: text, quoting, and what exit codes mean."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from lifeboat.commands import CommandFailed
from lifeboat.engines.engine import EngineFailed
from lifeboat.engines.pgbackrest.commands import PgBackRest
from lifeboat.engines.pgbackrest.configuration import (
    Folders,
    ServerPlace,
    prepare_folders,
    render_configuration,
    write_configuration,
)
from lifeboat.engines.pgbackrest.describing import Whereabouts, restore_steps
from lifeboat.engines.pgbackrest.failures import (
    ArchivingNotSet,
    LastFullBackup,
    RepositoryBusy,
    RepositoryMismatch,
    RepositoryStopped,
    RepositoryUndecipherable,
    StanzaMissing,
    name_failure,
)
from lifeboat.errors import LifeboatError
from lifeboat.postgres.connections import AuthenticationFailed, SourceUnavailable
from lifeboat.settings.pgbackrest import PgBackRestSettings
from lifeboat.settings.root import Settings
from lifeboat.storage.checked import BackupDamaged
from lifeboat.storage.destination import DestinationDenied, DestinationFull, DestinationUnavailable
from lifeboat.wal.coverage import WalNotArchived
from tests.support.wal import run_as_server

SERVER = ServerPlace(Path("/srv/data"), Path("/run/pg"), 5433, "backup", "studio")


# A type, the levels just beyond what pgBackRest takes of it, and the outermost that it takes.
LEVELS = [("gz", -2, 10, -1, 9), ("bz2", 0, 10, 1, 9), ("lz4", -6, 13, -5, 12), ("zst", -8, 23, -7, 22)]


def folders_of(settings: PgBackRestSettings) -> Folders:
    """Folders with the defaults."""
    return Folders.of(settings, cluster="studio", destination=Path("/backups"), state_dir=Path("/var/lib/lifeboat"))


def test_the_whole_configuration() -> None:
    settings = PgBackRestSettings()
    assert render_configuration(settings, folders_of(settings), "studio", SERVER) == (
        "# Written by Lifeboat from [engines.pgbackrest] in lifeboat.toml: changes are overwritten.\n"
        "[global]\n"
        "repo1-path=/backups/studio/pgbackrest\n"
        "lock-path=/var/lib/lifeboat/pgbackrest/studio/lock\n"
        "log-path=/var/lib/lifeboat/pgbackrest/studio/log\n"
        "spool-path=/var/lib/lifeboat/pgbackrest/studio/spool\n"
        "expire-auto=n\n"
        "process-max=2\n"
        "compress-type=gz\n"
        "archive-async=n\n"
        "archive-copy=y\n"
        "archive-timeout=300\n"
        "start-fast=y\n"
        "log-level-console=off\n"
        "log-level-stderr=warn\n"
        "log-level-file=warn\n"
        "\n"
        "[studio]\n"
        "pg1-path=/srv/data\n"
        "pg1-socket-path=/run/pg\n"
        "pg1-port=5433\n"
        "pg1-user=backup\n"
        "pg1-database=studio\n"
    )


def test_settings_change_it_and_a_reader_has_no_server() -> None:
    settings = PgBackRestSettings.model_validate(
        {
            "repository_path": "/elsewhere",
            "spool_path": "/fast/spool",
            "compress_type": "zst",
            "compress_level": 3,
            "archive_async": True,
            "cipher_type": "aes-256-cbc",
            "cipher_passphrase": "not to be seen",
        }
    )
    text = render_configuration(settings, folders_of(settings), "studio", SERVER)
    for line in (
        "repo1-path=/elsewhere",
        "spool-path=/fast/spool",
        "compress-type=zst",
        "compress-level=3",
        "archive-async=y",
        "repo1-cipher-type=aes-256-cbc",
        "repo1-cipher-pass=not to be seen",
    ):
        assert f"\n{line}\n" in text
    assert "retention" not in text
    assert "not to be seen" not in repr(settings)
    reader = render_configuration(settings, folders_of(settings), "studio")
    assert "pg1-" not in reader
    assert "archive-async=n" in reader


@pytest.mark.parametrize(
    "values",
    [
        {"cipher_type": "aes-256-cbc"},
        {"cipher_passphrase": "x"},
        {"cipher_type": "aes-256-cbc", "cipher_passphrase": "two\nlines"},
        {"cipher_type": "aes-256-cbc", "cipher_passphrase": " x"},
        {"stanza": "a b"},
        {"stanza": "../x"},
        {"repository_path": "relative"},
        {"process_max": 0},
        {"retention_full": 2},
        *({"compress_type": kind, "compress_level": level} for kind, *levels in LEVELS for level in levels[:2]),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PgBackRestSettings.model_validate(values)


def test_levels_are_those_of_the_type() -> None:
    for kind, *levels in LEVELS:
        for level in levels[2:]:
            given = {"compress_type": kind, "compress_level": level}
            assert PgBackRestSettings.model_validate(given).compress_level == level


def test_a_value_with_a_line_break_cannot_add_an_option() -> None:
    settings = PgBackRestSettings()
    place = ServerPlace(Path("/srv/data\nexpire-auto=y"), Path("/run"), 5432, "u", "d")
    with pytest.raises(EngineFailed, match="pg1-path"):
        render_configuration(settings, folders_of(settings), "studio", place)


def test_files_are_written_once_and_privately(tmp_path: Path) -> None:
    folders = Folders.of(
        PgBackRestSettings(), cluster="studio", destination=tmp_path / "store", state_dir=tmp_path / "state"
    )
    prepare_folders(folders, None)
    assert write_configuration(folders.config, "[global]\n", None) is True
    assert write_configuration(folders.config, "[global]\n", None) is False
    assert write_configuration(folders.config, "[global]\na=b\n", None) is True
    folders.config.chmod(0o644)
    assert write_configuration(folders.config, "[global]\na=b\n", None) is True
    assert folders.config.stat().st_mode & 0o777 == 0o600
    for folder in (folders.locks, folders.logs, folders.spool):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.is_relative_to(tmp_path / "state")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"platform": {"embedded": True}}, "a server of your own"),
        ({"wal": {"archive": False}}, "wal.archive must be true"),
        ({"wal": {"receive": True}}, "wal.receive must be false"),
        ({"destinations": {"primary": {"path": "/a"}, "b": {"path": "/b"}}, "wal": {"destination": "b"}}, "the same"),
    ],
)
def test_settings_that_do_not_fit_the_engine_are_refused(sections: dict[str, object], said: str) -> None:
    given: dict[str, object] = {
        "state_dir": "/state",
        "platform": {"dsn": "host=/run"},
        "destinations": {"primary": {"path": "/a"}},
        "backup": {"engine": "pgbackrest"},
    }
    assert Settings.model_validate(given).pgbackrest_archives
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({**given, **sections})
    assert not Settings.model_validate({**given, **sections, "backup": {}}).pgbackrest_archives


def program_of(folder: Path, exit_code: int) -> PgBackRest:
    """A stand-in whose path needs quoting; only the shell's part is looked at."""
    path = folder / "pg back %f rest"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{folder}/said"\nexit {exit_code}\n')
    path.chmod(0o755)
    return PgBackRest(path, "studio", folder / "a 'conf", None, 60)


@pytest.mark.parametrize(("ends", "told"), [(0, 0), (1, 1), (25, 255), (50, 255), (103, 255), (125, 255)])
def test_restore_command_stops_recovery_where_pgbackrest_has_failed(tmp_path: Path, ends: int, told: int) -> None:
    command = program_of(tmp_path, ends).restore_command()
    done = run_as_server(f'cd "{tmp_path}" && {command}', "pg_wal/RECOVERYXLOG", "0" * 24, None)
    assert done.returncode == told
    assert (tmp_path / "said").read_text().splitlines() == [
        f"--config={tmp_path}/a 'conf",
        "--stanza=studio",
        "--log-level-console=off",
        "--log-level-stderr=warn",
        "archive-get",
        f"--pg1-path={tmp_path}",
        "0" * 24,
        "pg_wal/RECOVERYXLOG",
    ]


def test_reading_ahead_has_a_folder_and_locks_of_its_own(tmp_path: Path) -> None:
    command = program_of(tmp_path, 0).restore_command(tmp_path / "ahead of %p")
    run_as_server(f'cd "{tmp_path}" && {command}', "pg_wal/RECOVERYXLOG", "0" * 24, None)
    words = (tmp_path / "said").read_text().splitlines()
    folder = tmp_path / "ahead of %p"
    assert words[4:8] == ["--archive-async", f"--spool-path={folder}", f"--lock-path={folder}", "archive-get"]


def test_a_copy_of_the_repository_is_read_at_its_default_place() -> None:
    settings = PgBackRestSettings.model_validate({"repository_path": "/elsewhere"})
    home = folders_of(settings)
    copy = Folders.of(
        settings, cluster="studio", destination=Path("/second"), state_dir=Path("/var/lib/lifeboat"), copy="second"
    )
    assert (home.repository, copy.repository) == (Path("/elsewhere"), Path("/second/studio/pgbackrest"))
    assert home.reading_config != copy.reading_config


def test_the_manifests_commands_name_what_differs() -> None:
    settings = PgBackRestSettings()
    folders = folders_of(settings)
    near = restore_steps(Whereabouts(folders, "studio", "none", Path("/backups/studio")), "20261123-120725F", {})
    assert '--repo1-path="$REPOSITORY/pgbackrest"' in near[0].commands[1]
    assert near[0].title.startswith("Restore 20261123-120725F")
    far = restore_steps(Whereabouts(folders, "studio", "aes-256-cbc", None), "20261123-120725F", {"16387": "/srv/hot"})
    words = far[2].commands[1]
    assert "--repo1-path=/backups/studio/pgbackrest" in words
    assert "--repo1-cipher-type=aes-256-cbc" in words
    assert '--tablespace-map=16387="$TABLESPACES/16387"' in words
    assert "PGBACKREST_REPO1_CIPHER_PASS" in far[0].title


LAST_FULL = "full backup 20261123-113031F cannot be expired until another full backup has been created on this repo"
ERROR = "WARN: an option is not set\n      HINT: set it.\nERROR: [{code:03}]: {said}\nINFO: x command end"


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (50, "unable to acquire lock on file '/x'\n       HINT: is another process running?", RepositoryBusy),
        (28, "backup and archive info files exist but do not match the database", RepositoryMismatch),
        (103, "unable to find a valid repository:\n  repo1: [ArchiveMismatchError] no match", RepositoryMismatch),
        (103, "unable to find a valid repository", StanzaMissing),
        (55, "unable to load info file\n HINT: has a stanza-create been performed?", StanzaMissing),
        (62, "stop file exists for stanza main", RepositoryStopped),
        (68, "archive_command '/bin/true' must contain pgbackrest", ArchivingNotSet),
        (87, "archive_mode must be enabled", ArchivingNotSet),
        (58, "version '15' in pg_control does not match queried version '17'", RepositoryMismatch),
        (82, "WAL segment 00000001000000000000000B was not archived before the 2000ms timeout", WalNotArchived),
        (75, "backup set 20261123-113031F_x is not valid", BackupDamaged),
        (95, "unable to flush", RepositoryUndecipherable),
        (29, "raised from local-1 protocol: zlib threw error: [-3] data error", BackupDamaged),
        (56, "unable to find primary cluster - cannot proceed", SourceUnavailable),
        (56, 'connection failed: FATAL:  role "x" does not exist', AuthenticationFailed),
        (64, "unable to write '/repo/x': [28] No space left on device", DestinationFull),
        (47, "unable to create path '/repo/backup': [13] Permission denied", DestinationDenied),
        (49, "unable to connect to host", DestinationUnavailable),
        (46, "unexpected control version = 1300 and catalog version = 202307071", EngineFailed),
        (99, "something new", EngineFailed),
    ],
)
def test_exit_codes_become_errors(code: int, said: str, kind: type[LifeboatError]) -> None:
    failure = CommandFailed("pgbackrest", code, ERROR.format(code=code, said=said))
    error = name_failure(failure, "the backup")
    assert type(error) is kind
    assert error.message.startswith(f"the backup failed: {said.splitlines()[0]}")
    assert "command end" not in error.message
    assert error.hint
    assert pickle.loads(pickle.dumps(error)).message == error.message


@pytest.mark.parametrize(
    ("command", "code", "said", "kind", "hint"),
    [
        ("restore", 64, "unable to write '/data/x': [28] No space left on device", DestinationFull, "restored to"),
        ("backup", 64, "unable to write '/repo/x': [28] No space left on device", DestinationFull, "at the repository"),
        ("expire", 75, LAST_FULL, LastFullBackup, "Take another full backup"),
        ("restore", 75, "backup set 20261123-113031F_x is not valid", BackupDamaged, "does not have it any more"),
    ],
)
def test_the_same_words_mean_another_thing_of_another_command(
    command: str, code: int, said: str, kind: type[LifeboatError], hint: str
) -> None:
    error = name_failure(CommandFailed("pgbackrest", code, ERROR.format(code=code, said=said)), "it", command)
    assert type(error) is kind
    assert hint in str(error.hint)


def test_transient_are_only_those_that_a_retry_can_help() -> None:
    transient = {
        code
        for code in range(25, 126)
        if name_failure(CommandFailed("pgbackrest", code, f"ERROR: [{code:03}]: x"), "it").transient
    }
    assert transient == {49, 50, 56, 63, 82, 101}


def test_a_killed_program_is_named() -> None:
    assert "killed by signal 9" in name_failure(CommandFailed("pgbackrest", -9, ""), "the backup").message
