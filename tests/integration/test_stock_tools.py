"""Each engine's backup comes back with stock tools alone, by the commands in its manifest."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifeboat.configuration.diff import diff
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.configuration_archives import load_archive
from lifeboat.operations.export_configuration import export_configuration
from lifeboat.operations.installation import Installation
from lifeboat.operations.live_configuration import read_live
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import account_ids, give_tree_to
from lifeboat.settings.configuration import ConfigurationSettings
from lifeboat.storage.manifest import BackupType
from tasks.restore_commands import restore_lines
from tests.support import stock_restore


class Administrator:
    """Runs programs as the account of PostgreSQL, with a clean environment and only PostgreSQL's programs on PATH."""

    def __init__(self, installation: Installation, home: Path) -> None:
        self.tools = installation.tools
        self.home = home
        self.target, self.socket = home / "restored", home / "socket"
        self.socket.mkdir(mode=0o700)
        self.uid, self.gid = account_ids(self.tools.user)
        os.chown(self.socket, self.uid, self.gid)
        # The account cannot read a checkout in somebody's home: it gets the script alone.
        self.script = home / "stock_restore.py"
        shutil.copy(stock_restore.__file__, self.script)
        self.script.chmod(0o644)

    def run(self, *words: str | Path, **environment: str) -> str:
        """The output of a program; fails the test when the program fails."""
        done = subprocess.run(
            [str(word) for word in words],
            env={
                "PATH": f"{self.tools.bin_dir}:/usr/bin:/bin",
                "TARGET": str(self.target),
                "SOCKET": str(self.socket),
                "PGHOST": str(self.socket),
                "PGUSER": "postgres",
                **environment,
            },
            user=self.uid if os.geteuid() == 0 else None,
            group=self.gid if os.geteuid() == 0 else None,
            extra_groups=[] if os.geteuid() == 0 else None,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def restore(self, installation: Installation, label: str, **environment: str) -> None:
        """Follow the manifest; `environment` names what it leaves to whoever restores."""
        repository = installation.repository()
        folder = repository.destination.path / repository.cluster  # type: ignore[attr-defined]
        python = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable
        self.run(python, "-I", self.script, folder, label, **environment)

    def ask(self, sql: str) -> str:
        """One value from the restored database."""
        return self.run("psql", "-XAtq", "-d", "studio", "-c", sql).strip()


@pytest.fixture
def administrator(installation: Installation, reachable_tmp: Path) -> Iterator[Administrator]:
    """Somebody without Lifeboat; a server that was left running is stopped."""
    somebody = Administrator(installation, reachable_tmp)
    yield somebody
    with stopped(somebody):
        pass


@contextmanager
def stopped(somebody: Administrator) -> Iterator[None]:
    """Stop the restored server at the end."""
    yield
    Cluster(somebody.target, somebody.tools, somebody.socket).stop(mode="immediate")


def expected(installation: Installation) -> tuple[str, str]:
    """Row counts and a content hash of the live database."""
    with connect(installation.source, autocommit=True) as session:
        row = session.execute(CONTENT).fetchone()
    assert row is not None
    return str(row[0]), str(row[1])


CONTENT = "SELECT count(*), md5(string_agg(c::text, '' ORDER BY c.id)) FROM public.characters c"


def test_a_full_base_backup(installation: Installation, administrator: Administrator) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    administrator.restore(installation, backup.label)
    assert administrator.ask(CONTENT) == "|".join(expected(installation))


def test_what_is_printed_can_be_pasted(installation: Installation, administrator: Administrator) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    printed = restore_lines(installation.repository().manifest(backup.label), backup.location)
    text = "\n".join(printed).replace("export TARGET=…", f"export TARGET={administrator.target}")
    ask = f'psql -h "$SOCKET" -XAtq -d studio -c "{CONTENT}"'
    restored = administrator.run("sh", "-euc", f"unset SOCKET\n{text}\n{ask}")

    assert printed[0].startswith("# Run all of this as the account that will own the server")
    assert restored.splitlines()[-1] == "|".join(expected(installation))


def test_a_chain_of_a_full_a_differential_and_an_incremental_backup(
    installation: Installation, administrator: Administrator
) -> None:
    if installation.tools.major < 17:
        pytest.skip("incremental base backups came with PostgreSQL 17")
    for kind in (BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL):
        with connect(installation.source, autocommit=True) as session:
            session.execute("UPDATE public.characters SET name = name || %s WHERE id < 100", (f" {kind}",))
        backup = take_backup(installation, BackupOrder(kind))
        assert backup.type is kind
    administrator.restore(installation, backup.label)
    assert administrator.ask(CONTENT) == "|".join(expected(installation))


def test_a_dump_with_its_roles(installation: Installation, administrator: Administrator) -> None:
    with connect(installation.source, autocommit=True) as session:
        session.execute("DROP ROLE IF EXISTS curator")
        session.execute("CREATE ROLE curator; ALTER TABLE public.segments OWNER TO curator")
    backup = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    administrator.run("initdb", "-D", administrator.target, "-U", "postgres", "--no-sync", "--auth=trust")
    options = f"-c listen_addresses='' -c unix_socket_directories='{administrator.socket}'"
    log = administrator.home / "log"
    administrator.run("pg_ctl", "-D", administrator.target, "-l", log, "-w", "-o", options, "start")
    administrator.restore(installation, backup.label)
    assert administrator.ask(CONTENT) == "|".join(expected(installation))
    assert administrator.ask("SELECT tableowner FROM pg_tables WHERE tablename = 'segments'") == "curator"


def test_a_configuration_archive(installation: Installation, administrator: Administrator) -> None:
    """Rows by psql, files by tar and cp; afterwards the live configuration is what was exported."""
    hooks = administrator.home / "hooks"
    configured = with_configuration(installation, hooks)
    with connect(configured.source, autocommit=True) as session:
        session.execute("CREATE TABLE public.presets (name text PRIMARY KEY, graph jsonb NOT NULL, icon bytea)")
        session.execute(
            "INSERT INTO public.presets VALUES ('calm', '{\"seed\": 1.10}', '\\x00ff'), ('wild', '[]', NULL)"
        )
    exported = export_configuration(configured)
    archive = load_archive(configured, exported.label).archive
    assert diff(archive, read_live(configured).archive).is_empty
    with connect(configured.source, autocommit=True) as session:
        session.execute("UPDATE public.characters SET name = 'lost' WHERE id = 2")
        session.execute("DELETE FROM public.presets WHERE name = 'calm'; UPDATE public.presets SET graph = '{}'")
    shutil.rmtree(hooks / "on_approve")
    changed = diff(archive, read_live(configured).archive)
    assert {section.name for section in changed.sections} == {"heroes", "presets", "hooks"}

    # Such an archive belongs to whoever took it, and nobody else may read it.
    administrator.uid, administrator.gid = os.geteuid(), os.getegid()
    administrator.restore(configured, exported.label, DATABASE=configured.source.dsn, HOOKS_DIR=str(hooks))
    assert diff(archive, read_live(configured).archive).is_empty
    script = hooks / "on_approve" / "notify.sh"
    assert (script.read_text(), script.stat().st_mode & 0o777) == ("#!/bin/sh\necho approved\n", 0o755)


def with_configuration(installation: Installation, hooks: Path) -> Installation:
    """The same installation with rows of two tables and a folder of hook scripts as its configuration."""
    (hooks / "on_approve").mkdir(parents=True)
    (hooks / "on_approve" / "notify.sh").write_text("#!/bin/sh\necho approved\n")
    (hooks / "on_approve" / "notify.sh").chmod(0o755)
    give_tree_to(hooks, installation.run_as)
    sections = {
        "heroes": {
            "sql": "SELECT id, name FROM characters WHERE id <= 3",
            "key_columns": ["id"],
            "table": "characters",
        },
        "presets": {"sql": "SELECT * FROM presets", "key_columns": ["name"], "table": "presets"},
        "hooks": {"path": str(hooks), "kind": "hook scripts"},
    }
    configuration = ConfigurationSettings.model_validate({"sections": sections})
    return Installation(installation.settings.model_copy(update={"configuration": configuration}))
