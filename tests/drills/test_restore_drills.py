"""Restore drills prove equality: what differs is named, what may differ does not fail, and nothing is disturbed."""

import gzip
import shutil
from pathlib import Path
from uuid import uuid4

import pytest
from psycopg import sql

from lifeboat.errors import SettingsError
from lifeboat.operations.backup.integrity import check_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.operations.reconcile import reconcile
from lifeboat.postgres.connections import ConnectionInfo, SourceUnavailable, connect
from lifeboat.postgres.folders import give_to
from lifeboat.settings.drills import ValidationQuery
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.coverage import wait_for_segment

BOTH = pytest.mark.parametrize(
    ("engine", "kind"),
    [("basebackup", BackupType.FULL), ("pg_dump", BackupType.LOGICAL)],
    ids=["basebackup", "pg_dump"],
)
DAMAGE = [
    ("UPDATE public.segments SET body = 'x' WHERE id = 7", "table public.segments: content differs"),
    ("DELETE FROM public.segments WHERE id = 7", "public.segments"),
    ("INSERT INTO public.characters VALUES (9999, 'new')", "public.characters"),
    ("ALTER TABLE public.characters ADD COLUMN extra int", "public.characters"),
    ("DROP TABLE public.segments", "public.segments"),
    ("CREATE INDEX more ON public.segments (body)", "more"),
]


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every file below a folder with size and time."""
    return sorted(
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    )


def archive_of(installation: Installation) -> Path:
    """The WAL archive's folder."""
    return installation.destination("wal").path / "studio" / "wal"


@BOTH
def test_a_sound_backup_passes_and_becomes_verified(installation: Installation, engine: str, kind: BackupType) -> None:
    """With a stale materialized view, a moved sequence, an unlogged and a foreign table."""
    backup = take_backup(installation, BackupOrder(kind, engine=engine))
    with connect(installation.source, autocommit=True) as session:
        session.execute("SELECT nextval('public.numbers') FROM generate_series(1, 50)")
    before = listing(archive_of(installation))
    report = run_drill(installation, DrillOrder())
    assert report.faults == []
    assert report.compared_tables >= 2
    skipped = {line.partition(":")[0] for line in report.not_compared}
    assert skipped >= {"public.cache", "public.counts", "public.remote"}
    assert listing(archive_of(installation)) == before
    assert installation.repository().load(backup.label).state.verified
    row = installation.catalog.backups.get(backup.id)
    assert row is not None
    assert row.verified
    assert list(installation.settings.scratch_dir.glob("scratch-*")) == []


@BOTH
@pytest.mark.parametrize(("damage", "named"), DAMAGE, ids=["update", "delete", "insert", "column", "drop", "index"])
def test_a_difference_fails_the_drill_and_is_named(
    installation: Installation, engine: str, kind: BackupType, damage: str, named: str
) -> None:
    backup = take_backup(installation, BackupOrder(kind, engine=engine))

    def hurt(restored: ConnectionInfo) -> None:
        with connect(restored, autocommit=True) as session:
            session.execute(sql.SQL(damage))

    report = run_drill(installation, DrillOrder(on_restored=hurt))
    assert not report.passed
    assert any(named in fault for fault in report.faults)
    assert not installation.repository().load(backup.label).state.verified


def test_a_dump_restores_into_a_temporary_database_that_is_gone_afterwards(installation: Installation) -> None:
    take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    report = run_drill(installation, DrillOrder(target="database"))
    assert report.faults == []
    assert "create database" in report.phases
    with connect(installation.source, autocommit=True) as session:
        left = session.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'lifeboat_drill_%'").fetchone()
    assert left == (0,)


def test_a_subscription_of_the_source_is_not_loaded_into_a_drill(installation: Installation) -> None:
    """A copy of it would use the source's slot at the publisher, and its database could not be dropped."""
    with connect(installation.source, autocommit=True) as session:
        session.execute(
            "CREATE SUBSCRIPTION feed CONNECTION 'host=/nowhere dbname=none' PUBLICATION p"
            " WITH (connect = false, slot_name = NONE)"
        )
        session.execute("COMMENT ON SUBSCRIPTION feed IS 'from elsewhere'")
    try:
        backup = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
        dump = Path(backup.location) / "dump"
        listed = installation.tools.run("pg_restore", ["--list", dump], timeout_seconds=60).stdout
        assert " SUBSCRIPTION - feed " in listed
        for target in ("database", "scratch"):
            found: list[tuple[int]] = []

            def look(restored: ConnectionInfo, found: list[tuple[int]] = found) -> None:
                with connect(restored, autocommit=True) as session:
                    query = "SELECT count(*) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
                    found.extend(session.execute(f"{query} WHERE d.datname = current_database()").fetchall())

            report = run_drill(installation, DrillOrder(target=target, on_restored=look))
            assert (report.faults, found) == ([], [(0,)])
        with connect(installation.source, autocommit=True) as session:
            left = session.execute("SELECT datname FROM pg_database WHERE datname LIKE 'lifeboat_drill_%'").fetchall()
            kept = session.execute("SELECT subname, subenabled, subslotname FROM pg_subscription").fetchall()
        assert (left, kept) == ([], [("feed", False, None)])
    finally:
        with connect(installation.source, autocommit=True) as session:
            session.execute("DROP SUBSCRIPTION feed")


def test_a_drill_beside_the_source_archives_nothing_but_the_sources_own_segments(installation: Installation) -> None:
    """Loading is the source server's work: it may fill segments, on its own timeline, and touches no archived one."""
    take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    first = _settled_segment(installation)
    before = listing(archive_of(installation))
    assert run_drill(installation, DrillOrder(target="database")).passed
    current = _settled_segment(installation)
    after = listing(archive_of(installation))
    assert [file for file in before if file not in after] == []
    added = {Path(file[0]).name[:24] for file in after if file not in before}
    assert first in added
    assert all(first <= name < current and name[:8] == first[:8] for name in added), (first, current, added)


def _settled_segment(installation: Installation) -> str:
    """The segment that the source writes, once everything before it is archived."""
    with connect(installation.source, autocommit=True) as session:
        session.execute("SELECT pg_create_restore_point('settled')")
        ended = session.execute("SELECT pg_walfile_name(lsn), lsn::text FROM pg_switch_wal() lsn").fetchone()
        assert ended is not None
        root = installation.destination("wal").path
        wait_for_segment(root, "studio", timeline=int(ended[0][:8], 16), lsn=ended[1], timeout_seconds=60)
        session.execute("SELECT pg_create_restore_point('begun')")
        begun = session.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").fetchone()
    assert begun is not None
    return str(begun[0])


def test_validation_queries_decide_too(installation: Installation) -> None:
    take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    queries = [
        ValidationQuery.model_validate(
            {"name": "characters", "sql": "SELECT count(*) FROM public.characters", "expect": {"equals": 501}}
        ),
        ValidationQuery.model_validate(
            {"name": "wrong", "sql": "SELECT count(*) FROM public.segments", "expect": {"maximum": 5}}
        ),
    ]
    drills = installation.settings.drills.model_copy(update={"validation": queries})
    asking = Installation(installation.settings.model_copy(update={"drills": drills}))
    report = run_drill(asking, DrillOrder())
    assert [(name, passed) for name, passed, _ in report.validations] == [("characters", True), ("wrong", False)]
    assert len(report.faults) == 1
    assert "wrong" in report.faults[0]


def test_a_bit_flipped_in_storage_fails_the_drill_and_names_the_object(installation: Installation) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    path = Path(backup.location) / "base" / "base.tar.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    report = run_drill(installation, DrillOrder())
    assert not report.passed
    assert "base/base.tar.gz is not what was backed up" in report.faults[0]
    assert list(installation.settings.scratch_dir.glob("scratch-*")) == []


def test_writes_during_the_backup_are_not_compared_and_the_rest_is(installation: Installation) -> None:
    with connect(installation.source) as writer:
        writer.execute("INSERT INTO public.segments VALUES (100001, 1, 'open while the backup runs')")
        take_backup(installation, BackupOrder(BackupType.FULL))
        writer.commit()
    report = run_drill(installation, DrillOrder())
    assert report.faults == []
    assert any(line.startswith("public.segments") for line in report.not_compared)


def test_a_cluster_with_a_tablespace_is_drilled_without_touching_it(
    installation: Installation, reachable_tmp: Path
) -> None:
    space = reachable_tmp / "space"
    space.mkdir(mode=0o700)
    give_to(space, installation.run_as)
    with connect(installation.source, autocommit=True) as session:
        session.execute(sql.SQL("CREATE TABLESPACE beside LOCATION {}").format(sql.Literal(str(space))))
    try:
        with connect(installation.source, autocommit=True) as session:
            session.execute("CREATE TABLE public.elsewhere TABLESPACE beside AS SELECT generate_series(1, 1000) AS id")
        kinds = [BackupType.FULL]
        if installation.tools.major >= 17:
            kinds.append(BackupType.INCREMENTAL)
        for kind in kinds:
            backup = take_backup(installation, BackupOrder(kind))
            before = listing(space)
            report = run_drill(installation, DrillOrder(backup.label))
            assert report.faults == []
            assert listing(space) == before
        dumped = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
        mode = space.stat()
        assert run_drill(installation, DrillOrder(dumped.label)).faults == []
        assert (space.stat().st_ctime_ns, listing(space)) == (mode.st_ctime_ns, before)
    finally:
        with connect(installation.source, autocommit=True) as session:
            session.execute("DROP TABLE IF EXISTS public.elsewhere")
            session.execute("DROP TABLESPACE beside")


def test_a_dump_of_the_database_that_every_server_has(installation: Installation) -> None:
    platform = installation.settings.platform.model_copy(update={"database": "postgres"})
    initial = Installation(installation.settings.model_copy(update={"platform": platform}))
    with connect(initial.source, autocommit=True) as session:
        session.execute("DROP TABLE IF EXISTS public.here")
        session.execute("CREATE TABLE public.here AS SELECT generate_series(1, 10) AS id")
    try:
        backup = take_backup(initial, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
        report = run_drill(initial, DrillOrder(backup.label))
        assert report.faults == []
        assert report.compared_tables == 1
    finally:
        with connect(initial.source, autocommit=True) as session:
            session.execute("DROP TABLE public.here")


def test_whoever_only_reads_gets_no_signing_key(installation: Installation, reachable_tmp: Path) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    public = installation.settings.signing_key_file.with_name("signing.pem.pub")
    signing = installation.settings.signing.model_copy(update={"trusted_keys": [public]})
    update = {"signing": signing, "state_dir": reachable_tmp / "recovery"}
    reader = Installation(installation.settings.model_copy(update=update))
    assert reader.repository().manifest(backup.label).id == backup.id
    assert not reader.settings.signing_key_file.exists()


def test_damage_from_before_the_backup_was_stored_is_found_by_postgresqls_own_manifest(
    installation: Installation, reachable_tmp: Path
) -> None:
    """As a faulty disk would do it: the archive changes before we hash and sign it."""
    repository = installation.writable_repository()
    sound = take_backup(installation, BackupOrder(BackupType.FULL))
    manifest = repository.manifest(sound.label)
    assert check_backup(repository, manifest) == []
    payload = Path(sound.location) / "base" / "base.tar.gz"
    content = gzip.decompress(payload.read_bytes())
    assert content.count(b"the view is stale now") >= 1
    damaged = repository.begin(BackupType.FULL, manifest.started_at)
    shutil.copytree(payload.parent, damaged.directory / "base")
    changed = gzip.compress(content.replace(b"the view is stale now", b"the view is stale NOW"), 1)
    (damaged.directory / "base" / "base.tar.gz").write_bytes(changed)
    update = {"id": uuid4(), "label": damaged.label, "objects": damaged.seal(), "details": manifest.details}
    repository.publish(damaged, manifest.model_copy(update=update))
    faults = check_backup(repository, repository.manifest(damaged.label))
    assert faults
    assert all("checksum differs" in fault for fault in faults)
    report = run_drill(installation, DrillOrder(damaged.label))
    assert "differs from PostgreSQL's manifest of it" in report.faults[0]


def test_a_drill_that_cannot_be_held_condemns_nothing(installation: Installation, reachable_tmp: Path) -> None:
    backup = take_backup(installation, BackupOrder(BackupType.FULL))
    assert run_drill(installation, DrillOrder(backup.label)).passed
    with pytest.raises(SettingsError, match="physical backup"):
        run_drill(installation, DrillOrder(backup.label, target="database"))

    def cut(restored: ConnectionInfo) -> None:
        raise SourceUnavailable(f"the connection to {restored.database} was cut")

    with pytest.raises(SourceUnavailable):
        run_drill(installation, DrillOrder(backup.label, on_restored=cut))
    assert installation.repository().load(backup.label).state.verified
    assert list(installation.settings.scratch_dir.glob("scratch-*")) == []


def test_one_manifest_that_cannot_be_trusted_hides_no_other_backup(installation: Installation) -> None:
    broken = take_backup(installation, BackupOrder(BackupType.LOGICAL, engine="pg_dump"))
    path = Path(broken.location) / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    full = take_backup(installation, BackupOrder(BackupType.FULL))
    if installation.tools.major >= 17:
        assert take_backup(installation, BackupOrder(BackupType.INCREMENTAL)).type is BackupType.INCREMENTAL
    assert run_drill(installation, DrillOrder(full.label)).passed
    assert reconcile(installation).unread == {}
