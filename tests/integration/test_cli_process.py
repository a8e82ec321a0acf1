"""The real process: what it loads, how it ends when it is interrupted, and the first steps of a new installation."""

import fcntl
import json
import os
import pty
import shlex
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pytest
import tomlkit

from lifeboat.operations.installation import Installation
from lifeboat.postgres.binaries import PgTools
from lifeboat.settings.loading import CONFIG_VARIABLE

ROOT = Path(__file__).parents[2]
LIFEBOAT = [sys.executable, "-m", "console.cli.main"]


def environment(**more: str) -> dict[str, str]:
    """Our own environment, with the checkout on the path."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **more}


def run(*words: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command line to its end."""
    return subprocess.run(
        [*LIFEBOAT, *words],
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def loaded_by(code: str) -> set[str]:
    """The top-level packages, and our own modules, that a fresh interpreter has loaded after `code`."""
    head = "import sys, json, io\nkept, sys.stdout = sys.stdout, io.StringIO()"
    script = f"{head}\n{code}\njson.dump(sorted(sys.modules), kept)"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    return set(json.loads(done.stdout))


def test_help_loads_nothing() -> None:
    loaded = loaded_by("from console.cli.main import main\nmain(['--help'])")

    assert not loaded & {"typer", "rich", "pydantic", "psycopg", "sqlalchemy", "prefect", "typing", "lifeboat"}


def test_wal_commands_load_the_standard_library_alone() -> None:
    loaded = loaded_by("from console.cli.main import main\nmain(['wal', 'push', 'x', 'y'])")

    assert "lifeboat.wal.archive_program.push" in loaded
    assert not loaded & {"typer", "rich", "pydantic", "psycopg", "sqlalchemy", "prefect", "psutil", "cryptography"}


def test_the_commands_load_no_domain_before_they_run() -> None:
    loaded = loaded_by("from console.cli.main import build_app\nbuild_app()")

    assert "typer" in loaded
    assert not loaded & {"pydantic", "psycopg", "sqlalchemy", "prefect", "lifeboat.operations", "lifeboat.settings"}


@pytest.mark.parametrize(
    "command", ["backup list", "doctor", "retention plan", "schedule list", "wal status", "restore points", "note list"]
)
def test_commands_that_work_in_process_load_no_prefect(command: str, settings_file: Path) -> None:
    words = ["--config", str(settings_file), *command.split()]
    loaded = loaded_by(f"from console.cli.main import main\nmain({words!r})")

    assert "lifeboat.operations.installation" in loaded
    assert "prefect" not in loaded


def test_a_new_installation_takes_its_first_steps(reachable_tmp: Path, pg_tools: PgTools) -> None:
    path, state = reachable_tmp / "lifeboat.toml", reachable_tmp / "state"
    variables = {"LIFEBOAT_PLATFORM__BIN_DIR": str(pg_tools.bin_dir), "LIFEBOAT_PREFECT__PORT": "1024"}
    made = run("init", "--embedded", "--config", str(path), "--state-dir", str(state), **variables)
    before = path.read_bytes()
    again = run("init", "--embedded", "--config", str(path), "--state-dir", str(state), **variables)
    doctor = run("doctor", "--config", str(path), "--json", **variables)
    early = run("backup", "run", "--type", "full", "--config", str(path), **variables)

    assert made.returncode == 0, made.stderr
    following = [shlex.split(line)[1:] for line in made.stdout.partition("Next:\n")[2].splitlines()]
    assert following == [
        ["--config", str(path), *words] for words in (["doctor"], ["up"], ["backup", "run", "--type", "full"])
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((state / "keys" / "signing.pem").stat().st_mode) == 0o600
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert path.read_bytes() == before
    assert doctor.returncode == 0, doctor.stdout
    assert json.loads(doctor.stdout)["counts"].get("failed", 0) == 0
    assert early.returncode == 1
    assert early.stderr.endswith("HINT: Start it in another terminal: `lifeboat up`.\n")


def test_a_password_is_read_from_stdin_and_refused_settings_leave_nothing(reachable_tmp: Path) -> None:
    path, state = reachable_tmp / "lifeboat.toml", reachable_tmp / "state"
    words = ["init", "--dsn", "-", "--config", str(path), "--state-dir", str(state)]
    broken = run(*words, stdin="host='unbalanced\n")
    wrong = run(*words, stdin="host=db\n", LIFEBOAT_NONSENSE__X="1")
    assert not path.exists()
    made = run(*words, stdin="host=db user=backup password=hunter2\n")

    assert broken.returncode == 1
    assert "cannot be parsed" in broken.stderr
    assert wrong.returncode == 2
    assert made.returncode == 0, made.stderr
    assert "hunter2" not in made.stdout + made.stderr
    assert tomlkit.parse(path.read_text())["platform"]["dsn"] == "host=db user=backup password=hunter2"


def test_a_state_folder_that_the_server_cannot_reach_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root runs the server as another account")
    # Pytest's folders have mode 0700.
    refused = run("init", "--embedded", "--config", str(tmp_path / "lifeboat.toml"), "--state-dir", str(tmp_path / "s"))

    assert refused.returncode == 1
    assert "cannot enter" in refused.stderr
    assert not (tmp_path / "lifeboat.toml").exists()


@pytest.fixture
def settings_file(installation: Installation, reachable_tmp: Path) -> Path:
    """The settings of `installation` as a file; a base backup takes minutes with them."""
    path = reachable_tmp / "lifeboat.toml"
    given = installation.settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    slowly = {"basebackup": {"max_rate_kilobytes_per_second": 1024}}
    path.write_text(tomlkit.dumps({**given, "engines": slowly, "prefect": {"port": 1024}}))
    return path


@contextmanager
def backing_up(settings_file: Path, installation: Installation) -> Iterator["subprocess.Popen[str]"]:
    """A backup in the middle of its work."""
    process = subprocess.Popen(
        [*LIFEBOAT, "backup", "run", "--type", "full", "--in-process"],
        env=environment(**{CONFIG_VARIABLE: str(settings_file)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _until(lambda: any(path.stat().st_size for path in installation.destination().path.glob("studio/*/base/*")))
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_backup_leaves_a_truthful_row_and_nothing_else(
    settings_file: Path, installation: Installation, number: signal.Signals, code: int
) -> None:
    with backing_up(settings_file, installation) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    rows = installation.catalog.backups.list_backups().rows

    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out == ""
    assert [row.status for row in rows] == ["cancelled"]
    assert installation.repository().unfinished_labels() == []
    assert installation.repository().labels() == []


def test_a_terminal_gets_colours_and_progress_and_the_same_facts(settings_file: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    variables = environment(**{CONFIG_VARIABLE: str(settings_file), "TERM": "xterm"})
    for name in ("COLUMNS", "LINES"):  # they would win over the size of the terminal
        variables.pop(name, None)
    for words in (["config", "export"], ["backup", "list"]):
        subprocess.run([*LIFEBOAT, *words], env=variables, stdout=theirs, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    with open(ours, "rb") as stream:
        shown = _read_all(stream).decode()

    assert "exporting the configuration" in shown
    assert "\x1b[32mcompleted" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["backup list", "--help", "--version"])
def test_a_reader_that_goes_away_is_no_error(settings_file: Path, command: str, unbuffered: str) -> None:
    process = subprocess.Popen(
        [*LIFEBOAT, *command.split()],
        env=environment(**{CONFIG_VARIABLE: str(settings_file), "PYTHONUNBUFFERED": unbuffered}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stream:
        err = stream.read()
    process.wait(timeout=60)

    assert "Traceback" not in err
    assert "Exception" not in err


def _read_all(stream: BinaryIO) -> bytes:
    # At its end a terminal answers with EIO.
    chunks = []
    with suppress(OSError):
        while chunk := os.read(stream.fileno(), 65536):
            chunks.append(chunk)
    return b"".join(chunks)


def _until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
