"""`lifeboat pgbackrest` where something is wrong: another server, a lost repository, an upgrade, a private file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lifeboat.postgres.cluster import Cluster
from tests.support.pgbackrest import engine_for, new_server
from tests.support.pgbackrest_platform import Platform
from tests.support.postgres import DEBIAN_15, absent, reachable_dir, tools_for


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_another_server_does_not_get_the_first_ones_configuration(platform: Platform) -> None:
    platform.set_up()
    written = platform.installation.pgbackrest().folders.config.read_text()
    with reachable_dir() as root:
        template = Cluster(root / "template", platform.pair.tools, root / "run")
        template.init(extra_args=["--no-sync"])
        other = new_server(root, template.data_dir, platform.pair.tools, port=5434)
        named = {"cluster": "studio", "dsn": other.dsn(), "bin_dir": str(platform.pair.tools.bin_dir)}
        platform.write(platform=named)
        for words in (["pgbackrest", "check"], ["pgbackrest", "upgrade", "--yes", "studio"], ["wal", "install"]):
            done = platform.run(*words)
            assert done.code != 0
            assert "belongs to the cluster with system identifier" in done.err
    assert platform.installation.pgbackrest().folders.config.read_text() == written
    platform.write()
    assert platform.run("pgbackrest", "check").code == 0


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_a_lost_repository_is_begun_anew_by_a_person(platform: Platform) -> None:
    platform.set_up()
    label = platform.take("full")["label"]
    shutil.rmtree(platform.installation.pgbackrest().folders.repository)
    for words in (["wal", "install"], ["pgbackrest", "check"], ["pgbackrest", "adopt"]):
        done = platform.run(*words)
        assert done.code != 0
        assert "ount" in done.err
    asked = platform.run("pgbackrest", "create", typed="something\n")
    assert asked.code != 0
    assert label in asked.out
    assert not platform.installation.pgbackrest().info().exists
    done = platform.run("pgbackrest", "create", "--json", "--yes", "studio")
    assert (done.code, done.json) == (0, {"created": True, "lost": [label]}), done.err
    assert platform.run("pgbackrest", "create", "--json").json == {"created": False, "lost": []}
    assert platform.take("incremental")["type"] == "full"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as an account that may not")
@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_who_may_not_read_the_configuration_is_told(platform: Platform) -> None:
    platform.set_up()
    config = platform.installation.pgbackrest().folders.config
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from lifeboat.engines.pgbackrest.configuration import read_configuration;"
            " from pathlib import Path; from lifeboat.postgres.folders import FolderUnreachable\n"
            "os.setgroups([]); os.setuid(65534)\n"
            "try: read_configuration(Path(sys.argv[1]))\n"
            "except FolderUnreachable as error: print(error)",
            config,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "this account may not read it" in done.stdout


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)  # an upgrade needs a pgBackRest that knows two versions
def test_an_upgrade_is_shown_and_confirmed(platform: Platform, runtime_dir: Path) -> None:
    if not (DEBIAN_15 / "postgres").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    with reachable_dir() as root:
        tools = tools_for(DEBIAN_15, runtime_dir)
        template = Cluster(root / "template", tools, root / "run")
        template.init(extra_args=["--no-sync"])
        old = new_server(root, template.data_dir, tools, port=5434)
        before = engine_for(old, root, platform.root / "store", platform.pair.program)
        before.ensure_stanza()
        old_id, new_id = before.identity(), platform.installation.pgbackrest().identity()
    for typed in ("", "another\n"):
        refused = platform.run("pgbackrest", "upgrade", typed=typed)
        assert refused.code != 0
        for word in ("studio", old_id.system_identifier, new_id.system_identifier, str(platform.server.data_dir)):
            assert word in refused.out
    assert platform.run("pgbackrest", "upgrade", "--yes", "other").code != 0
    current = platform.installation.pgbackrest().info().current
    assert str(current.system_id if current else "") == old_id.system_identifier
    assert platform.run("pgbackrest", "upgrade", typed="studio\n").code == 0
    assert platform.run("pgbackrest", "upgrade", "--json").json == {"changed": False}
    platform.set_up()
    assert platform.take("full")["type"] == "full"
