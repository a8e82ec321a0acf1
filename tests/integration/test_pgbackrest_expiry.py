"""Expiry takes what the plan names out of pgBackRest's repository, and only WAL that nothing needs."""

import pytest

from lifeboat.engines.pgbackrest.expiry import ExpiryRefused, expire_from_repository
from lifeboat.storage.manifest import BackupType
from tests.support.pgbackrest import BackedUp, take

F, D, I = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL  # noqa: E741


def labels_of(source: BackedUp, *kinds: BackupType) -> list[str]:
    """The labels of backups taken one after the other."""
    return [str(take(source, kind).label) for kind in kinds]


def oldest_segment(source: BackedUp) -> str:
    """The oldest segment in the archive."""
    return str(source.engine.info().archive[0].min)


def test_backups_go_by_name_and_wal_before_the_oldest_kept_full_one(source: BackedUp) -> None:
    old, old_incremental, new, first, second = labels_of(source, F, I, F, D, I)
    reader = source.engine.reader()
    start = oldest_segment(source)
    # An incremental one goes alone: its WAL is needed by the full one before it.
    done = expire_from_repository(reader, [second], [old, old_incremental, new, first])
    assert (done.removed, done.wal_expired) == ((second,), True)
    kept_from = oldest_segment(source)
    full = source.engine.info().find(old)
    assert full is not None
    assert start < kept_from == full.archive.start
    # The plan may name them in any order: dependents go first.
    done = expire_from_repository(reader, [old, old_incremental], [new, first])
    assert done.removed == (old_incremental, old)
    left = source.engine.info()
    assert [item.label for item in left.backup] == [new, first]
    assert oldest_segment(source) == left.backup[0].archive.start
    assert expire_from_repository(reader, [old, old_incremental], [new, first]).removed == ()


def test_wal_stays_where_the_plan_and_pgbackrest_disagree(source: BackedUp) -> None:
    old, new = labels_of(source, F, F)
    reader = source.engine.reader()
    start = oldest_segment(source)
    # The plan has never heard of the old one: taken beside us, perhaps.
    done = expire_from_repository(reader, [], [new])
    assert not done.wal_expired
    assert done.why_wal_stays == f"the plan and pgBackRest do not name the same full backups: {old}"
    assert expire_from_repository(reader, [], ["20200101-000000F", old, new]).why_wal_stays is not None
    assert expire_from_repository(reader, [], []).why_wal_stays == "no full backup is kept"
    assert oldest_segment(source) == start
    assert source.engine.info().full_labels() == [old, new]


def test_a_backup_that_others_need_does_not_take_them_along(source: BackedUp) -> None:
    full, first, second = labels_of(source, F, I, I)
    reader = source.engine.reader()
    for going in ([full], [full, second], [first]):
        with pytest.raises(ExpiryRefused, match="is not to go"):
            expire_from_repository(reader, going, [])
    assert [item.label for item in source.engine.info().backup] == [full, first, second]


def test_a_backup_expires_nothing_by_itself(source: BackedUp) -> None:
    labels = labels_of(source, F, F)
    start = oldest_segment(source)
    labels += labels_of(source, F)
    assert source.engine.info().full_labels() == labels
    assert oldest_segment(source) == start
