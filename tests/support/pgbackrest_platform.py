"""A platform of its own that pgBackRest protects, driven from the command line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import tomlkit
from psycopg.rows import TupleRow

from lifeboat.operations.doctor.run import CheckResult, run_checks
from lifeboat.operations.installation import Installation
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import make_private_dir
from lifeboat.settings.loading import CONFIG_VARIABLE
from tests.support.command_line import Run, runner
from tests.support.installation import SAMPLE
from tests.support.pgbackrest import Pair, fast_folder, new_server
from tests.support.postgres import reachable_dir


@dataclass
class Platform:
    """A server of its own, which nobody has set up for archiving yet, and its settings file."""

    root: Path
    server: Cluster
    pair: Pair
    settings_file: Path
    run: Run

    def write(self, **sections: object) -> None:
        """Write the settings, with sections replaced or added."""
        values: dict[str, object] = {
            "state_dir": str(self.root / "state"),
            "platform": {"cluster": "studio", "dsn": self.server.dsn(), "bin_dir": str(self.pair.tools.bin_dir)},
            "destinations": {"primary": {"path": str(self.root / "store"), "minimum_free_bytes": 0}},
            "backup": {"engine": "pgbackrest"},
            "wal": {"archive_timeout_seconds": 0},
            "retention": {"keep_last": 1, "keep_days": 0},
            "prefect": {"port": 1024},
            "engines": {"pgbackrest": {"program": str(self.pair.program), "archive_timeout_seconds": 20}},
            "drills": {
                "validation": [{"name": "all", "sql": "SELECT count(*) FROM characters", "expect": {"minimum": 1}}]
            },
        }
        self.settings_file.write_text(tomlkit.dumps({**values, **sections}))

    @property
    def installation(self) -> Installation:
        """The installation as the file describes it now."""
        return Installation.load(self.settings_file)

    def connect(self) -> psycopg.Connection[TupleRow]:
        """A connection to the database."""
        return connect(self.server.dsn(), autocommit=True)

    def set_up(self) -> None:
        """Do what `wal install` prints, as an administrator would."""
        done = self.run("wal", "install", "--json")
        assert done.code == 0, done.err
        with self.connect() as session:
            for statement in done.json["statements"]:
                session.execute(statement.encode())

    def take(self, kind: str, *words: str) -> Any:  # noqa: ANN401 - any JSON
        """Take a backup and return what was told of it."""
        done = self.run("backup", "run", "--type", kind, "--in-process", "--json", *words)
        assert done.code == 0, done.err
        return done.json[0]

    def checks(self) -> dict[str, CheckResult]:
        """What doctor says, by name."""
        return {result.name: result for result in run_checks(self.installation)}


@pytest.fixture
def platform(
    pair: Pair, pair_template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Platform]:
    """The platform, its server running."""

    with reachable_dir("lifeboat-platform-", parent=fast_folder()) as root:
        make_private_dir(root / "store", pair.tools.user)
        run = runner(monkeypatch, capsys)
        made = Platform(root, new_server(root, pair_template, pair.tools), pair, root / "lifeboat.toml", run)
        made.write()
        monkeypatch.setenv(CONFIG_VARIABLE, str(made.settings_file))
        with made.connect() as session:
            session.execute(SAMPLE)
        yield made
