"""A whole installation for tests: an embedded server of its own that archives, and a destination."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lifeboat.catalog.migrate import migrate
from lifeboat.operations.installation import Installation
from lifeboat.operations.platform import start_platform, stop_platform
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from tests.support.postgres import reachable_dir, spare_the_disk

SAMPLE = """
CREATE TABLE public.characters (id int PRIMARY KEY, name text NOT NULL, born timestamptz DEFAULT now());
INSERT INTO public.characters SELECT i, 'character ' || i FROM generate_series(1, 500) i;
CREATE TABLE public.segments (id int PRIMARY KEY, character_id int REFERENCES public.characters, body text);
INSERT INTO public.segments SELECT i, 1 + i % 500, repeat(md5(i::text), 40) FROM generate_series(1, 3000) i;
CREATE SEQUENCE public.numbers;
CREATE UNLOGGED TABLE public.cache AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW public.counts AS SELECT count(*) AS characters FROM public.characters;
INSERT INTO public.characters VALUES (501, 'the view is stale now');
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE public.remote (id int) SERVER elsewhere;
"""


def make_installation(state_dir: Path, pg_tools: PgTools, **sections: object) -> Installation:
    """Settings for an embedded platform below `state_dir`; `sections` replace or add sections."""
    given: dict[str, object] = {
        "state_dir": state_dir / "state",
        "platform": {"cluster": "studio", "embedded": True, "database": "studio", "bin_dir": pg_tools.bin_dir},
        "destinations": {"primary": {"path": state_dir / "store", "minimum_free_bytes": 0}},
        "wal": {"minimum_free_bytes": 0, "archive_timeout_seconds": 0, "segment_timeout_seconds": 60},
    }
    return Installation(Settings.model_validate({**given, **sections}))


@pytest.fixture(scope="session")
def platform_home(pg_tools: PgTools) -> Iterator[Path]:
    """The folder of the session's installation; its server runs and archives."""
    with reachable_dir("lifeboat-home-") as path:
        installation = make_installation(path, pg_tools)
        spare_the_disk(start_platform(installation))
        yield path
        stop_platform(installation)


@pytest.fixture
def installation(platform_home: Path, pg_tools: PgTools, reachable_tmp: Path) -> Installation:
    """The session's platform with a fresh sample database, a migrated catalog and an empty destination."""
    destinations = {
        "primary": {"path": reachable_tmp / "store", "minimum_free_bytes": 0},
        "wal": {"path": platform_home / "store", "minimum_free_bytes": 0},
    }
    wal = {"destination": "wal", "minimum_free_bytes": 0, "archive_timeout_seconds": 0, "segment_timeout_seconds": 60}
    made = make_installation(platform_home, pg_tools, destinations=destinations, wal=wal)
    with connect(made.source.with_database("postgres"), autocommit=True) as session:
        session.execute("DROP DATABASE IF EXISTS studio WITH (FORCE)")
        session.execute("CREATE DATABASE studio")
    with connect(made.source, autocommit=True) as session:
        session.execute(SAMPLE)
    migrate(made.source)
    (reachable_tmp / "store").mkdir()
    give_to(reachable_tmp / "store", made.run_as)
    return made
