"""The small platform of tests/support/configuration.py in a database of its own, and an archive of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from lifeboat.configuration.content import Archive
from lifeboat.postgres.connections import connect
from lifeboat.settings.configuration import ConfigurationSettings
from tests.support.configuration import export, make_platform, platform_settings


@pytest.fixture
def session(fresh_database: str) -> Iterator[Connection[Any]]:
    """A connection to a database of the test's own."""
    with connect(fresh_database, autocommit=True) as connection:
        connection.execute("SET search_path = public")
        yield connection


@pytest.fixture
def hooks(tmp_path: Path) -> Path:
    """The folder that the platform's hook scripts are made in."""
    return tmp_path / "hooks"


@pytest.fixture
def settings(session: Connection[Any], hooks: Path) -> ConfigurationSettings:
    """The platform, made, and the settings that export it."""
    make_platform(session, hooks)
    # Apart from its own test, what is left to an administrator only costs time.
    return platform_settings(hooks, server_files=[], roles=False)


@pytest.fixture
def archive(session: Connection[Any], settings: ConfigurationSettings) -> Archive:
    """What the platform's configuration was when the test began."""
    return export(session, settings)
