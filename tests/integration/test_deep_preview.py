"""The deep preview of what is neither a row of an ordinary table nor a definition: nothing is overlooked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from console.cli.restore_deep import _show
from lifeboat.operations.installation import Installation
from lifeboat.operations.preview.deep import DeepPreview, deep_preview
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.connections import SourceUnavailable
from lifeboat.recovery.targets import RecoveryTarget
from lifeboat.settings.root import Settings
from tests.integration.test_restore_explore import at_time
from tests.support.postgres import reachable_dir
from tests.support.recovery import make_lab

OVERLOOKED = (
    "SELECT lo_put(71, 5, 'other'::bytea)",
    "SELECT lo_unlink(72)",
    # Not as the first: replay stops at the first commit behind the target, and a sequence moves before its commit.
    "SELECT setval('public.takes', 4000)",
    "ALTER ROLE actor SUPERUSER",
    "ALTER ROLE actor PASSWORD 'another secret'",
    "CREATE ROLE intruder",
    "GRANT actor TO singer",
    "ALTER ROLE actor SET work_mem = '7MB'",
    "ALTER DATABASE postgres SET statement_timeout = '9min'",
    "ALTER DATABASE postgres CONNECTION LIMIT 99",
    "REFRESH MATERIALIZED VIEW public.scenes",
    "INSERT INTO public.scratch VALUES (1), (2)",
    "COMMENT ON TABLE public.cast_list IS 'as of today'",
    "ALTER TABLE public.cast_list DROP COLUMN gone, ADD COLUMN arrived int",
    "UPDATE public.cast_list SET kept = 'other' WHERE id = 1",
    "ALTER TABLE public.renamed RENAME COLUMN b TO c",
    "ALTER TABLE public.renamed ALTER a SET STATISTICS 500",
    "GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO actor",
    "ALTER TEXT SEARCH DICTIONARY public.plain (StopWords = english)",
    "SELECT pg_create_physical_replication_slot('standby')",
    "ALTER USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (SET password 'another secret')",
    "ALTER SYSTEM SET log_min_duration_statement = '5s'",
    "ALTER SYSTEM SET primary_conninfo = 'password=secret'",
    "ALTER ROLE actor SET app.key = 'a secret'",
    "CREATE SCHEMA rescue_me CREATE TABLE kept (id int)",
    "INSERT INTO rescue_me.kept VALUES (1)",
)


@pytest.fixture(scope="module")
def overlooked(pg_tools: PgTools) -> Iterator[DeepPreview]:
    """A deep preview of just before OVERLOOKED: what is neither a row of an ordinary table nor a definition."""
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        lab.run(
            "CREATE SEQUENCE public.takes",
            "SELECT lo_from_bytea(71, 'large object')",
            "SELECT lo_from_bytea(72, 'another one')",
            "CREATE ROLE actor LOGIN PASSWORD 'a secret'",
            "CREATE ROLE singer",
            "CREATE MATERIALIZED VIEW public.scenes AS SELECT count(*) AS tables FROM pg_class WHERE relkind = 'r'",
            "CREATE UNLOGGED TABLE public.scratch (id int)",
            "CREATE UNLOGGED SEQUENCE public.scratched",
            "CREATE TABLE public.cast_list (id int PRIMARY KEY, kept text, gone text)",
            "INSERT INTO public.cast_list VALUES (1, 'a', 'x'), (2, 'b', 'y')",
            "CREATE TABLE public.renamed AS SELECT 1 AS a, 2 AS b",
            "CREATE TEXT SEARCH DICTIONARY public.plain (TEMPLATE = simple)",
            "CREATE FOREIGN DATA WRAPPER nothing",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
            "CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (password 'a secret')",
        )
        lab.back_up()
        lab.commit(1)
        at = lab.moment()
        lab.run(*OVERLOOKED)
        lab.commit(2)
        lab.switch()
        yield deep_preview(lab.installation, at_time(at))
        lab.cluster.stop(mode="immediate")


def test_nothing_is_restored_where_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    given = {
        "state_dir": tmp_path / "state",
        "platform": {"dsn": f"host={tmp_path}"},
        "destinations": {"primary": {"path": tmp_path / "store"}},
    }
    phases: list[str] = []
    with pytest.raises(SourceUnavailable):
        deep_preview(Installation(Settings.model_validate(given)), RecoveryTarget(), on_progress=phases.append)
    assert phases == []


def test_a_deep_preview_overlooks_nothing_beside_tables(overlooked: DeepPreview) -> None:
    found = {fact.name: (fact.then, fact.now) for fact in overlooked.facts}
    role = found.pop("role actor")
    assert role == ("LOGIN", "LOGIN, SUPERUSER")
    assert found.pop("role intruder") == (None, "NOLOGIN")
    assert found.pop("sequence public.takes") == ("1, not yet given out", "4000")
    assert found.pop("setting work_mem of role actor") == (None, "7MB")
    assert found.pop("setting statement_timeout in database postgres") == (None, "9min")
    assert found.pop("comment on table public.cast_list") == (None, "as of today")
    assert found.pop("replication slot standby") == (None, "physical")
    assert "CONNECTION LIMIT 99" in str(found.pop("database postgres")[1])
    assert found.pop("storage of public.renamed.a")[1] == "STORAGE p, STATISTICS 500"
    assert "actor=X" in str(found.pop("access function pg_catalog.pg_ls_dir(pg_catalog.text)")[1])
    assert found.pop("server setting log_min_duration_statement") == (None, "5s")
    assert found.pop("server setting primary_conninfo") == (None, "another")
    assert found.pop("setting app.key of role actor") == (None, "another")
    hidden = ("as it was", "another")
    assert found.pop("password of role actor") == hidden
    assert found.pop("user mapping of PUBLIC for server elsewhere") == hidden
    assert found.pop("text search dictionary public.plain") == hidden
    membership = next(name for name in found if name.startswith("membership of singer in actor"))
    assert found.pop(membership)[0] is None
    assert found == {}
    assert overlooked.not_compared == []
    assert overlooked.exact
    assert "secret" not in str(overlooked)
    assert "SCRAM" not in str(overlooked)


def test_a_deep_preview_tells_of_every_kind_of_rows(overlooked: DeepPreview) -> None:
    tables = {table.table: table for table in overlooked.different}

    def facts(name: str) -> tuple[object, ...]:
        table = tables.pop(name)
        return table.rows_then, table.rows_now, table.only_then, table.only_now, table.changed

    assert tables["large objects"].keys == {"only_then": ["72"], "only_now": [], "changed": ["71"]}
    assert facts("large objects") == (2, 1, 1, 0, 1)
    assert facts("public.scenes") == (1, 1, 1, 1, None)
    assert facts("public.scratch") == (0, 2, 0, 2, 0)
    assert facts("rescue_me.kept") == (None, 1, 0, 1, 0)
    cast, renamed = tables["public.cast_list"], tables["public.renamed"]
    assert (cast.columns_then, cast.columns_now) == (["gone"], ["arrived"])
    assert (cast.only_then, cast.only_now, cast.changed, cast.keys["changed"]) == (0, 0, 1, ["(1)"])
    assert (renamed.columns_then, renamed.columns_now, renamed.only_then) == (["b"], ["c"], 0)
    assert set(tables) == {"public.cast_list", "public.renamed", "public.heartbeats"}


def test_a_deep_preview_shows_all_that_it_found(overlooked: DeepPreview, capsys: pytest.CaptureFixture[str]) -> None:
    _show(overlooked)
    shown = capsys.readouterr()
    assert "role actor: LOGIN, SUPERUSER becomes LOGIN" in shown.out
    assert "role intruder: NOLOGIN becomes not there" in shown.out
    assert "columns of public.cast_list that come back: gone" in shown.out
    assert "up to 32 values ahead" in shown.err


def test_prepared_transactions_are_compared_or_named(pg_tools: PgTools) -> None:
    with reachable_dir() as root:
        lab = make_lab(pg_tools, root)
        lab.cluster.stop()
        lab.start(max_prepared_transactions=3)
        lab.back_up()
        lab.run("BEGIN; INSERT INTO public.notes VALUES (1, 'x'); PREPARE TRANSACTION 'then'")
        lab.commit(1)
        at = lab.moment()
        lab.run(
            "COMMIT PREPARED 'then'",
            "BEGIN; INSERT INTO public.notes VALUES (2, 'x'); PREPARE TRANSACTION 'now'",
        )
        lab.commit(2)
        lab.switch()
        found = deep_preview(lab.installation, at_time(at))
        assert [(fact.name, fact.then) for fact in found.facts] == [("prepared transaction now", None)]
        assert [line.partition(":")[0] for line in found.not_compared] == ["prepared transactions"]
        assert not found.exact
        lab.cluster.stop(mode="immediate")
