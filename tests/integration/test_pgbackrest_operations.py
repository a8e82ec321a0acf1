"""Backups by pgBackRest as operations take them: manifest, chain, drill."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from lifeboat.engines.engine import Watch
from lifeboat.engines.pgbackrest.adoption import adopted_manifest
from lifeboat.engines.pgbackrest.expiry import ExpiryRefused
from lifeboat.engines.pgbackrest.failures import RepositoryBusy, StanzaMissing
from lifeboat.operations.backup.expire import apply_retention, plan_retention
from lifeboat.operations.backup.integrity import check_backup
from lifeboat.operations.backup.take_backup import BackupOrder, take_backup
from lifeboat.operations.drill.restore_drill import DrillOrder, run_drill
from lifeboat.operations.installation import Installation
from lifeboat.operations.pgbackrest.repository import adopt_repository, check_in_repository, expire_in_repository
from lifeboat.operations.pgbackrest.stanza import create, ensure_stanza
from lifeboat.settings.root import Settings
from lifeboat.storage.labels import make_label
from lifeboat.storage.manifest import BackupType, Manifest
from lifeboat.verification.fingerprints import DatabaseDamaged
from tests.support.installation import SAMPLE
from tests.support.pgbackrest import BackedUp, Pair, take


def installation_of(source: BackedUp, pair: Pair) -> Installation:
    """An installation that protects the server with pgBackRest; its catalog is not there."""
    settings = Settings.model_validate(
        {
            "state_dir": source.root / "state",
            "platform": {"cluster": "studio", "dsn": source.server.dsn(), "bin_dir": pair.tools.bin_dir},
            "destinations": {"primary": {"path": source.destination, "minimum_free_bytes": 0}},
            "backup": {"engine": "pgbackrest"},
            "retention": {"keep_last": 1, "keep_days": 0},
            "engines": {"pgbackrest": {"program": pair.program, "archive_timeout_seconds": 20}},
        }
    )
    return Installation(settings)


def test_a_chain_is_taken_recorded_and_proven(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    with source.connect() as session:
        session.execute(SAMPLE)
    full = take_backup(installation, BackupOrder(BackupType.FULL))
    with source.connect() as session:
        session.execute("DELETE FROM public.segments WHERE id % 3 = 0")
    incremental = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    repository = installation.repository()
    stored = {item.manifest.label: item.manifest for item in repository.backups()}
    in_repository = installation.pgbackrest().info()
    assert list(stored) == [full.label, incremental.label] == [item.label for item in in_repository.backup]
    assert [item.annotation for item in in_repository.backup] == [
        {"lifeboat-id": str(manifest.id)} for manifest in stored.values()
    ]
    manifest = stored[incremental.label]
    assert (manifest.parent_label, manifest.objects) == (full.label, [])
    assert manifest.size_bytes > 0
    assert manifest.fingerprint is not None
    assert repository.unfinished_labels() == []
    report = run_drill(installation, DrillOrder(backup=incremental.label))
    assert report.passed, report
    assert not list(Path(source.root / "state" / "scratch").glob("scratch-*"))


def test_what_is_in_the_repository_is_checked_adopted_and_expired(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    source.engine.prepare().run("backup", "--type=full", doing="backing up by hand")
    (adopted,) = adopt_repository(installation).adopted
    dependent = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    newest = take_backup(installation, BackupOrder(BackupType.FULL))
    repository = installation.repository()
    manifest = repository.manifest(dependent.label)
    assert manifest.parent_id == adopted.id

    def check(chain: list[Manifest]) -> list[str]:
        return check_in_repository(installation, repository, chain)

    assert check_backup(repository, manifest, check_elsewhere=check) == []
    assert "only pgbackrest can check it" in check_backup(repository, manifest)[0]
    report = apply_retention(installation, plan_retention(installation))
    assert [label for label, _ in report.expired] == [dependent.label, adopted.label]
    assert report.freed_bytes > 0
    info = installation.pgbackrest().info()
    assert [item.label for item in info.backup] == [newest.label] == repository.labels()
    assert info.archive[0].min == info.backup[0].archive.start
    assert adopt_repository(installation).adopted == ()
    stored = next((source.engine.folders.repository / "backup").rglob("base/1/1255.gz"))
    stored.unlink()
    assert check_backup(repository, repository.manifest(newest.label), check_elsewhere=check) != []


def test_wal_stays_while_another_engines_backup_needs_it(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    old = take_backup(installation, BackupOrder(BackupType.FULL))
    held = take_backup(installation, BackupOrder(BackupType.FULL, engine="basebackup"))
    new = take_backup(installation, BackupOrder(BackupType.FULL))
    repository = installation.repository()
    oldest = installation.pgbackrest().info().archive[0].min
    repository.expire(old.label)
    # Also when another engine has become the default one: what it archived before is needed still.
    values = installation.settings.model_dump()
    changed = Installation(Settings.model_validate({**values, "backup": {"engine": "basebackup"}}))
    for asked, removed in ((changed, (old.label,)), (installation, ())):
        done = expire_in_repository(asked, repository)
        assert done is not None
        assert done.removed == removed
        assert held.label in str(done.why_wal_stays)
        assert installation.pgbackrest().info().archive[0].min == oldest
    repository.expire(held.label)
    done = expire_in_repository(installation, repository)
    assert done is not None
    assert done.wal_expired
    info = installation.pgbackrest().info()
    assert [item.label for item in info.backup] == [new.label]
    assert info.archive[0].min == info.backup[0].archive.start


def test_its_labels_keep_clear_of_other_engines_backups(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    ahead = datetime.now(UTC) + timedelta(seconds=3)
    other = installation.writable_repository().begin_label(make_label(BackupType.FULL, ahead), ahead)
    taken = take_backup(installation, BackupOrder(BackupType.FULL))
    assert taken.label > other.label
    assert other.directory.is_dir()
    other.abandon()


def damage(source: BackedUp, relation: str) -> None:
    """Change a page of a table or an index behind the server's back."""
    with source.connect() as session:
        session.execute("CREATE TABLE public.damaged AS SELECT id, md5(id::text) AS t FROM generate_series(1, 1000) id")
        session.execute("CREATE INDEX damaged_index ON public.damaged (t)")
        session.execute("CHECKPOINT")
        found = session.execute("SELECT pg_relation_filepath(%s)", [relation]).fetchone()
    assert found is not None
    path = source.server.data_dir / str(found[0])
    source.server.stop()
    with path.open("r+b") as file:
        file.seek(2 * 8192 + 4000)
        file.write(b"damage")
    source.server.start()


def test_pages_with_wrong_checksums_are_told(source: BackedUp, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    installation = installation_of(source, pair)
    damage(source, "public.damaged_index")
    taken = take_backup(installation, BackupOrder(BackupType.FULL))
    manifest = installation.repository().manifest(taken.label)
    for told in (taken.reason, manifest.reason, caplog.text):
        assert "pages with wrong checksums" in str(told)


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_pages_with_wrong_checksums_are_told_of_an_adopted_backup(
    source: BackedUp, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    installation = installation_of(source, pair)
    damage(source, "public.damaged_index")
    source.engine.prepare().run("backup", "--type=full", doing="backing up by hand")
    (adopted,) = adopt_repository(installation).adopted
    assert "pages with wrong checksums" in str(adopted.reason)
    assert "pages with wrong checksums" in caplog.text


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_a_repository_that_is_gone_is_not_made_anew(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    old, kept = (take_backup(installation, BackupOrder(BackupType.FULL)).label for _ in range(2))
    plan = plan_retention(installation)
    assert [item.candidate.label for item in plan.expired] == [old]
    home = source.engine.folders.repository
    away = home.with_name("away")
    home.rename(away)
    attempts: list[Callable[[], object]] = [
        lambda: take_backup(installation, BackupOrder(BackupType.INCREMENTAL)),
        lambda: take_backup(installation, BackupOrder(BackupType.FULL)),
        lambda: adopt_repository(installation),
        lambda: ensure_stanza(installation),
        lambda: take(source, BackupType.FULL),
        lambda: apply_retention(installation, plan),
    ]
    for attempt in attempts:
        with pytest.raises(StanzaMissing) as caught:
            attempt()
        assert "ount" in str(caught.value.hint)
        assert not (home / "backup").exists()
        assert (installation.repository().labels(), installation.repository().expired_labels()) == ([old, kept], [])
    if home.exists():
        home.rmdir()
    away.rename(home)
    report = apply_retention(installation, plan)
    assert [label for label, _ in report.expired] == [old]
    # Where it is lost indeed, somebody says so; backups go on with a full one.
    home.rename(away)
    create(installation)
    taken = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    assert taken.type is BackupType.FULL


@pytest.mark.parametrize("pair", ["debian 12"], indirect=True)
def test_a_first_backup_that_failed_is_not_adopted(
    source: BackedUp, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    installation = installation_of(source, pair)
    damage(source, "public.damaged")
    # pgBackRest does not let its only full backup go.
    with pytest.raises(DatabaseDamaged):
        take_backup(installation, BackupOrder(BackupType.FULL))
    assert "marked as failed" in caplog.text
    found = adopt_repository(installation)
    (failed,) = source.engine.info().backup
    assert found.adopted == ()
    assert found.left.keys() == {failed.label}
    assert "has failed: " in found.left[failed.label]
    # By hand somebody builds on it: that is no sound backup either.
    source.engine.prepare().run("backup", "--type=incr", doing="backing up by hand")
    dependent = source.engine.info().backup[-1].label
    assert adopt_repository(installation).left.keys() == {failed.label, dependent}
    with source.connect() as session:
        session.execute("DROP TABLE public.damaged")
    good = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    assert good.type is BackupType.FULL
    source.engine.reader().run("expire", f"--set={dependent}", doing="expiring by hand")
    assert adopt_repository(installation).left == {}
    assert [item.label for item in source.engine.info().backup] == [good.label] == installation.repository().labels()
    # pgBackRest takes no incremental one whose label sorts before that of a full one that was there once.
    program = source.engine.prepare()
    program.run("backup", "--type=full", doing="backing up by hand")
    program.run("expire", f"--set={source.engine.info().backup[-1].label}", doing="expiring by hand")
    again = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    assert (again.type, "is not later than" in str(again.reason)) == (BackupType.FULL, True)


def test_a_backup_that_fails_after_pgbackrest_has_ended_leaves_nothing(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    kept = take_backup(installation, BackupOrder(BackupType.FULL)).label
    damage(source, "public.damaged")
    with pytest.raises(DatabaseDamaged):
        take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    assert [item.label for item in source.engine.info().backup] == [kept] == installation.repository().labels()
    assert installation.repository().unfinished_labels() == []


def test_what_a_killed_run_left_is_taken_over_by_the_next(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    identifier = uuid4()
    # pgBackRest had ended, and the manifest was not written yet.
    killed = take(source, BackupType.FULL, Watch(identifier=identifier))
    folder = source.destination / "studio" / str(killed.label)
    folder.mkdir()
    assert adopt_repository(installation).left.keys() == {killed.label}
    (folder / ".writing").write_text("{}")
    incremental = take_backup(installation, BackupOrder(BackupType.INCREMENTAL))
    repository = installation.repository()
    full, dependent = (item.manifest for item in repository.backups())
    assert (full.label, full.id) == (killed.label, identifier)
    assert (dependent.label, dependent.parent_id, dependent.type) == (
        incremental.label,
        identifier,
        BackupType.INCREMENTAL,
    )
    assert repository.unfinished_labels() == []


def test_nothing_expires_where_pgbackrest_has_something_against_it(source: BackedUp, pair: Pair) -> None:
    installation = installation_of(source, pair)
    old = take_backup(installation, BackupOrder(BackupType.FULL))
    source.engine.prepare().run("backup", "--type=incr", doing="backing up by hand")
    dependent = source.engine.info().backup[-1].label
    source.engine.prepare().run("backup", "--type=full", doing="backing up by hand")
    # Only the full one is adopted: as if somebody had just taken the other one.
    newest = source.engine.info().backup[-1].label
    manifest = adopted_manifest(
        source.engine.info(),
        source.engine.info().backup[-1],
        source.engine.where,
        source.repository,
        superuser="postgres",
    )
    repository = installation.writable_repository()
    repository.publish(
        repository.begin_label(newest, manifest.started_at),
        manifest.model_copy(update={"signed_by": installation.signer.key_id}),
    )
    with pytest.raises(ExpiryRefused, match=f"{old.label} is not expired: {dependent} needs it"):
        apply_retention(installation, plan_retention(installation))
    assert repository.labels() == [old.label, newest]
    assert adopt_repository(installation).adopted[0].label == dependent
    plan, refused = plan_retention(installation), []

    def expire_now() -> None:
        try:
            apply_retention(installation, plan)
        except RepositoryBusy as error:
            refused.append(error)

    take(source, BackupType.FULL, Watch(on_begun=expire_now))
    assert refused[0].transient
    assert repository.expired_labels() == []
    adopt_repository(installation)
    report = apply_retention(installation, plan_retention(installation))
    assert [label for label, _ in report.expired] == [dependent, newest, old.label]
    assert len(source.engine.info().backup) == 1
