"""Doctor on real servers: each thing that is wrong is named with a fix that makes it right."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql

from lifeboat.catalog.migrate import migrate
from lifeboat.errors import SettingsError
from lifeboat.operations.doctor.run import CheckResult, CheckStatus, run_checks
from lifeboat.operations.doctor.server import check_clock
from lifeboat.operations.doctor.source import read_source
from lifeboat.operations.doctor.storage import check_drill
from lifeboat.operations.installation import Installation
from lifeboat.postgres.binaries import PgTools
from lifeboat.postgres.cluster import Cluster
from lifeboat.postgres.connections import ConnectionInfo, connect
from lifeboat.settings.root import Settings
from tests.support.network import pooler
from tests.support.postgres import DEBIAN_15, absent

Make = Callable[..., Installation]
NOT_ARCHIVED = {"archive": False}


@pytest.fixture
def make(reachable_tmp: Path, pg_tools: PgTools, fresh_database: str) -> Make:
    """Builds an installation for the session's server; sections replace the defaults here."""

    def build(**sections: object) -> Installation:
        given: dict[str, object] = {
            "state_dir": reachable_tmp / "state",
            "platform": {"dsn": fresh_database, "bin_dir": pg_tools.bin_dir},
            "destinations": {"primary": {"path": reachable_tmp / "store", "minimum_free_bytes": 0}},
            "wal": NOT_ARCHIVED,
            "prefect": {"port": 1024},
        }
        return Installation(Settings.model_validate({**given, **sections}))

    return build


@contextmanager
def role(dsn: str, options: str) -> Iterator[str]:
    """A role for a moment; yields the DSN for it."""
    info = ConnectionInfo.parse(dsn)
    with connect(info, autocommit=True) as session:
        session.execute(f"CREATE ROLE doctor_patient LOGIN {options}".encode())
    try:
        yield info.with_parameters(user="doctor_patient").dsn
    finally:
        with connect(info, autocommit=True) as session:
            session.execute("DROP OWNED BY doctor_patient")
            session.execute("DROP ROLE doctor_patient")


def examine(installation: Installation) -> dict[str, CheckResult]:
    """The results by name."""
    return {result.name: result for result in run_checks(installation)}


def run_fix(dsn: str, fix: str | None) -> None:
    """Do what a fix says, as an administrator would."""
    assert fix is not None
    with connect(dsn, autocommit=True) as session:
        for statement in fix.splitlines():
            assert statement.endswith(";"), statement
            session.execute(statement.encode())


def test_a_sound_installation_passes(make: Make, fresh_database: str) -> None:
    migrate(fresh_database)
    results = examine(make())

    assert [result for result in results.values() if result.status is CheckStatus.FAILED] == []
    for name in ("source", "role", "replication connection", "server settings", "clock", "client versions", "drill"):
        assert results[name].status is CheckStatus.OK, results[name]
    assert results["archiving"].status is CheckStatus.SKIPPED


def test_every_failure_and_warning_has_a_fix(make: Make, fresh_database: str) -> None:
    with role(fresh_database, "") as dsn:
        results = examine(make(platform={"dsn": dsn}, wal={"archive": True}))

    troubles = [r for r in results.values() if r.status in {CheckStatus.FAILED, CheckStatus.WARNING}]
    assert len(troubles) >= 5
    assert all(result.fix for result in troubles)


def test_wrong_settings_are_the_only_result() -> None:
    (result,) = run_checks(SettingsError("unknown setting `x`", hint="Correct it."))

    assert (result.status, result.detail, result.fix) == (CheckStatus.FAILED, "unknown setting `x`", "Correct it.")


def test_a_server_that_is_down_is_told_once(make: Make, reachable_tmp: Path) -> None:
    results = examine(make(platform={"dsn": f"host={reachable_tmp} dbname=x user=x password=hunter2"}))

    assert results["source"].status is CheckStatus.FAILED
    assert "cannot be reached" in results["source"].detail
    assert results["catalog"].status is CheckStatus.SKIPPED
    assert not any("hunter2" in f"{result.detail} {result.fix}" for result in results.values())


def test_an_embedded_server_that_is_not_started_is_no_failure(make: Make, pg_tools: PgTools) -> None:
    results = examine(make(platform={"embedded": True, "bin_dir": pg_tools.bin_dir}))

    assert results["source"].status is CheckStatus.SKIPPED
    assert CheckStatus.FAILED not in {result.status for result in results.values()}


def test_a_role_without_rights_is_told_what_to_grant(make: Make, fresh_database: str) -> None:
    with role(fresh_database, "") as dsn:
        with connect(fresh_database, autocommit=True) as session:
            session.execute("CREATE TABLE public.guarded (id int)")
            session.execute("ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY")
        before = examine(make(platform={"dsn": dsn}))
        run_fix(fresh_database, before["role"].fix)
        run_fix(fresh_database, before["role: server settings"].fix)
        after = examine(make(platform={"dsn": dsn}))

    assert before["role"].status is CheckStatus.FAILED
    assert all(right in before["role"].detail for right in ("REPLICATION", "read every table", "BYPASSRLS"))
    assert before["replication connection"].status is CheckStatus.FAILED
    assert after["role"].status is CheckStatus.OK
    assert after["replication connection"].status is CheckStatus.OK
    assert "role: server settings" not in after


def test_password_hashes_need_a_superuser(make: Make, fresh_database: str) -> None:
    with role(fresh_database, "REPLICATION BYPASSRLS IN ROLE pg_read_all_data") as dsn:
        wanted = {"pg_dump": {"globals": "with-passwords"}}
        results = examine(make(platform={"dsn": dsn}, engines=wanted))

    assert results["role"].status is CheckStatus.OK
    assert results["role: password hashes"].status is CheckStatus.FAILED


def test_a_wrong_password_is_named_and_not_shown(make: Make, embedded_cluster: Cluster, reachable_tmp: Path) -> None:
    hba = embedded_cluster.data_dir / "pg_hba.conf"
    before = hba.read_text()
    with role(embedded_cluster.dsn(), "PASSWORD 'right'") as dsn:
        try:
            hba.write_text(f"local all doctor_patient scram-sha-256\n{before}")
            embedded_cluster.reload()
            wrong = ConnectionInfo.parse(dsn).with_parameters(password="hunter2").dsn
            results = _until(lambda: examine(make(platform={"dsn": wrong})), CheckStatus.FAILED)
        finally:
            hba.write_text(before)
            embedded_cluster.reload()

    assert "authentication failed" in results["source"].detail
    assert "pg_hba.conf" in str(results["source"].fix)
    assert "hunter2" not in str(results)


def _until(look: Callable[[], dict[str, CheckResult]], status: CheckStatus) -> dict[str, CheckResult]:
    # The server reads its configuration a moment after it was asked to.
    for _ in range(50):
        results = look()
        if results["source"].status is status:
            return results
    raise AssertionError(f"the source never was {status}")


def test_programs_older_than_the_server_are_refused(make: Make, fresh_database: str) -> None:
    if not (DEBIAN_15 / "pg_dump").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    results = examine(make(platform={"dsn": fresh_database, "bin_dir": DEBIAN_15}))

    assert results["client versions"].status is CheckStatus.FAILED
    assert "pg_basebackup" in results["client versions"].detail
    assert "bin_dir" in str(results["client versions"].fix)
    assert results["drill"].status is CheckStatus.FAILED


def test_each_version_of_the_server_can_be_examined(make: Make, each_stopped_cluster: Cluster) -> None:
    cluster = each_stopped_cluster
    cluster.start()
    results = examine(make(platform={"dsn": cluster.dsn(), "bin_dir": cluster.tools.bin_dir}))

    assert results["source"].status is CheckStatus.OK
    assert results["role"].status is CheckStatus.OK
    assert results["drill"].status is CheckStatus.OK
    incremental = CheckStatus.WARNING if cluster.tools.major >= 17 else CheckStatus.SKIPPED
    assert results["incremental backups"].status is incremental


def test_server_settings_come_with_the_statements(make: Make, each_stopped_cluster: Cluster) -> None:
    cluster = each_stopped_cluster
    cluster.write_settings({"fsync": False, "listen_addresses": "", "wal_level": "minimal", "max_wal_senders": 0})
    cluster.start()
    platform = {"dsn": cluster.dsn(), "bin_dir": cluster.tools.bin_dir}
    before = examine(make(platform=platform))
    *statements, last = str(before["server settings"].fix).splitlines()
    run_fix(cluster.dsn(), "\n".join(statements))
    assert "restart the server" in last
    cluster.stop()
    cluster.start()
    after = examine(make(platform=platform))

    assert before["server settings"].status is CheckStatus.FAILED
    assert "wal_level is minimal" in before["server settings"].detail
    assert after["server settings"].status is CheckStatus.OK


def test_a_missing_program_is_named(make: Make, reachable_tmp: Path) -> None:
    if not (DEBIAN_15 / "pg_dump").exists():
        absent("PostgreSQL 15 is not installed in /usr/lib/postgresql/15")
    part = reachable_tmp / "bin"
    part.mkdir()
    part.chmod(0o755)
    (part / "pg_dump").symlink_to(DEBIAN_15 / "pg_dump")
    results = examine(make(platform={"dsn": f"host={reachable_tmp}", "bin_dir": part}))

    assert results["programs"].status is CheckStatus.FAILED
    assert "pg_basebackup" in results["programs"].detail


def test_a_pooler_is_refused(make: Make, embedded_cluster: Cluster) -> None:
    with pooler(embedded_cluster.socket_dir, embedded_cluster.port) as port:
        dsn = f"host=127.0.0.1 port={port} user=postgres sslmode=disable gssencmode=disable"
        results = examine(make(platform={"dsn": dsn}))

    assert results["server settings"].status is CheckStatus.FAILED
    assert "pooler" in results["server settings"].detail


def test_the_catalog_is_migrated_and_its_place_is_told(make: Make, fresh_database: str) -> None:
    before = examine(make())
    migrate(fresh_database)
    after = examine(make())

    assert (before["catalog"].status, before["catalog"].fix) == (CheckStatus.FAILED, "lifeboat catalog migrate")
    assert after["catalog"].status is CheckStatus.OK
    assert after["catalog: place"].status is CheckStatus.WARNING
    assert "of tables made later, previews and restore points then show numbers" in after["catalog: place"].detail


def test_a_catalog_elsewhere_is_no_matter(make: Make, each_stopped_cluster: Cluster) -> None:
    each_stopped_cluster.start()
    migrate(each_stopped_cluster.dsn())
    results = examine(make(catalog={"dsn": each_stopped_cluster.dsn()}))

    assert results["catalog"].status is CheckStatus.OK
    assert "catalog: place" not in results


def test_a_catalog_that_is_down_is_named(make: Make, reachable_tmp: Path) -> None:
    results = examine(make(catalog={"dsn": f"host={reachable_tmp} dbname=x", "connect_timeout_seconds": 2}))

    assert results["catalog"].status is CheckStatus.FAILED
    assert results["role"].status is CheckStatus.OK


def test_a_destination_without_rights_is_named(make: Make, reachable_tmp: Path) -> None:
    closed = reachable_tmp / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    results = examine(make(destinations={"primary": {"path": closed, "minimum_free_bytes": 0}}))

    assert results["destination primary"].status is CheckStatus.FAILED
    assert "cannot write" in results["destination primary"].detail


def test_a_destination_below_its_minimum_and_one_without_its_mount(make: Make, reachable_tmp: Path) -> None:
    free = shutil.disk_usage(reachable_tmp).free
    results = examine(
        make(
            destinations={
                "primary": {"path": reachable_tmp / "store", "minimum_free_bytes": free * 2},
                "second": {"path": reachable_tmp / "second", "mount": True},
            }
        )
    )

    assert results["destination primary"].status is CheckStatus.FAILED
    assert "keeps" in results["destination primary"].detail
    # A test's folder may itself lie on a mount of its own.
    assert results["destination second"].status in {CheckStatus.FAILED, CheckStatus.OK}


def test_an_embedded_installation_is_examined_and_not_made(make: Make, pg_tools: PgTools, reachable_tmp: Path) -> None:
    results = examine(make(platform={"embedded": True, "bin_dir": pg_tools.bin_dir}))

    assert "will be created" in results["destination primary"].detail
    assert [path.name for path in reachable_tmp.glob("state/*")] in ([], ["postgresql"])
    assert [path.name for path in reachable_tmp.glob("state/postgresql/*")] in ([], ["programs"])


def test_a_destination_that_cannot_be_known_to_be_new_is_a_failure(make: Make, reachable_tmp: Path) -> None:
    result = examine(make(catalog={"dsn": f"host={reachable_tmp} dbname=x", "connect_timeout_seconds": 2}))[
        "destination primary"
    ]

    assert (result.status, result.fix) == (CheckStatus.FAILED, "Create it, or mount it.")
    assert "cannot be asked" in result.detail


def test_a_signing_key_that_others_can_read_is_refused(make: Make) -> None:
    installation = make()
    key = installation.settings.signing_key_file
    before = examine(installation)
    assert installation.signer.key_id
    key.chmod(0o644)
    loose = examine(make())
    key.chmod(0o600)
    after = examine(make())

    assert before["signing key"].status is CheckStatus.WARNING
    assert (loose["signing key"].status, loose["signing key"].fix) == (CheckStatus.FAILED, f"chmod 600 {key}")
    assert after["signing key"].status is CheckStatus.OK


def test_a_settings_file_with_a_password_must_be_private(make: Make, reachable_tmp: Path) -> None:
    path = reachable_tmp / "lifeboat.toml"
    path.touch(mode=0o644)
    path.chmod(0o644)
    installation = make(platform={"dsn": f"host={reachable_tmp} password=x"})
    results = examine(replace(installation, settings_file=path))
    path.chmod(0o600)
    after = examine(replace(installation, settings_file=path))

    assert (results["settings"].status, results["settings"].fix) == (CheckStatus.FAILED, f"chmod 600 {path}")
    assert after["settings"].status is CheckStatus.OK


@pytest.mark.parametrize(
    ("skew", "status"), [(0.4, CheckStatus.OK), (-9.0, CheckStatus.WARNING), (3.0, CheckStatus.WARNING)]
)
def test_a_clock_that_is_off_is_told(make: Make, skew: float, status: CheckStatus) -> None:
    installation = make()
    facts = replace(read_source(installation), clock_skew_seconds=skew)
    (result,) = check_clock(installation, facts)

    assert result.status is status


def test_the_servers_clock_is_ours_here(make: Make) -> None:
    assert abs(read_source(make()).clock_skew_seconds) < 1


def test_an_extension_that_drills_would_lack_is_named(make: Make) -> None:
    installation = make()
    facts = replace(read_source(installation), extensions=("plpgsql", "postgis"))
    (result,) = check_drill(installation, facts)

    assert result.status is CheckStatus.WARNING
    assert "postgis" in result.detail
    assert "plpgsql" not in result.detail


def test_nothing_is_left_behind(make: Make, reachable_tmp: Path, fresh_database: str) -> None:
    migrate(fresh_database)
    results = examine(make())

    assert "will be created by the first backup" in results["destination primary"].detail
    assert results["scratch folder"].status is CheckStatus.OK
    assert not (reachable_tmp / "store").exists()
    # The programs are copied where the server's account cannot run them in the environment of Python.
    assert [path.name for path in reachable_tmp.glob("state/*")] in ([], ["programs"])
    with connect(fresh_database, autocommit=True) as session:
        rows = session.execute(
            sql.SQL("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat doctor'")
        ).fetchone()
    assert rows == (0,)
