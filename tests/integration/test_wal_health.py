"""Archiving as a whole, on real servers: what breaks is told within one look, and a gap asks for a full backup."""

import gzip
import hashlib
import re
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from lifeboat.agent.heartbeat import beat, prepare_heartbeat
from lifeboat.operations.installation import Installation
from lifeboat.operations.wal.health import (
    check_wal_health,
    gaps_that_matter,
    remember_told,
    why_full_wanted,
)
from lifeboat.operations.wal.status import damaged_wal, read_server_wal, read_wal_status
from lifeboat.operations.wal.verify import ScrubRunning, verify_wal
from lifeboat.postgres.folders import give_to
from lifeboat.settings.root import Settings
from lifeboat.storage.manifest import BackupType
from lifeboat.wal.coverage import ArchiveUnreadable, SegmentRange
from lifeboat.wal.health import Severity
from lifeboat.wal.health_freshness import judge_rpo
from lifeboat.wal.health_memory import HEALTH_NAME
from lifeboat.wal.scrub_record import FindingKind
from tests.support.watched import Watched, archive_command, codes, until, watched

__all__ = ["watched"]  # a fixture


def test_a_sound_server_is_healthy(watched: Watched) -> None:
    report = check_wal_health(watched.installation)
    assert (report.healthy, report.verdict.findings, report.verdict.full_wanted) == (True, (), None)
    server = report.server
    assert server is not None
    assert (server.archives, server.waiting, server.in_recovery) == (True, 0, False)
    assert server.lag_bytes is not None
    assert 0 <= server.lag_bytes < 16 << 20
    assert not (watched.installation.destination().path / "main" / HEALTH_NAME).exists()


def test_a_failing_archive_command_is_told_at_once(watched: Watched) -> None:
    with archive_command(watched, "false"):
        watched.run("INSERT INTO public.frames VALUES (1)", "SELECT pg_switch_wal()")
        until(lambda: watched.value("SELECT failed_count FROM pg_stat_archiver") > 0)
        failing = check_wal_health(watched.installation)
    until(lambda: watched.value("SELECT last_archived_time > last_failed_time FROM pg_stat_archiver"))
    assert codes(failing) == ["archiver-fails"]
    assert failing.server is not None
    assert failing.server.waiting == 1
    assert check_wal_health(watched.installation).healthy


def test_a_hanging_archive_command_is_told_once_its_time_is_up(watched: Watched) -> None:
    with archive_command(watched, "sleep 5"):
        watched.run("INSERT INTO public.frames VALUES (1)", "SELECT pg_switch_wal()")
        until(lambda: read_server_wal(watched.installation).waiting == 1)
        assert check_wal_health(watched.installation).healthy
        watched.values["wal"]["health"] = {"max_lag_seconds": 0.5}
        time.sleep(0.6)
        assert codes(check_wal_health(watched.installation)) == ["archiver-stalled"]


def test_slots(watched: Watched) -> None:
    watched.run("SELECT pg_create_physical_replication_slot('left_alone', true)")
    watched.switch()
    idle = check_wal_health(watched.installation)
    assert (idle.healthy, codes(idle, Severity.WARNING)) == (True, ["slot-inactive"])
    assert "set max_slot_wal_keep_size" in idle.verdict.findings[0].advice
    watched.values["wal"]["health"] = {"max_slot_retained_bytes": 1024}
    assert codes(check_wal_health(watched.installation)) == ["slot-inactive"]

    watched.run("ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'", "SELECT pg_reload_conf()")
    watched.switch(4)
    watched.run("CHECKPOINT")
    watched.switch(2)
    watched.run("CHECKPOINT")
    lost = check_wal_health(watched.installation)
    assert codes(lost) in (["slot-lost"], ["slot-unreserved"])
    watched.run("SELECT pg_drop_replication_slot('left_alone')")
    assert check_wal_health(watched.installation).healthy


def test_a_gap_turns_the_next_incremental_backup_into_a_full_one(watched: Watched) -> None:
    assert watched.take(BackupType.FULL) == (BackupType.FULL, None)
    watched.switch(4)
    gone = watched.segments()[-2]
    watched.stored(gone.name).unlink()
    told = check_wal_health(watched.installation)
    assert codes(told) == ["gap"]
    assert told.verdict.full_wanted is not None
    assert gone.name in told.verdict.full_wanted
    repository = watched.installation.repository()
    assert why_full_wanted(watched.installation, repository, "basebackup") == told.verdict.full_wanted
    assert codes(check_wal_health(watched.installation)) == ["gap"]  # until there is one

    kind, reason = watched.take(BackupType.INCREMENTAL)
    assert (kind, reason) == (BackupType.FULL, f"instead of incremental: {told.verdict.full_wanted}")
    assert why_full_wanted(watched.installation, repository, "basebackup") is None
    remember_told(watched.installation, told)
    after = check_wal_health(watched.installation)
    assert (after.healthy, codes(after, Severity.WARNING), after.verdict.full_wanted) == (True, ["gap"], None)
    if watched.cluster.tools.major > 16:
        assert watched.take(BackupType.INCREMENTAL) == (BackupType.INCREMENTAL, None)


def test_the_newest_segment_cannot_vanish_unseen(watched: Watched) -> None:
    name = watched.switch(2)
    watched.stored(name).unlink()
    report = check_wal_health(watched.installation)
    assert codes(report) == ["gap"]
    assert name in report.verdict.findings[0].what


def test_what_the_scrub_finds_is_an_alert_and_stays_one(watched: Watched) -> None:
    watched.switch(3)
    victim = watched.segments()[1]
    assert verify_wal(watched.installation).sound
    path = watched.stored(victim.name)
    zeros = bytes(victim.size_bytes)
    path.with_name(f"{victim.name}-{hashlib.sha256(zeros).hexdigest()}.gz").write_bytes(gzip.compress(zeros, 1))
    path.unlink()
    # Its names and sizes are right: only the contents tell.
    assert check_wal_health(watched.installation).healthy
    assert verify_wal(watched.installation).sound
    report = verify_wal(watched.installation, everything=True)
    assert [(item.name, item.kind) for item in report.findings] == [(victim.name, FindingKind.ZEROED)]
    status = read_wal_status(watched.installation)
    assert (status.intact, status.damaged, len(status.listing.gaps)) == (False, frozenset({victim}), 0)
    assert damaged_wal(watched.installation, status.listing) == {victim}
    health = check_wal_health(watched.installation)
    assert codes(health) == ["damaged"]
    assert health.verdict.full_wanted is not None
    assert not status.listing.unknown
    assert (watched.archive / "scrub.json").stat().st_uid == watched.archive.stat().st_uid


def test_findings_are_told_even_if_the_archive_goes_away(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """They are new in one run only: what the log does not have then, it never gets."""
    victim = watched.segments()[0]
    path = watched.stored(victim.name)
    path.write_bytes(gzip.compress(bytes(victim.size_bytes), 1))
    marker = watched.archive / "archive.json"

    def take_away(progress: object) -> None:
        marker.rename(marker.with_name("away.json"))

    with pytest.raises(ArchiveUnreadable):
        verify_wal(watched.installation, on_progress=take_away)
    assert f"archived WAL is damaged: {victim.name}" in caplog.text


def test_one_scrub_at_a_time(watched: Watched) -> None:
    def again(progress: object) -> None:
        with pytest.raises(ScrubRunning):
            verify_wal(watched.installation)

    assert verify_wal(watched.installation, on_progress=again).sound
    (watched.archive / "scrub.json").write_text("{")
    assert read_wal_status(watched.installation).record_error is not None
    assert codes(check_wal_health(watched.installation), Severity.WARNING) == ["findings-unreadable"]
    assert verify_wal(watched.installation).segments_read > 0


def test_what_does_not_answer_is_an_alert(watched: Watched) -> None:
    away = watched.archive.with_name("away")
    watched.archive.rename(away)
    gone = check_wal_health(watched.installation)
    assert (codes(gone), gone.status) == (["archive-unreadable"], None)
    assert gone.server is not None
    away.rename(watched.archive)
    watched.cluster.stop()
    down = check_wal_health(watched.installation)
    assert (codes(down), down.server) == (["server-unreachable"], None)
    assert down.status is not None


def test_a_silent_agent_is_an_alert(watched: Watched) -> None:
    with psycopg.connect(watched.cluster.dsn(), autocommit=True) as session:
        prepare_heartbeat(session)
        beat(session, "test")
    assert check_wal_health(watched.installation).healthy
    watched.run("UPDATE lifeboat.heartbeat SET at = now() - interval '2 minutes'")
    unwanted = check_wal_health(watched.installation)
    assert (codes(unwanted), codes(unwanted, Severity.WARNING)) == ([], ["heartbeat-silent"])
    watched.values["agent"]["enabled"] = True
    assert codes(check_wal_health(watched.installation)) == ["heartbeat-silent"]


def test_an_agent_that_never_comes_is_an_alert_after_a_while(watched: Watched) -> None:
    watched.values["agent"] = {"enabled": True, "silence_seconds": 15, "heartbeat_seconds": 1}
    first = check_wal_health(watched.installation)
    assert (codes(first), codes(first, Severity.WARNING)) == ([], ["heartbeat-absent"])
    remember_told(watched.installation, first)
    assert check_wal_health(watched.installation).healthy
    watched.forget_seconds(16)
    assert codes(check_wal_health(watched.installation)) == ["heartbeat-absent"]
    with psycopg.connect(watched.cluster.dsn(), autocommit=True) as session:
        prepare_heartbeat(session)
        beat(session, "test")
    report = check_wal_health(watched.installation)
    assert report.healthy
    assert report.told is not None
    assert report.told.heartbeat_absent_since is None


def test_an_alert_stays_one_until_somebody_was_told(watched: Watched) -> None:
    watched.take(BackupType.FULL)
    watched.switch(4)
    gone = watched.segments()[-2]
    watched.take(BackupType.FULL)
    watched.stored(gone.name).unlink()
    # Whoever asks and is interrupted, or asks by hand, takes the alert from nobody.
    for _ in range(2):
        report = check_wal_health(watched.installation)
        assert (codes(report), report.verdict.full_wanted) == (["gap"], None)
    assert not verify_wal(watched.installation).sound
    remember_told(watched.installation, report)
    known = check_wal_health(watched.installation)
    assert (codes(known), codes(known, Severity.WARNING)) == ([], ["gap"])
    # Nor is it one for whoever verifies each day.
    verified = verify_wal(watched.installation)
    assert (verified.sound, verified.gaps, len(read_wal_status(watched.installation).gaps)) == (True, (), 1)


def test_a_segment_on_its_way_is_no_gap(watched: Watched) -> None:
    """A receiver beside archive_command, or pgBackRest, brings a later one first."""
    last = watched.switch()
    stored = watched.stored(last)
    ahead = f"{int(last, 16) + 2:024X}"
    content = stored.read_bytes()
    (stored.parent / f"{ahead}-{stored.name[25:]}").write_bytes(content)
    status = read_wal_status(watched.installation)
    assert len(status.gaps) == 1
    assert gaps_that_matter(watched.installation, status) == verify_wal(watched.installation).gaps == ()


def test_another_hole_asks_for_another_full_backup(watched: Watched) -> None:
    watched.take(BackupType.FULL)
    watched.switch(4)
    watched.stored(watched.segments()[-2].name).unlink()
    assert check_wal_health(watched.installation).verdict.full_wanted is not None
    watched.take(BackupType.FULL)
    watched.switch(4)
    second = watched.segments()[-2]
    watched.stored(second.name).unlink()
    # Nobody looked in between: the first wish was answered, and no look has taken it away.
    wanted = check_wal_health(watched.installation).verdict.full_wanted
    assert wanted is not None
    assert second.name in wanted
    repository = watched.installation.repository()
    assert why_full_wanted(watched.installation, repository, "basebackup") == wanted
    assert watched.take(BackupType.INCREMENTAL)[0] is BackupType.FULL


def promote(watched: Watched) -> None:
    """Go on, on a timeline of its own, as after a restore."""
    watched.cluster.stop()
    signal = watched.cluster.data_dir / "recovery.signal"
    signal.touch()
    give_to(signal, watched.cluster.tools.user)
    conf = watched.cluster.data_dir / "postgresql.auto.conf"
    conf.write_text(conf.read_text() + "restore_command = 'false'\n")
    watched.cluster.start()
    until(lambda: not watched.value("SELECT pg_is_in_recovery()"))


def test_wal_that_is_missing_where_a_timeline_begins_is_a_gap(watched: Watched) -> None:
    watched.take(BackupType.FULL)
    watched.switch(3)
    watched.cluster.stop()
    watched.cluster.start()
    promote(watched)
    watched.switch(4)
    whole = check_wal_health(watched.installation)
    assert (whole.healthy, whole.status is not None and whole.status.switch_gaps) == (True, ()), whole.verdict
    timelines = {timeline: [each for each in watched.segments() if each.timeline == timeline] for timeline in (1, 2)}
    # As after a restore that replayed WAL which the archive never got: each side has no gap of its own.
    lost = [timelines[1][-1], *timelines[2][:2]]
    for segment in lost:
        watched.stored(segment.name).unlink()
    report = check_wal_health(watched.installation)
    assert codes(report) == ["gap", "gap"]
    text = " ".join(item.what for item in report.verdict.findings)
    assert all(segment.name in text for segment in lost)
    assert report.status is not None
    assert gaps_that_matter(watched.installation, report.status) == tuple(
        SegmentRange(first, last) for first, last in ((lost[0], lost[0]), (lost[1], lost[2]))
    )
    assert report.status.listing.gaps == ()
    assert watched.take(BackupType.INCREMENTAL)[0] is BackupType.FULL
    remember_told(watched.installation, report)
    assert check_wal_health(watched.installation).healthy
    history = "00000002.history"
    (stored,) = watched.archive.rglob(f"{history}-*.gz")
    stored.unlink()
    assert codes(check_wal_health(watched.installation)) == ["history-missing"]


def test_a_plain_role_sees_enough(watched: Watched) -> None:
    watched.run("CREATE ROLE looker LOGIN")
    values = {**watched.values, "platform": {**watched.values["platform"], "dsn": watched.cluster.dsn(user="looker")}}
    server = read_server_wal(Installation(Settings.model_validate(values)))
    assert (server.waiting, server.archives, server.heartbeat_age_seconds) == (None, True, None)
    assert server.segments_behind == 0


def test_commits_that_stay_unarchived_are_an_alert(watched: Watched) -> None:
    """Without archive_timeout no segment is finished on a quiet server, however many commits wait."""
    watched.values["wal"] |= {"archive_timeout_seconds": 1, "health": {"max_lag_seconds": 1}}
    with psycopg.connect(watched.cluster.dsn(), autocommit=True) as session:
        prepare_heartbeat(session)
        time.sleep(2.1)
        quiet = check_wal_health(watched.installation)
        beat(session, "test")
    started = watched.value("SELECT pg_postmaster_start_time()")
    late = check_wal_health(watched.installation)
    watched.switch()
    # The server's archive_timeout counts, as it is longer than the one that is wanted.
    assert (codes(quiet), codes(late)) == ([], [])
    server = late.server
    assert server is not None
    assert (server.started_at, server.archive_timeout_seconds, server.checkpoint_timeout_seconds) == (started, 30, 300)
    assert not list(judge_rpo(server, 1, 1))
    long_up = replace(server, started_at=started - timedelta(hours=1), archive_timeout_seconds=0)
    (found,) = judge_rpo(long_up, 1, 1)
    assert re.search(r"the commits of the last \d+ s would be: [\d,]+ bytes", found.what)
    after = check_wal_health(watched.installation).server
    assert after is not None
    assert not list(judge_rpo(replace(after, started_at=long_up.started_at, archive_timeout_seconds=0), 1, 30))


def test_an_active_slot_whose_consumer_is_far_behind_is_an_alert(watched: Watched) -> None:
    watched.run("SELECT pg_create_physical_replication_slot('stuck', true)")
    watched.values["wal"]["health"] = {"max_slot_retained_bytes": 1024}
    begin = watched.value("SELECT restart_lsn FROM pg_replication_slots")
    with closing(psycopg.connect(watched.cluster.dsn(), replication="true", autocommit=True)) as session:
        # It never says that it has got anything.
        session.pgconn.exec_(f"START_REPLICATION SLOT stuck PHYSICAL {begin}".encode())
        assert codes(check_wal_health(watched.installation)) == ["slot-behind"]
