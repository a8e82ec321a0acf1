"""The engine pgbackrest takes backups of real servers, with each version of it that is here."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from lifeboat.engines.engine import IncrementalImpossible, Progress, Taken, Watch
from lifeboat.engines.pgbackrest.failures import RepositoryBusy
from lifeboat.engines.pgbackrest.info import read_info
from lifeboat.storage.labels import is_label
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.names import parse_lsn
from tests.support.pgbackrest import BackedUp, parent_of, take

F, D, I = BackupType.FULL, BackupType.DIFFERENTIAL, BackupType.INCREMENTAL  # noqa: E741


def test_takes_each_type_and_says_all_that_a_manifest_needs(source: BackedUp) -> None:
    identity = source.engine.identity()
    identifiers = [uuid4() for _ in range(4)]
    taken: list[Taken] = []
    for kind, identifier in zip([F, D, I, I], identifiers, strict=True):
        taken.append(take(source, kind, Watch(identifier=identifier)))
    full, differential, first, second = (str(item.label) for item in taken)
    assert [item.type for item in taken] == [F, D, I, I]
    assert all(is_label(str(item.label)) for item in taken)
    assert [item.details["chain"] for item in taken] == [
        [full],
        [full, differential],
        [full, differential, first],
        [full, differential, first, second],
    ]
    for item in taken:
        assert (item.engine, item.timeline, item.system_identifier) == ("pgbackrest", 1, identity.system_identifier)
        assert item.pg_version.startswith(f"{identity.major}.")
        assert parse_lsn(str(item.start_lsn)) < parse_lsn(str(item.stop_lsn))
        assert item.details["repository_bytes"] > 0
        assert item.details["superuser"] == "postgres"
        assert not item.details["page_checksum_errors"]
    info = read_info(source.engine.reader())
    assert [(item.annotation or {}).get("lifeboat-id") for item in info.backup] == [str(each) for each in identifiers]
    assert [item.prior for item in info.backup] == [None, full, differential, first]


def test_tells_when_it_has_begun_and_how_far_it_is(source: BackedUp) -> None:
    happened: list[object] = []
    watch = Watch(on_begun=lambda: happened.append("begun"), on_progress=happened.append)
    take(source, F, watch)
    amounts = [item for item in happened if isinstance(item, Progress)]
    assert happened[0] == "begun"
    assert happened.count("begun") == 1
    assert [item.done_bytes for item in amounts] == sorted(item.done_bytes for item in amounts)
    assert amounts[-1].done_bytes == amounts[-1].total_bytes


def test_labels_are_in_utc_wherever_we_run(source: BackedUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    label = str(take(source, F).label)
    stamp = datetime.strptime(label, "%Y%m%d-%H%M%SF").replace(tzinfo=UTC)
    assert abs(stamp - datetime.now(UTC)) < timedelta(minutes=5)


def test_refuses_to_build_on_another_backup_than_the_sound_one(source: BackedUp) -> None:
    with pytest.raises(IncrementalImpossible, match="nothing that a backup of type incremental"):
        take(source, I)
    full = take(source, F)
    incremental = take(source, I)
    with pytest.raises(
        IncrementalImpossible, match=f"build on {incremental.label}, and the newest sound .* {full.label}"
    ):
        take(source, I, parent=parent_of(source, full))
    assert take(source, D, parent=parent_of(source, full)).details["chain"][0] == full.label


def test_a_second_backup_at_the_same_time_is_a_transient_error(source: BackedUp) -> None:
    with source.connect() as session:
        session.execute(
            "CREATE TABLE public.filling AS SELECT repeat(md5(i::text), 50) AS t FROM generate_series(1, 40000) i"
        )
    begun, failure = threading.Event(), []

    def second() -> None:
        begun.wait(60)
        try:
            take(source, F)
        except RepositoryBusy as error:
            failure.append(error)

    thread = threading.Thread(target=second)
    thread.start()

    def let_it_try() -> None:
        begun.set()
        thread.join(60)

    first = take(source, F, Watch(on_begun=let_it_try))
    assert failure[0].transient
    assert "another pgBackRest process" in failure[0].message
    assert [item.label for item in source.engine.info().backup] == [first.label]


def test_what_on_tick_raises_stops_the_backup(source: BackedUp) -> None:
    class Stopped(Exception):
        """A lost lock, for instance."""

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        take(source, F, Watch(on_tick=stop))
    assert source.engine.info().backup == []
    # The next one is not in the way of what the stopped one has left.
    assert take(source, F).label


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
def test_the_configuration_belongs_to_the_account_alone(source: BackedUp) -> None:
    for path in (source.engine.folders.config, source.engine.reader().config):
        found = Path(path).stat()
        assert found.st_mode & 0o777 == 0o600
        assert found.st_uid == source.server.data_dir.stat().st_uid
