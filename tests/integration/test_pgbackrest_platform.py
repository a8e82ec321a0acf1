"""A platform whose engine is pgBackRest, from the command line: set up, backed up, proven, restored without us."""

import os
import pwd
import shutil
import subprocess
import sys

import pytest

from lifeboat.errors import SettingsError
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.configuration_archives import load_archive
from lifeboat.operations.doctor.run import CheckStatus
from lifeboat.operations.wal.archives import wal_archive
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import connect
from lifeboat.postgres.folders import make_private_dir
from lifeboat.storage.manifest import BackupType
from tests.support import stock_restore
from tests.support.pgbackrest_platform import Platform

CONTENT = "SELECT count(*) || '|' || md5(string_agg(c::text, '' ORDER BY c.id)) FROM public.characters c"
PASSPHRASE = "a word that nobody knows"


def test_the_whole_loop_from_the_command_line(platform: Platform) -> None:
    platform.set_up()
    assert platform.run("pgbackrest", "check").code == 0
    full = platform.take("full")
    with platform.connect() as session:
        session.execute("UPDATE public.characters SET name = upper(name) WHERE id % 7 = 0")
    differential, incremental = platform.take("differential"), platform.take("incremental")
    with platform.connect() as session:
        content = str((session.execute(CONTENT).fetchone() or ("",))[0])

    listed = platform.run("backup", "list", "--json").json["backups"]
    assert [(item["type"], item["engine"]) for item in listed] == [
        ("full", "pgbackrest"),
        ("config", "configuration"),
        ("differential", "pgbackrest"),
        ("incremental", "pgbackrest"),
    ]
    assert listed[3]["parent_label"] == differential["label"]
    shown = platform.run("backup", "show", incremental["label"])
    assert "in stanza studio of the repository" in shown.out
    assert f"--set={incremental['label']}" in shown.out
    checked = platform.run("backup", "verify", incremental["label"], "--check-only", "--json")
    assert (checked.code, checked.json["sound"]) == (0, True), checked.err
    proven = platform.run("backup", "verify", "latest", "--json")
    assert (proven.code, proven.json["passed"], proven.json["label"]) == (0, True, incremental["label"]), proven.out
    assert proven.json["compared_tables"] >= 2
    assert [name for name, passed, _ in proven.json["validations"] if passed] == ["all"]

    status = platform.run("wal", "status", "--json")
    assert status.code == 0, status.err
    assert status.json["ranges"][0]["segments"] > 1
    storage = platform.run("storage", "status", "--json")
    assert storage.code == 0
    assert '"wal_bytes"' in storage.out

    # Retention keeps the newest full backup: with it gone first, the chain that is kept starts at the new one.
    newest = platform.take("full")
    plan = platform.run("retention", "plan", "--json")
    assert plan.code == 0
    applied = platform.run("retention", "apply", "--yes", plan.json["plan_hash"], "--json")
    assert applied.code == 0, applied.err
    kept = [item.label for item in platform.installation.pgbackrest().info().backup]
    # The verified one is kept whatever the rules say, and what it builds on.
    assert kept == [full["label"], differential["label"], incremental["label"], newest["label"]]
    assert platform.run("backup", "verify", "latest", "--json").json["passed"] is True
    plan = platform.run("retention", "plan", "--json")
    applied = platform.run("retention", "apply", "--yes", plan.json["plan_hash"], "--json")
    assert applied.code == 0, applied.err
    info = platform.installation.pgbackrest().info()
    assert [item.label for item in info.backup] == [newest["label"]]
    assert info.archive[0].min == info.backup[0].archive.start

    restored = restore_without_lifeboat(platform, newest["label"])
    assert restored == content


def restore_without_lifeboat(platform: Platform, label: str) -> str:
    """Follow the manifest with a script that imports nothing of ours; what the restored server says of the content."""
    installation, tools = platform.installation, platform.pair.tools
    engine = installation.pgbackrest()
    platform.server.stop()
    # Our own files are away: state, configuration, keys.
    (platform.root / "state").rename(platform.root / "state.away")
    home = make_private_dir(platform.root / "administrator", tools.user)
    socket = make_private_dir(home / "s", tools.user)
    script = home / "stock_restore.py"
    shutil.copy(stock_restore.__file__, script)
    script.chmod(0o644)
    programs = make_private_dir(home / "bin", tools.user)
    (programs / "pgbackrest").symlink_to(platform.pair.program)
    root = os.geteuid() == 0
    done = subprocess.run(
        ["/usr/bin/python3" if root else sys.executable, "-I", script, engine.cluster_folder or "", label],
        env={
            "PATH": f"{programs}:{tools.bin_dir}:/usr/bin:/bin",
            "TARGET": str(home / "data"),
            "TABLESPACES": str(home / "spaces"),
            "SOCKET": str(socket),
            "TZ": "Asia/Tokyo",
            "PGBACKREST_REPO1_CIPHER_PASS": PASSPHRASE,
        },
        user=tools.user if root else None,
        group=pwd.getpwnam(tools.user).pw_gid if root and tools.user else None,
        extra_groups=[] if root else None,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cluster = Cluster(home / "data", tools, socket)
    with connect(cluster.dsn(), autocommit=True) as session:
        return str((session.execute(CONTENT).fetchone() or ("",))[0])


def test_doctor_leads_to_a_platform_that_archives(platform: Platform) -> None:
    before = platform.checks()
    assert before["pgbackrest"].status is CheckStatus.OK
    assert before["pgbackrest: stanza"].status is CheckStatus.FAILED
    assert str(before["pgbackrest: stanza"].fix).startswith("lifeboat wal install")
    assert not (platform.root / "state" / "pgbackrest").exists(), "doctor writes nothing"
    # As after `lifeboat init`: the destination's folder is not there yet.
    (platform.root / "store").rmdir()
    done = platform.run("wal", "install", "--json")
    assert done.code == 0, done.err
    halfway = platform.checks()
    assert halfway["pgbackrest: stanza"].status is CheckStatus.OK
    assert "archive_command is 'false'" in halfway["archiving"].detail
    platform.set_up()
    after = platform.checks()
    assert after["archiving"].status is CheckStatus.OK
    assert not [name for name, result in after.items() if "pgbackrest" in name and result.status is CheckStatus.FAILED]

    with platform.connect() as session:
        session.execute("ALTER SYSTEM SET archive_command = '/bin/false pgbackrest'")
        session.execute("SELECT pg_reload_conf()")
    assert platform.checks()["archiving"].status is CheckStatus.FAILED


def test_doctor_names_the_rights_that_a_plain_role_lacks(platform: Platform) -> None:
    platform.set_up()
    with platform.connect() as session:
        session.execute("CREATE ROLE keeper LOGIN; GRANT pg_read_all_data TO keeper")
        session.execute("GRANT EXECUTE ON FUNCTION pg_control_system() TO keeper")
    dsn = platform.server.dsn().replace("user=postgres", "user=keeper")
    platform.write(
        platform={"cluster": "studio", "dsn": dsn, "bin_dir": str(platform.pair.tools.bin_dir)},
    )
    fix = str(platform.checks()["pgbackrest: role"].fix)
    with platform.connect() as session:
        session.execute(fix.encode())
    assert "pgbackrest: role" not in platform.checks()
    assert platform.checks()["archiving"].status is CheckStatus.OK
    assert platform.take("full")["engine"] == "pgbackrest"


@pytest.mark.parametrize("pair", ["debian 13"], indirect=True)
def test_an_absent_program_is_told_with_what_to_install(platform: Platform) -> None:
    platform.write(engines={"pgbackrest": {"program": "/nowhere/pgbackrest"}})
    assert platform.checks()["pgbackrest"].fix == "apt-get install pgbackrest"


def test_the_configuration_is_shown_without_its_passphrase(platform: Platform) -> None:
    engine = {"program": str(platform.pair.program), "cipher_type": "aes-256-cbc", "cipher_passphrase": PASSPHRASE}
    platform.write(engines={"pgbackrest": {**engine, "archive_timeout_seconds": 20}})
    shown = platform.run("pgbackrest", "config")
    assert shown.code == 0, shown.err
    assert "repo1-cipher-pass=***" in shown.out
    assert "expire-auto=n" in shown.out
    assert "archive_command = '" in shown.out
    assert PASSPHRASE not in shown.out + shown.err
    assert "not written yet" in shown.err
    platform.set_up()
    assert "not written yet" not in platform.run("pgbackrest", "config").err
    backup = platform.take("full")
    server = load_archive(platform.installation, "latest").archive.files("server")
    assert server is not None
    (text,) = [item.content.decode() for item in server.files if item.path.endswith("studio/pgbackrest.conf")]
    assert "repo1-cipher-pass=***" in text
    assert PASSPHRASE not in text
    assert platform.run("backup", "verify", "latest").code == 0
    with platform.connect() as session:
        content = str((session.execute(CONTENT).fetchone() or ("",))[0])
    assert restore_without_lifeboat(platform, backup["label"]) == content


def test_backups_taken_by_pgbackrest_itself_are_built_on_and_proven(platform: Platform) -> None:
    platform.set_up()
    # As many administrators do, without the WAL inside the backup.
    platform.installation.pgbackrest().prepare().run(
        "backup", "--type=full", "--no-archive-copy", doing="backing up by hand"
    )
    taken = platform.take("incremental")
    assert taken["type"] == "incremental"
    listed = platform.run("backup", "list", "--json").json["backups"]
    assert taken["label"].startswith(f"{listed[0]['label']}_")
    drill = platform.run("backup", "verify", listed[0]["label"], "--json")
    assert (drill.code, drill.json["passed"], drill.json["compared_tables"]) == (0, True, 0), drill.out
    assert "not taken by Lifeboat" in drill.json["notes"][0]
    assert platform.run("pgbackrest", "adopt", "--json").json == {"adopted": [], "left": {}}
    assert platform.run("pgbackrest", "upgrade", "--json").json == {"changed": False}


def test_a_drill_reads_wal_from_the_archive_where_the_backup_holds_none(platform: Platform) -> None:
    engine = {"program": str(platform.pair.program), "archive_copy": False, "archive_async": True}
    platform.write(engines={"pgbackrest": {**engine, "archive_timeout_seconds": 20}})
    platform.set_up()
    platform.take("full")
    proven = platform.run("backup", "verify", "latest", "--json")
    assert (proven.code, proven.json["passed"]) == (0, True), proven.out
    assert proven.json["compared_tables"] >= 2


def test_other_engines_wait_for_their_wal_in_the_same_repository(platform: Platform) -> None:
    platform.set_up()
    backup = platform.take("full", "--engine", "basebackup")
    assert "wait for WAL" in backup["phases"]
    manifest = platform.installation.repository().manifest(backup["label"])
    listing = wal_archive(platform.installation).listing()
    assert listing.system_identifier == manifest.system_identifier
    assert platform.run("backup", "verify", "latest").code == 0


def test_there_is_one_repository_and_a_copy_of_it_can_be_restored_from(platform: Platform) -> None:
    platform.set_up()
    label = platform.take("full")["label"]
    shutil.copytree(platform.root / "store", platform.root / "second")
    if (user := platform.pair.tools.user) is not None:
        subprocess.run(["chown", "-R", user, str(platform.root / "second")], check=True)
    folders = {name: {"path": str(platform.root / folder), "minimum_free_bytes": 0} for name, folder in FOLDERS.items()}
    platform.write(destinations=folders)
    written = platform.installation.pgbackrest().folders.config.read_text()
    with pytest.raises(SettingsError, match="pgBackRest has one repository"):
        take_backup(platform.installation, BackupOrder(BackupType.FULL, destination="second"))
    assert platform.installation.pgbackrest().folders.config.read_text() == written
    assert platform.installation.repository("second").unfinished_labels() == []
    shutil.rmtree(platform.installation.pgbackrest().folders.repository)
    proven = platform.run("backup", "verify", label, "--destination", "second", "--json")
    assert (proven.code, proven.json["passed"]) == (0, True), proven.out


FOLDERS = {"primary": "store", "second": "second"}
