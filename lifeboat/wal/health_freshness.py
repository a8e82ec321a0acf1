"""How fresh the newest commits are, and how fresh they are in the archive: what the heartbeat tells."""

from collections.abc import Iterator

from lifeboat.wal.health import HealthFinding, ServerWal, Severity, ago


def judge_rpo(server: ServerWal, timeout_seconds: float, max_lag_seconds: float) -> Iterator[HealthFinding]:
    """Whether the newest commits wait longer to be archived than they may: they would be lost with the server.

    They may wait for archive_timeout, the server's or the wanted one, whichever is longer, and `max_lag_seconds` more;
    for checkpoint_timeout after a start it is a warning, as a checkpointer that sleeps does not look at the former.
    Only a heartbeat behind the last archived segment proves that there are commits: an idle server has none to lose.
    """
    archived_at, beat_seconds = server.archiver.last_archived_at, server.heartbeat_age_seconds
    if server.in_recovery or not server.archives or archived_at is None or beat_seconds is None or not server.lag_bytes:
        return
    limit_seconds = max(timeout_seconds, server.archive_timeout_seconds) + max_lag_seconds
    lost_seconds, is_new = (server.now - archived_at).total_seconds(), False
    if server.started_at is not None:
        # What was archived last outlives a restart, but nothing is committed while the server is down.
        up_seconds = (server.now - server.started_at).total_seconds()
        # Until the checkpointer wakes for the first time nothing ends a segment, and by itself that will pass.
        is_new = up_seconds <= server.checkpoint_timeout_seconds + limit_seconds
        lost_seconds = min(lost_seconds, up_seconds)
    if beat_seconds < lost_seconds and lost_seconds > limit_seconds:
        yield HealthFinding(
            Severity.WARNING if is_new else Severity.ALERT,
            "rpo",
            f"if the server were lost now, the commits of the last {lost_seconds:.0f} s would be: {server.lag_bytes:,}"
            f" bytes of WAL are not archived, and the last archived segment came {ago(server.now, archived_at)}",
            _rpo_advice(server, timeout_seconds, is_new=is_new),
        )


def _rpo_advice(server: ServerWal, timeout_seconds: float, *, is_new: bool) -> str:
    found_seconds = server.archive_timeout_seconds
    if not 0 < found_seconds <= timeout_seconds:
        waits = f"{found_seconds} s" if found_seconds else "0, which waits until a segment is full"
        wanted = f"{timeout_seconds:g} s (`wal.archive_timeout_seconds`)"
        return f"Set archive_timeout on the server to {wanted}: it is {waits}."
    if is_new:
        return (
            f"The server was started not long ago: it may look at archive_timeout ({found_seconds} s) only"
            f" {server.checkpoint_timeout_seconds} s after its start; SELECT pg_reload_conf() has it do so now."
        )
    return f"archive_timeout is {found_seconds} s on the server: look whether archiving is slow or hangs."


def judge_heartbeat(
    age_seconds: float | None, silence_seconds: float, *, expected: bool, absent_seconds: float = 0.0
) -> Iterator[HealthFinding]:
    """What the newest heartbeat says; without an agent that is `expected`, an old one is a warning at most.

    None is one that was never written, as an agent just installed has it: an alert once that was so for longer than
    a silence may be.
    """
    advice = "Start `lifeboat agent`, and look at its log: restores aim at the commits that it makes."
    if age_seconds is None:
        if expected:
            what = "there has never been a heartbeat: the agent has not run"
            severity = Severity.ALERT if absent_seconds > silence_seconds else Severity.WARNING
            yield HealthFinding(severity, "heartbeat-absent", what, advice)
    elif age_seconds > silence_seconds:
        what = f"the newest heartbeat is {age_seconds:.0f} s old: the agent is silent"
        if expected:
            yield HealthFinding(Severity.ALERT, "heartbeat-silent", what, advice)
        else:
            left = "Settings want no agent (`agent.enabled`): DROP TABLE lifeboat.heartbeat ends this."
            yield HealthFinding(Severity.WARNING, "heartbeat-silent", what, left)
