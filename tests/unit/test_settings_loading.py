"""lifeboat.toml and the environment: what is not understood is refused by name, and no value of a secret is shown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lifeboat.errors import SettingsError
from lifeboat.settings.loading import find_settings_file, load_settings
from lifeboat.settings.root import Settings

MINIMAL = """
state_dir = "/var/lib/lifeboat"
[platform]
embedded = true
[destinations.primary]
path = "/backups"
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes lifeboat.toml."""

    def write_text(text: str) -> Path:
        path = tmp_path / "lifeboat.toml"
        path.write_text(text)
        return path

    return write_text


def refusal(path: Path, **environ: str) -> str:
    """What is said of wrong settings, without its hint."""
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ=environ)
    return caught.value.message


def test_a_short_file_is_enough(write: Write) -> None:
    settings = load_settings(write(MINIMAL), environ={})

    assert isinstance(settings, Settings)
    assert settings.platform.embedded
    assert settings.backup.destination == "primary"
    assert settings.signing_key_file == Path("/var/lib/lifeboat/keys/signing.pem")


@pytest.mark.parametrize(
    ("line", "named", "nearest"),
    [
        ("[platfor]\nembedded = true", "platfor", "platform"),
        ("[backup]\ndestinatio = 'primary'", "backup.destinatio", "destination"),
        ("[backup]\nfull_max_age = 3", "backup.full_max_age", "full_max_age_days"),
        ("[wal]\nsegment_timeout = 3", "wal.segment_timeout", "segment_timeout_seconds"),
        ("[engines.basebackup]\ncompresion_level = 3", "engines.basebackup.compresion_level", "compression_level"),
        ("[engines.pgdump]\njobs = 3", "engines.pgdump", "pg_dump"),
        ("[destinations.second]\npth = '/b'", "destinations.second.pth", "path"),
        ("[drills.fingerprint]\nfracton = 1", "drills.fingerprint.fracton", "fraction"),
        ("[[drills.validation]]\nname = 'n'\nsql = 'SELECT 1'\nexpects = 'nonempty'", "expects", "expect"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(write: Write, line: str, named: str, nearest: str) -> None:
    said = refusal(write(MINIMAL + line))

    assert f"unknown setting `{named}`" in said or (f"unknown setting `drills.validation.0.{named}`" in said)
    assert f"did you mean `{nearest}`?" in said


def test_a_key_that_resembles_nothing_is_answered_with_all_names(write: Write) -> None:
    said = refusal(write(MINIMAL + "[signing]\nzzz = 1"))

    assert "unknown setting `signing.zzz`; valid here: key_file, trusted_keys" in said


def test_every_fault_is_named_at_once(write: Write) -> None:
    said = refusal(write(MINIMAL + "[backup]\nengin = 'x'\n[retention]\nkeep_last = 0\n[prefect]\nport = 'many'"))

    assert "backup.engin" in said
    assert "retention.keep_last" in said
    assert "prefect.port" in said


def test_what_is_missing_is_named(write: Write) -> None:
    said = refusal(write("[platform]\nembedded = true"))

    assert "`state_dir` is not set" in said
    assert "`destinations` is not set" in said


def test_sections_are_checked_against_each_other(write: Write) -> None:
    assert "exclude each other" in refusal(write(MINIMAL.replace("embedded = true", "embedded = true\ndsn = 'x'")))
    assert "there is only primary" in refusal(write(MINIMAL + "[wal]\ndestination = 'tape'"))


def test_a_path_must_be_absolute(write: Write) -> None:
    assert "not an absolute path" in refusal(write(MINIMAL.replace("/backups", "backups")))


@pytest.mark.parametrize("broken", ["state_dir = ", "[platform\n", "a = 1\na = 2"])
def test_broken_toml_names_the_file(write: Write, broken: str) -> None:
    path = write(broken)

    assert f"{path} is not valid TOML" in refusal(path)


def test_the_environment_goes_first(write: Write) -> None:
    variables = {"LIFEBOAT_BACKUP__ENGINE": "pg_dump", "LIFEBOAT_ENGINES__PG_DUMP__JOBS": "7"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = load_settings(write(MINIMAL + "[engines.pg_dump]\ncompression_level = 5"))

    assert settings.backup.engine == "pg_dump"
    assert settings.engines.pg_dump.jobs == 7
    assert settings.engines.pg_dump.compression_level == 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("LIFEBOAT_PLATFOR__DSN", "did you mean `platform`?"),
        ("LIFEBOAT_PLATFORM__DSM", "did you mean `dsn`?"),
        ("LIFEBOAT_NOTHING", "sets nothing"),
    ],
)
def test_a_variable_that_sets_nothing_is_refused(write: Write, name: str, said: str) -> None:
    path = write(MINIMAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, "x")
        with pytest.raises(SettingsError) as caught:
            load_settings(path)

    assert said in caught.value.message


def test_variables_that_are_no_settings_are_let_through(write: Write) -> None:
    load_settings(write(MINIMAL), environ={"LIFEBOAT_CONFIG": "/x", "LIFEBOAT_COMMAND": "tag", "PATH": "/bin"})


def test_no_value_of_a_secret_is_shown(write: Write) -> None:
    secret = "host=db password=hunter2"
    wrong = MINIMAL.replace("embedded = true", f"dsn = '{secret}'\nbin_dirr = '/x'")
    said = refusal(write(wrong))
    fine = load_settings(write(MINIMAL.replace("embedded = true", f"dsn = '{secret}'")), environ={})

    assert "hunter2" not in said
    assert "hunter2" not in repr(fine)
    assert fine.platform.dsn is not None
    assert fine.platform.dsn.get_secret_value() == secret


def test_a_dsn_of_the_wrong_type_is_not_quoted(write: Write) -> None:
    assert "hunter2" not in refusal(write(MINIMAL.replace("embedded = true", "dsn = ['password=hunter2']")))


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    named, local = tmp_path / "named.toml", tmp_path / "lifeboat.toml"
    named.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.delenv("LIFEBOAT_CONFIG", raising=False)
        with pytest.raises(SettingsError, match=r"there is no settings file"):
            find_settings_file(tmp_path / "absent.toml")
        local.touch()
        assert find_settings_file() == local
        patch.setenv("LIFEBOAT_CONFIG", str(named))
        assert find_settings_file() == named
        assert find_settings_file(local) == local


def test_a_named_file_that_is_absent_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "lifeboat.toml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setenv("LIFEBOAT_CONFIG", str(tmp_path / "absent.toml"))
        with pytest.raises(SettingsError, match=r"absent\.toml"):
            find_settings_file()
